"""LoRA: low-rank updates beside linear maps, which peft injects; all that is known of them by name is here."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor, nn

from ..encoders.parameter_kinds import Part, layers_of, parts_of
from ..errors import InputError, counted, shortened
from .contract import NO_TRIAL, Addition, Additions, Defaults, Trial
from .methods import OfLastLayers, check_present, found, kinds_named
from .selection import Selection

_DEFAULT_TARGETS = ("query", "value", "query_key_value")
_TARGETS = ("query", "key", "value", "query_key_value", "attention_output", "intermediate", "output")
_FLOAT_MAX = sys.float_info.max
_MOST_RANK = 1_000_000  # more than any map is wide, beyond which a rank says nothing
_GROUPS = {"default": _DEFAULT_TARGETS, "all": _TARGETS}


@dataclass(frozen=True, repr=False)
class Lora(OfLastLayers):
    """Low-rank updates (arXiv 2106.09685), injected by peft: W x + (alpha / rank) B A x, with A and B trained.

    `targets`: the kinds of linear maps, joined by "+"; "default" is query and value, "all" every map of the layers; `last`: those
    of so many last layers.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "default"
    last: int | None = None
    name: ClassVar[str] = "lora"
    defaults: ClassVar[Defaults] = Defaults(lr=1e-3, head_lr=1e-2)
    adds: ClassVar[str] = "lora"

    def __post_init__(self):
        super().__post_init__()
        # 8 and 8.0 are one alpha, and so one text and one identity.
        for name, kind in (("rank", int), ("alpha", float), ("dropout", float)):
            value: Any = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or (kind is int and value % 1 != 0):
                raise InputError(f"lora:{name}={value!s:.60} is not a {'whole ' if kind is int else ''}number")
            size: Any = abs(value)
            if not size <= _FLOAT_MAX:  # NaN is not either, and a whole number may be more than any float
                raise InputError(f"lora:{name}={value!s:.60} is not a finite number")
            object.__setattr__(self, name, kind(float(value)))
        if not isinstance(self.targets, str):
            raise InputError(f"lora:targets={self.targets!r:.60} is no text")

    def add(self, model: nn.Module) -> Additions:
        """Raises InputError for a target that the encoder does not have, a bad option, or a missing peft."""
        present = {*self._reached(model).values()} & {*_TARGETS}
        kinds_named(self.targets, "lora:targets", _GROUPS)
        check_present(self.targets, "lora:targets", _GROUPS, present, "linear maps", self.reach)
        return self.add_again(model)

    def add_again(self, model: nn.Module) -> Additions:
        """`add`, for the delta of an older version too, which took targets that an encoder does not have."""
        self._check_options()
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise InputError("LoRA needs peft: pip install 'trimtab[lora]'") from None
        targets = self._targets(model)
        if not targets:
            raise InputError(f"this encoder has no linear maps of kind {self.targets} for LoRA{self.reach}")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets)  # type: ignore[arg-type]
        inject_adapter_in_model(config, model)
        names = (name for name, part in parts_of(model).items() if part.kind == "lora")
        return Additions((Addition(self.adds, self.options()),), frozenset(names))

    def check_held(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Raises InputError where `values`, of a delta, are fewer than `add_again` would make room for in `model`.

        A rank is quickly written; its matrices are always saved whole.
        """
        self._check_options()
        maps = [model.get_submodule(path) for path in self._targets(model)]
        n_added = self.rank * sum(each.in_features + each.out_features for each in maps)  # type: ignore[operator]
        n_held = sum(value.numel() for name, value in values.items() if ".lora_A." in name or ".lora_B." in name)
        if n_added > n_held:
            raise InputError(
                f"the delta adds lora:rank={self.rank} to {counted(len(maps), 'linear map')}, which is {n_added:,} values, and "
                f"holds {n_held:,}: it is damaged or of another encoder; copy it again or fit again"
            )

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        return found(parts_of(model), lambda part: part.kind == "lora", "LoRA added nothing to this encoder")

    def updates(self, names: Iterable[str]) -> dict[str, tuple[str, str, float]]:
        """Of parameters that `add` brought: by path of the linear map, the names of A (r, I) and B (O, r), and alpha / rank."""
        found = {name: name.partition(".lora_A.") for name in names if ".lora_A." in name}
        scale = self.alpha / self.rank
        return {path: (name, f"{path}.lora_B.{rest}", scale) for name, (path, _, rest) in found.items()}

    def _check_options(self) -> None:
        """Raises InputError for a rank or a rate that no LoRA has."""
        if not 1 <= self.rank <= _MOST_RANK or not 0 <= self.dropout < 1:
            raise InputError(
                f"lora needs rank >= 1 (at most {_MOST_RANK:,}) and 0 <= dropout < 1, not rank={self.rank:.6g}, "
                f"dropout={self.dropout}"
            )

    def _targets(self, model: nn.Module) -> list[str]:
        """The paths of the linear maps that get an update; raises InputError for targets that there are not."""
        # Parameters say of what kind they are; peft asks for the paths of their modules.
        kinds = kinds_named(self.targets, "lora:targets", _GROUPS)
        return sorted(path for path, kind in self._reached(model).items() if kind in kinds)

    def fold(self, model: nn.Module) -> None:
        """Adds each update in `model` to its weight and puts the plain linear maps back, in place."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for path, layer in [(path, m) for path, m in model.named_modules() if isinstance(m, BaseTunerLayer)]:
            # peft's own arithmetic: W + scale B A in float32.
            layer.merge()
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, layer.get_base_layer())
        # Or transformers would save the merged model as an adapter of itself.
        if hasattr(model, "peft_config"):
            del model.peft_config

    def _reached(self, model: nn.Module) -> dict[str, str]:
        """The kind of each linear map that may be a target, by its path."""
        lowest = self.lowest(model)
        return {path: part.kind for path, part in _maps(model).items() if part.layer >= lowest}


