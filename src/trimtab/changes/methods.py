"""Methods that select by what parameters are (their kind and layer), or by a file, and the union of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

from torch import nn

from ..encoders.parameter_kinds import EMBEDDINGS, KINDS, NORM_KINDS, Part, layers_of, parts_of
from ..errors import InputError, counted, suggestion
from .choices import check_last
from .contract import NO_TRIAL, Additions, Choosing, Defaults, Method, Trial, adapted, defaults_of, trial_of
from .selection import Selection, described_in


@dataclass(frozen=True)
class Full(Choosing):
    """Every parameter: the yardstick that the others are measured against."""

    defaults: ClassVar[Defaults] = Defaults(lr=5e-5, head_lr=1e-2, width=384)

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        return Selection.where(parts_of(model), lambda name, part: True)


@dataclass(frozen=True)
class Head(Choosing):
    """The head alone, on frozen features: the other yardstick."""

    defaults: ClassVar[Defaults] = Defaults(lr=1e-2, head_lr=1e-1, epochs=30)

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        return found(parts_of(model), lambda part: part.is_head, "the model has no head to train")


@dataclass(frozen=True)
class LastLayers(Choosing):
    """The last `k` layers and all that follows them; ALBERT, whose layers are one module, has no last ones."""

    k: int = 2
    defaults: ClassVar[Defaults] = Defaults(lr=1e-4, head_lr=1e-2, width=384)

    def __post_init__(self):
        if not isinstance(self.k, Integral) or isinstance(self.k, bool):
            raise InputError(f"last_layers:k={self.k} must be a whole number")

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        first = first_of_last(model, "last_layers:k", self.k)
        return found(parts_of(model), lambda part: part.layer >= first, "the last layers have no parameters")


class OfLastLayers(Choosing):
    """Base of the methods whose option `last` leaves the first layers, and what comes before them, as they are; None: no limit.

    What many tasks leave alone is run once for all of them, and by a fit once for each row. What follows the layers counts as
    above the last one.
    """

    name: ClassVar[str]
    last: int | None

    def __post_init__(self):
        check_last(self.name, self.last)
        if self.last is not None:
            object.__setattr__(self, "last", int(self.last))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options().items())})"

    def options(self) -> dict[str, Any]:
        """Its options, without `last` where there is no limit: as deltas have them, and names of cells, of before it was one."""
        return {name: value for name, value in vars(self).items() if name != "last" or value is not None}

    def of_last(self, last: int) -> Self:
        """The same method, kept to so many last layers."""
        return type(self)(**vars(self) | {"last": last})

    def lowest(self, model: nn.Module) -> int:
        """The lowest layer that it reaches; raises InputError where the encoder has no `last` layers."""
        return EMBEDDINGS if self.last is None else first_of_last(model, f"{self.name}:last", self.last)

    @property
    def reach(self) -> str:
        """The limit, to follow what is said of the encoder; "" for none."""
        return "" if self.last is None else f" from its last {counted(self.last, 'layer')} on"


@dataclass(frozen=True, repr=False)
class Biases(OfLastLayers):
    """Bias vectors (BitFit, arXiv 2106.10199): all of the backbone's, or those of the kinds in `which`, joined by "+".

    `last`: those of so many last layers, and of what follows them.
    """

    which: str = "all"
    last: int | None = None
    name: ClassVar[str] = "biases"
    defaults: ClassVar[Defaults] = Defaults(lr=3e-3, head_lr=1e-2, count=26_112)

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        kinds = kinds_named(self.which, "biases:which", {"all": KINDS})
        parts, lowest = parts_of(model), self.lowest(model)

        def is_bias(part: Part) -> bool:
            return part.role == "bias" and not part.is_head and part.layer >= lowest

        present = {part.kind for part in parts.values() if is_bias(part)}
        check_present(self.which, "biases:which", ("all",), present, "biases", self.reach)
        return found(
            parts, lambda part: is_bias(part) and part.kind in kinds, f"this encoder has no biases{self.reach}"
        )


_NORMS_OF = {"all": NORM_KINDS, "attention": ("attention_norm",), "output": ("output_norm",)}


@dataclass(frozen=True, repr=False)
class LayerNorms(OfLastLayers):
    """Weights and biases of the normalisation layers (arXiv 2403.20284).

    `which`: all, attention (the norm after or before attention) or output; `what`: weight, bias or both; `last`: those of so
    many last layers, and a norm that follows them.
    """

    which: str = "all"
    what: str = "both"
    last: int | None = None
    name: ClassVar[str] = "layer_norms"
    defaults: ClassVar[Defaults] = Defaults(lr=3e-3, head_lr=1e-2, count=9_984)

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        kinds = _NORMS_OF[_one_of(self.which, _NORMS_OF, "layer_norms:which")]
        roles = {"weight": ("weight",), "bias": ("bias",), "both": ("weight", "bias")}
        role = roles[_one_of(self.what, roles, "layer_norms:what")]
        why = f"this encoder has no such LayerNorm elements (which={self.which}, what={self.what}){self.reach}"
        lowest = self.lowest(model)
        return found(
            parts_of(model), lambda part: part.kind in kinds and part.role in role and part.layer >= lowest, why
        )


ALL_NORMS = LayerNorms()  # what a subset is chosen within, where nothing else is said


@dataclass(frozen=True)
class Union(Choosing):
    """What any of `methods` selects; written `layer_norms+biases` on the command line."""

    methods: tuple[Method, ...]

    def __post_init__(self):
        # A union of unions is the union of their members: its text reads back as that.
        nested = ((each.methods if isinstance(each, Union) else (each,)) for each in self.methods)
        object.__setattr__(self, "methods", tuple(each for group in nested for each in group))
        names = [name for each in self.methods if (name := adds_of(each))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InputError(f"a union may hold one {twice}: let that one reach all that both are to reach")

    @property
    def defaults(self) -> Defaults:
        """The lowest of the methods' rates, as the most delicate elements decide, and the most epochs."""
        all_of = [defaults_of(method) for method in self.methods]
        slowest = min(all_of, key=lambda defaults: defaults.lr)
        counts = [defaults.count for defaults in all_of]
        return slowest._replace(
            head_lr=min(d.head_lr for d in all_of), epochs=max(d.epochs for d in all_of),
            count=None if None in counts else sum(filter(None, counts)),
        )  # fmt: skip

    @property
    def trial(self) -> str:
        """Those of its methods, one after the other."""
        return ", ".join(trial for method in self.methods if (trial := trial_of(method)))

    def add(self, model: nn.Module) -> Additions:
        """All that its methods add, before any of them selects: names of parameters change where modules are added."""
        additions = Additions()
        for method in self.methods:
            additions |= adapted(method).add(model)
        return additions

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        selected = Selection(parts_of(model), {})
        for method in self.methods:
            selected = selected | adapted(method).select(model, trial)
        return selected


