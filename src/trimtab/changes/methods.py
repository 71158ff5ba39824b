"""The methods: each decides which elements of a model may change. A user's own needs `attach` and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..encoders.parameter_kinds import EMBEDDINGS, KINDS, NORM_KINDS, Part, layers_of, parts_of
from ..errors import InputError, suggestion
from .selection import Selection, check_size, wanted_count

Loss = Callable[[Tensor, Tensor], Tensor]


class Defaults(NamedTuple):
    """How a method is best trained where the user does not say; for ours, what benchmarks/rates/run.py found."""

    lr: float = 1e-4  # peak learning rate of the body
    head_lr: float = 1e-2  # peak learning rate of the head
    epochs: int = 5  # more where there are few rows
    width: int | None = None  # of the encoder that `lr` is for; for others it goes with 1 / width, see `for_width`
    count: int | None = None  # elements of minilm that `lr` is for, from which that of a subset follows

    def for_width(self, width: int) -> Defaults:
        """These defaults for an encoder of another width.

        Under Adam the best rate of matrices falls as 1 / width (Yang et al. 2022, arXiv 2203.03466), that of vectors does not.
        At 768 and 1024 the rate of full fine-tuning so becomes 2.5e-5 and 1.9e-5.
        """
        return self if self.width is None else self._replace(lr=self.lr * self.width / width, width=None)


@runtime_checkable
class Method(Protocol):
    """Chooses what may change.

    `attach` may add modules to `model` (LoRA does), looks at `batches` (from the first at every walk) and `loss` where the
    choice depends on data, draws from torch's global generator where it is random, and returns a non-empty Selection of the
    model as it then is. An attribute `defaults`, where it has one, says how this method is best trained, and `trial` what it
    measures before it chooses.
    """

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection: ...


@dataclass(frozen=True)
class Full:
    """Every parameter: the yardstick that the others are measured against."""

    defaults: ClassVar[Defaults] = Defaults(lr=5e-5, head_lr=1e-2, width=384)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        return Selection.where(parts_of(model), lambda name, part: True)


@dataclass(frozen=True)
class Head:
    """The head alone, on frozen features: the other yardstick."""

    defaults: ClassVar[Defaults] = Defaults(lr=1e-2, head_lr=1e-1, epochs=30)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        return _found(parts_of(model), lambda part: part.is_head, "the model has no head to train")


@dataclass(frozen=True)
class LastLayers:
    """The last `k` layers and all that follows them; ALBERT, whose layers are one module, has no last ones."""

    k: int = 2
    defaults: ClassVar[Defaults] = Defaults(lr=1e-4, head_lr=1e-2, width=384)

    def __post_init__(self):
        if not isinstance(self.k, Integral) or isinstance(self.k, bool):
            raise InputError(f"last_layers:k={self.k} must be a whole number")

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        layers = layers_of(model)
        # ALBERT: one module stands for all layers, so its parameters belong to none.
        if layers.shared:
            raise InputError("last_layers has no meaning here: this encoder runs one shared layer again and again")
        if not 1 <= self.k <= layers.count:
            raise InputError(f"last_layers:k={self.k} does not fit: the encoder has {layers.count} layers")
        first = layers.count - self.k
        return _found(parts_of(model), lambda part: part.layer >= first, "the last layers have no parameters")


@dataclass(frozen=True)
class Biases:
    """Bias vectors (BitFit, arXiv 2106.10199): all of the body's, or those of the kinds in `which`, joined by "+"."""

    which: str = "all"
    defaults: ClassVar[Defaults] = Defaults(lr=3e-3, head_lr=1e-2, count=26_112)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        kinds = _kinds(self.which, "biases:which", {"all": KINDS})
        parts = parts_of(model)
        biases = {part.kind for part in parts.values() if part.role == "bias" and not part.is_head}
        _check_present(self.which, "biases:which", ("all",), biases, "biases")
        return _found(
            parts, lambda part: part.role == "bias" and part.kind in kinds and not part.is_head,
            "this encoder has no biases",
        )  # fmt: skip


_NORMS_OF = {"all": NORM_KINDS, "attention": ("attention_norm",), "output": ("output_norm",)}