def lora_over(model: nn.Module, paths: Collection[str], rank: int, alpha: float, dropout: float = 0.0) -> Lora:
    """The Lora that adds updates to exactly the linear maps at `paths` of `model`.

    Raises InputError where no option says so: they are of some kinds in some last layers, and there are others of these kinds.
    """
    maps, layers = _maps(model), layers_of(model)
    unknown = [path for path in paths if path not in maps or maps[path].kind not in _TARGETS]
    if unknown:
        raise InputError(
            f"it updates {shortened(sorted(unknown), 2)}, and a run's LoRA reaches the linear maps of the layers alone"
        )
    kinds = {maps[path].kind for path in paths}
    listed = "+".join(kind for kind in _TARGETS if kind in kinds)
    lowest = min(maps[path].layer for path in paths)
    # What has no layers of its own, as ALBERT, cannot be told so many last ones.
    lasts = (None,) if layers.shared else (None, layers.count - lowest)
    for targets in ("default", "all", listed):
        for last in lasts:
            lora = Lora(rank, alpha, dropout, targets, last)
            if {*lora._targets(model)} == {*paths}:
                return lora
    raise InputError(
        f"it updates {len(paths)} linear maps of kind {listed}, some in a layer that has others of them: a run's LoRA reaches "
        "all of a kind, in all layers or in the last ones"
    )


def additions_in(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The additions that a delta's header names; up to format 4 it knew of LoRA alone, and listed its options."""
    loras: Iterable[dict[str, Any]] = described.get("loras", ())
    return described.get("additions", [{"name": Lora.adds, "options": options} for options in loras])


def _maps(model: nn.Module) -> dict[str, Part]:
    """A Part of each linear map, by its path."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    parts = {name.rpartition(".")[0]: part for name, part in parts_of(model).items()}
    return {path: part for path, part in parts.items() if path in linear}