@dataclass(frozen=True)
class Chosen(Choosing):
    """The selection saved in `file`, such as a global subset; written `selection:file=PATH`."""

    file: str = ""

    def check_name(self) -> None:
        """Raises InputError for a file whose name means something else in the text of a method, which every delta carries."""
        if set(",+()") & set(self.file):
            raise InputError(
                f"selection:file={self.file} has one of , + ( ) in its name, which join methods: rename the file"
            )

    @property
    def defaults(self) -> Defaults:
        """Those of as many LayerNorm elements for elements of vectors, else of scattered ones.

        Raises InputError for a file that is no selection.
        """
        if not self.file:
            return LayerNorms.defaults
        described = described_in(self.file)
        return defaults_of_subset(ALL_NORMS if described["in_vectors"] else None, described["chosen"])

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        if not self.file:
            raise InputError("selection needs a file: selection:file=PATH")
        # Before training and not after it, when the delta's text is written.
        self.check_name()
        return Selection.load(self.file, parts_of(model), trial.added)


def adds_of(method: Any) -> str:
    """The name of what `method` adds to a model, by itself or by one of its methods; "" for nothing."""
    members = method.methods if isinstance(method, Union) else (method,)
    return next((name for each in members if (name := getattr(each, "adds", ""))), "")


def defaults_of_subset(within: Method | None, count: int | None = None, share: float | None = None) -> Defaults:
    """How some of the elements of `within` are best trained: the farther, the fewer they are.

    The rate follows a power of the count between two points that were searched: 4e-2 for 9,984 elements of minilm's matrices, and
    5e-5 for all 10.6M. A random tenth of the norms wants 2.5e-2 to 5e-2 (sst2 and stsb), all of them 3e-3 to 5e-3: the same
    power. Without a `share` the count is taken against that of minilm.
    """
    # None: the layers' matrices and vectors together, which behave as matrices.
    whole = defaults_of(within or Full())
    if whole.width is None:
        part = share if share is not None else (count or 1) / (whole.count or count or 1)
        lr = min(_MOST, whole.lr * max(1.0, 1 / max(part, 1e-9)) ** _FALL)
        return whole._replace(lr=float(f"{lr:.2g}"), count=None)  # two digits: the power is not known better
    if count is not None:
        return _FEW._replace(lr=_FEW.lr * min(1.0, (_FEW_COUNT / count) ** _FALL))
    return _FEW._replace(
        lr=min(_FEW.lr, Full.defaults.lr / max(share or 1.0, 1e-9) ** _FALL), width=Full.defaults.width
    )


