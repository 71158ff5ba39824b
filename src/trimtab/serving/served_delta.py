"""A delta as the pool knows it, without its values; and the models that deltas of one encoder are run by."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..changes.contract import Addition
from ..changes.delta import Delta
from ..changes.method_text import added_by
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder
from ..encoders.heads import HeadShape
from ..engine import LowRank, MixedModel, PreparedModel, TaskChange, prepare
from ..errors import InputError
from ..tasks.metrics import METRICS
from ..tasks.task import Task
from .slot_table import Layout

Values = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class ServedDelta:
    """What the pool must know of a delta to run it."""

    sha256: str  # of its content: what every cache goes by
    task: Task
    method: str
    head: str
    pairs: str
    max_length: int  # tokens
    additions: tuple[Addition, ...]
    place: Path | None  # of the run's folder, from which it can come back; None for one that was given in memory
    layout: Layout
    mixed: bool  # whether its rows share passes with those of other tasks
    updates: Mapping[str, tuple[str, str, float]]  # path -> the names of A and B, and their scale, where it adds LoRA
    below: frozenset[str]  # names of values in the backbone
    above: tuple[str, ...]  # names of values in the head
    outputs: HeadShape
    first_layer: int  # that it computes by itself: -1 for all, the number of layers where it shares them
    score: tuple[str, float] | None  # a metric, and what the run had on its validation rows; for people

    @property
    def version(self) -> str:
        """What predictions name it by."""
        return self.sha256[:12]


class Models:
    """The models on one encoder that run its deltas: one for each form of head, and of additions that are not mixed."""

    def __init__(self, encoder: Encoder, compute: Compute, device: torch.device):
        self.encoder, self._device = encoder, device
        self._compute: Compute = compute
        self._made: dict[tuple[str, str, HeadShape, str], PreparedModel] = {}
        self._bodies: dict[tuple[str, str], PreparedModel] = {}
        self._equal: dict[Any, Any] = {}
        self._lock = threading.Lock()  # held while a model is made

    def of(self, served: ServedDelta) -> PreparedModel:
        """The model with the head of `served`, and what it adds, where it runs by itself."""
        return self._model(served.head, served.pairs, served.outputs, () if served.mixed else served.additions)

    def backbone(self, served: ServedDelta) -> MixedModel:
        """What runs rows of all tasks with such a head, of any number of classes, up to it."""
        found = self._bodies[served.head, served.pairs].mixed
        assert found is not None
        return found

    def describe(self, delta: Delta, place: Path | None) -> ServedDelta:
        """The ServedDelta of `delta`; raises InputError where it is of another encoder, or its values do not fit this one."""
        delta.check_base(self.encoder)
        task = Task.from_description(delta.task)
        outputs = self._outputs(delta, task)
        mixed = self._model(delta.head, delta.pairs, outputs, ()).mixed
        updates = self._updates(delta)
        names = delta.values.keys() - {name for a, b, _ in (updates or {}).values() for name in (a, b)}
        below = frozenset(name for name in names if mixed is not None and not mixed.is_above(name))
        mixes = mixed is not None and updates is not None and all(map(mixed.mixes, below))
        additions = delta.additions
        model = self._model(delta.head, delta.pairs, outputs, () if mixes else additions)
        self._check_fit(delta, model, updates or {} if mixes else {})
        layout, below, above, outputs = self._shared((Layout.of(delta), below, tuple(sorted(names - below)), outputs))
        served = ServedDelta(
            delta.sha256, task, delta.method, delta.head, delta.pairs, delta.max_length, additions, place,
            layout, mixes, updates or {} if mixes else {}, below, above, outputs, -1, _score(delta),
        )  # fmt: skip
        if not mixes or mixed is None:
            return served
        change = self.change(served, delta.values, delta.positions)
        return ServedDelta(**{**vars(served), "first_layer": mixed.first_layer(change)})

    def _shared(self, parts: tuple[Layout, frozenset[str], tuple[str, ...], HeadShape]) -> Any:
        """The parts, or those of an earlier delta where they are equal: a thousand of a kind have them once."""
        # A subset is laid out as no other: kept, it would stay for ever.
        return parts if parts[0].n_positions else self._equal.setdefault(parts, parts)

    def change(self, served: ServedDelta, values: Values, positions: Values) -> TaskChange:
        """What `served` has changed below its head."""
        updates = {path: LowRank(values[a], values[b], scale) for path, (a, b, scale) in served.updates.items()}
        return self.backbone(served).change({name: values[name] for name in served.below}, positions, updates)

    def head_values(self, served: ServedDelta, values: Values, positions: Values) -> dict[str, Tensor]:
        """What `served` has in the place of the parameters above, all of each."""
        return self._whole(self.of(served), {name: values[name] for name in served.above}, positions)

    def all_values(self, served: ServedDelta, values: Values, positions: Values) -> dict[str, Tensor]:
        """What `served`, which is not mixed, has in the place of any parameter, all of each."""
        return self._whole(self.of(served), values, positions)

    def _whole(self, prepared: PreparedModel, values: Values, positions: Values) -> dict[str, Tensor]:
        found = dict(values)
        for name in values.keys() & positions.keys() if positions else ():
            own = prepared.model.get_parameter(name).detach().flatten()
            shape = prepared.model.get_parameter(name).shape
            found[name] = own.index_put((positions[name].long(),), values[name]).view(shape)
        return found

    def _updates(self, delta: Delta) -> dict[str, tuple[str, str, float]] | None:
        """What the additions of `delta` add to linear maps; None where one of them does something else."""
        found: dict[str, tuple[str, str, float]] = {}
        for addition in delta.additions:
            method = added_by(addition)
            if not hasattr(method, "updates"):
                return None
            found |= method.updates(delta.values)
        return found

    def _check_fit(self, delta: Delta, prepared: PreparedModel, updates: Mapping[str, tuple[str, str, float]]) -> None:
        """Raises InputError where values are of no parameter of the model, or of another size."""
        added = {name for a, b, _ in updates.values() for name in (a, b)}
        parameters = dict(prepared.model.named_parameters())
        for name, value in delta.values.items():
            at, own = delta.positions.get(name), parameters.get(name)
            if name in added:
                continue
            if own is None or (own.shape != value.shape if at is None else int(at.max()) >= own.numel()):
                raise InputError(
                    f"the delta holds {name} {tuple(value.shape)}, which does not fit {self.encoder.name!r}: it is damaged, or "
                    "of another version of transformers; fit again"
                )
        for path, (a, b, _) in updates.items():
            own = parameters.get(f"{path}.weight")
            low, high = delta.values[a], delta.values[b]
            if own is None or low.ndim != 2 or high.ndim != 2 or (high.shape[0], low.shape[1]) != tuple(own.shape) or (
                low.shape[0] != high.shape[1]
            ):  # fmt: skip
                raise InputError(
                    f"the delta holds an update of {path} that does not fit {self.encoder.name!r}: fit again"
                )

    def _outputs(self, delta: Delta, task: Task) -> HeadShape:
        """What the head is for: so many classes of any names, unless a part of it is the checkpoint's, which knows its own."""
        classes = tuple(map(str, range(len(task.classes))))
        kind = "single_label" if classes else "regression"
        new = self._model(delta.head, delta.pairs, HeadShape(kind, classes), ()).model.new_parameters
        return HeadShape(kind, classes) if set(new) <= delta.values.keys() else HeadShape(task.kind, task.classes)

    def _model(self, head: str, pairs: str, outputs: HeadShape, additions: tuple[Addition, ...]) -> PreparedModel:
        added = json.dumps([asdict(each) for each in additions], sort_keys=True)
        key = (head, pairs, outputs, added)
        if key in self._made:  # without the lock: passes go on while another model is made
            return self._made[key]
        with self._lock:
            if key not in self._made:
                model = self.encoder.with_head(outputs, head=head, pairs=pairs)
                for addition in additions:
                    added_by(addition).add_again(model)
                made = prepare(model.eval().to(self._device), self._compute)
                if not additions:
                    # Tried here, by one thread: another that read its parameters meanwhile would find the trial's.
                    _ = made.mixed
                    self._bodies.setdefault((head, pairs), made)
                self._made[key] = made
            return self._made[key]


def _score(delta: Delta) -> tuple[str, float] | None:
    """What the delta says of itself, if it is a known metric and a number: notes may hold anything."""
    metric, scores = delta.notes.get("metric"), delta.notes.get("validation")
    value = scores.get(metric) if isinstance(scores, Mapping) and isinstance(metric, str) else None
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return (metric, float(value)) if known and metric in METRICS else None  # pyright: ignore[reportReturnType, reportArgumentType]