@dataclass(frozen=True)
class LayerNorms:
    """Weights and biases of the normalisation layers (arXiv 2403.20284).

    `which`: all, attention (the norm after or before attention) or output; `what`: weight, bias or both.
    """

    which: str = "all"
    what: str = "both"
    defaults: ClassVar[Defaults] = Defaults(lr=3e-3, head_lr=1e-2, count=9_984)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        kinds = _NORMS_OF[_one_of(self.which, _NORMS_OF, "layer_norms:which")]
        roles = {"weight": ("weight",), "bias": ("bias",), "both": ("weight", "bias")}
        role = roles[_one_of(self.what, roles, "layer_norms:what")]
        why = f"this encoder has no such LayerNorm elements (which={self.which}, what={self.what})"
        return _found(parts_of(model), lambda part: part.kind in kinds and part.role in role, why)


ALL_NORMS = LayerNorms()  # what a subset is chosen within, where nothing else is said


def check_within(name: str, within: Method | None) -> None:
    """Raises InputError where the method `name` would choose within LoRA's matrices.

    A part of them would be lost with the rest, which is drawn at random and belongs to no encoder.
    """
    inner = within.methods if isinstance(within, Union) else () if within is None else (within,)
    for each in inner:
        if isinstance(each, Lora):
            raise InputError(
                f"{name}:within=lora would train only a part of what LoRA adds: take lora with a lower rank instead"
            )
        check_within(name, getattr(each, "within", None))


def pool_of(within: Method, model: nn.Module, batches: Iterable[Any], loss: Loss | None) -> Selection:
    """What `within` chooses in the body, less what a LoRA beside it has added."""
    found = within.attach(model, batches, loss).body
    return found - Selection.where(found.parts, lambda name, part: part.kind == "lora")


@dataclass(frozen=True)
class Random:
    """A uniformly random subset of the body, by `count` or `share`: the control for every other choice.

    Drawn within another method's elements, or by default within all layers. The embedding tables are left out by default
    because the rows of words that a task never uses cannot move: a control that holds them would be weak.
    """

    count: int | None = None
    share: float | None = None
    within: Method | None = None

    def __post_init__(self):
        check_within("random", self.within)
        check_size("random", self.count, self.share)

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within, self.count, self.share)

    @property
    def trial(self) -> str:
        """That of the method it draws from."""
        return "" if self.within is None else trial_of(self.within)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        parts = parts_of(model)
        if self.within is not None:
            pool = pool_of(self.within, model, batches, loss)
        else:
            # What follows the layers (a pooler of the body's own) belongs to the pool, what a LoRA beside it has added does not.
            outside = ("head", "lora")
            pool = Selection.where(parts, lambda name, part: part.layer > EMBEDDINGS and part.kind not in outside)
        count = wanted_count("random", pool.count, self.count, self.share)
        return pool.taken(torch.randperm(pool.count)[:count].numpy())


_DEFAULT_TARGETS = ("query", "value", "query_key_value")
_TARGETS = ("query", "key", "value", "query_key_value", "attention_output", "intermediate", "output")
_GROUPS = {"default": _DEFAULT_TARGETS, "all": _TARGETS}


@dataclass(frozen=True)
class Lora:
    """Low-rank updates (arXiv 2106.09685), injected by peft: W x + (alpha / rank) B A x, with A and B trained.

    `targets`: the kinds of linear maps, joined by "+"; "default" is query and value, "all" every map of the layers.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "default"
    defaults: ClassVar[Defaults] = Defaults(lr=1e-3, head_lr=1e-2)

    def __post_init__(self):
        # 8 and 8.0 are one alpha, and so one text and one identity.
        for name, kind in (("rank", int), ("alpha", float), ("dropout", float)):
            value: Any = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or (kind is int and value % 1 != 0):
                raise InputError(f"lora:{name}={value} is not a {'whole ' if kind is int else ''}number")
            if not math.isfinite(value):
                raise InputError(f"lora:{name}={value} is not a finite number")
            object.__setattr__(self, name, kind(float(value)))

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        # Here and not where it is injected, so that the delta of an older version is loaded still.
        present = {*_kinds_of_maps(model).values()} & {*_TARGETS}
        _kinds(self.targets, "lora:targets", _GROUPS)
        _check_present(self.targets, "lora:targets", _GROUPS, present, "linear maps")
        inject_lora(model, self)
        return _found(parts_of(model), lambda part: part.kind == "lora", "LoRA added nothing to this encoder")


def _kinds_of_maps(model: nn.Module) -> dict[str, str]:
    """The kind of each linear map, by its path."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    kinds = {name.rpartition(".")[0]: part.kind for name, part in parts_of(model).items()}
    return {path: kind for path, kind in kinds.items() if path in linear}