_FEW, _FEW_COUNT = Defaults(lr=4e-2, head_lr=1e-2), 9_984
_FALL = math.log(_FEW.lr / Full.defaults.lr) / math.log(10_646_784 / _FEW_COUNT)  # 0.96
_MOST = 5e-2  # the highest rate that was searched for elements of vectors


def found(parts: Mapping[str, Part], wanted: Callable[[Part], bool], why_empty: str) -> Selection:
    """The parameters that are `wanted`; raises InputError where there are none."""
    chosen = Selection.where(parts, lambda name, part: wanted(part))
    if not chosen:
        raise InputError(why_empty)
    return chosen


def first_of_last(model: nn.Module, option: str, last: int) -> int:
    """The first of the model's `last` layers, for which `option` asks; raises InputError where it has no such layers."""
    layers = layers_of(model)
    # ALBERT: one module stands for all layers, so its parameters belong to none.
    if layers.shared:
        raise InputError(
            f"{option}={last} has no meaning here: this encoder runs one shared layer again and again; take a method of all "
            "layers, such as layer_norms, or the head alone"
        )
    if not 1 <= last <= layers.count:
        raise InputError(
            f"{option}={last} does not fit: the encoder has {counted(layers.count, 'layer')}"
            + (f"; give 1 to {layers.count}" if layers.count else "")
        )
    return layers.count - last


def kinds_named(text: str, option: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The parameter kinds that `text` lists, joined by "+"; one of the `names` stands for several."""
    listed = [_one_of(kind, (*names, *KINDS), option) for kind in text.split("+")]
    return tuple(kind for each in listed for kind in names.get(each, (each,)))


def check_present(text: str, option: str, groups: Iterable[str], present: set[str], what: str, reach: str = "") -> None:
    """Raises InputError for a kind that `text` names by itself, not as one of the `groups`, and of which there is nothing.

    `reach` says which of the encoder's layers are looked at, where not all are.

    To train the others alone would be another method under the same name.
    """
    absent = [kind for kind in text.split("+") if kind not in groups and kind not in present]
    if absent:
        known = ", ".join(kind for kind in KINDS if kind in present) or "none at all"
        raise InputError(
            f"{option}={text}: this encoder has no {what} of kind {', '.join(absent)}{reach}; it has {known}"
        )


def _one_of(value: str, allowed: Iterable[str], option: str) -> str:
    if value not in allowed:
        raise InputError(f"{option}={value} is unknown{suggestion(value, allowed)}; known: {', '.join(allowed)}")
    return value