def inject_lora(model: nn.Module, lora: Lora) -> None:
    """Adds `lora` to `model` in place through peft; raises InputError for a bad option or a missing peft."""
    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise InputError(f"lora needs rank >= 1 and 0 <= dropout < 1, not rank={lora.rank}, dropout={lora.dropout}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("LoRA needs peft: pip install 'trimtab[lora]'") from None
    # Parameters say of what kind they are; peft asks for the paths of their modules.
    kinds = _kinds(lora.targets, "lora:targets", _GROUPS)
    targets = sorted(path for path, kind in _kinds_of_maps(model).items() if kind in kinds)
    if not targets:
        raise InputError(f"this encoder has no linear maps of kind {lora.targets} for LoRA")
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model)


@dataclass(frozen=True)
class Union:
    """What any of `methods` chooses; written `layer_norms+biases` on the command line."""

    methods: tuple[Method, ...]

    def __post_init__(self):
        # A union of unions is the union of their members: its text reads back as that, and LoRA within it is found.
        nested = ((each.methods if isinstance(each, Union) else (each,)) for each in self.methods)
        object.__setattr__(self, "methods", tuple(each for group in nested for each in group))
        if sum(isinstance(each, Lora) for each in self.methods) > 1:
            raise InputError("a union may hold one lora: name all of its targets there (lora:targets=query+output)")

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

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        # Names change where modules are added, so what adds goes first and the rest chooses in the model as it then is.
        adding_first = sorted(self.methods, key=lambda method: not isinstance(method, Lora))
        selections = [method.attach(model, batches, loss).elements for method in adding_first]
        parts = parts_of(model)  # of the model with all that was added
        chosen = Selection(parts, selections[0])
        for elements in selections[1:]:
            chosen = chosen | Selection(parts, elements)
        return chosen


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


def defaults_of(method: Method) -> Defaults:
    """How `method` is best trained: its own defaults, or cautious ones where it states none."""
    return getattr(method, "defaults", Defaults())


def trial_of(method: Method) -> str:
    """What `method` measures on the task before it chooses, in words; "" where it does not look at the task."""
    return getattr(method, "trial", "")


def _found(parts: Mapping[str, Part], wanted: Callable[[Part], bool], why_empty: str) -> Selection:
    chosen = Selection.where(parts, lambda name, part: wanted(part))
    if not chosen:
        raise InputError(why_empty)
    return chosen


def _kinds(text: str, option: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The parameter kinds that `text` lists, joined by "+"; one of the `names` stands for several."""
    listed = [_one_of(kind, (*names, *KINDS), option) for kind in text.split("+")]
    return tuple(kind for each in listed for kind in names.get(each, (each,)))


def _check_present(text: str, option: str, groups: Iterable[str], present: set[str], what: str) -> None:
    """Raises InputError for a kind that `text` names by itself, not as one of the `groups`, and of which there is nothing.

    To train the others alone would be another method under the same name.
    """
    absent = [kind for kind in text.split("+") if kind not in groups and kind not in present]
    if absent:
        known = ", ".join(kind for kind in KINDS if kind in present) or "none at all"
        raise InputError(f"{option}={text}: this encoder has no {what} of kind {', '.join(absent)}; it has {known}")


def _one_of(value: str, allowed: Iterable[str], option: str) -> str:
    if value not in allowed:
        raise InputError(f"{option}={value} is unknown{suggestion(value, allowed)}; known: {', '.join(allowed)}")
    return value
