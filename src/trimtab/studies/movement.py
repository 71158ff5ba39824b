"""Where training moved the weights of the encoder, and whether Fisher information foresaw it."""

# Shapes: E elements of a parameter.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..changes.fisher import Fisher
from ..changes.selection import Selection
from ..correlation import spearman
from ..encoders.encoder import Encoder
from ..encoders.parameter_kinds import KINDS, Part, parts_of
from ..errors import InputError
from ..inference.predictor import Trained, base_encoder, delta_of

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the elements whose overlap with the most informative ones is looked at


@dataclass(frozen=True, eq=False)
class Movement:
    """How far each parameter of the backbone moved, in the tensors that could move; the head has no start to move from."""

    distances: Mapping[str, np.ndarray] = field(repr=False)  # name -> |after - before| (E,) float32
    before: Mapping[str, float] = field(repr=False)  # name -> norm of the pretrained parameter
    trained: Selection  # the elements that were trained
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> Mapping[str, Part]:
        return self.trained.parts

    def sums(self) -> dict[str, tuple[float, int]]:
        """Of each parameter: the sum of its elements' distances, and how many elements it has."""
        return {name: (float(d.sum(dtype=np.float64)), len(d)) for name, d in self.distances.items()}

    def by(self, key: Literal["kind", "layer"]) -> dict[Any, dict[str, float]]:
        """kind or layer -> how far it moved.

        `mean`: the mean absolute change per parameter (the measure of BitFit, arXiv 2106.10199, figure 1); `relative`: the norm
        of the change over the norm of the pretrained values; `largest`: the largest absolute change; `moved`, `elements`: counts.
        """
        found: dict[Any, dict[str, float]] = {}
        for name, d in self.distances.items():
            place = getattr(self.parts[name], key)
            entry = found.setdefault(
                place, dict.fromkeys(("sum", "square", "start", "largest", "moved", "elements"), 0)
            )
            entry["sum"] += float(d.sum(dtype=np.float64))
            entry["square"] += float(np.square(d, dtype=np.float64).sum())
            # Norms of several parameters add up as squares.
            entry["start"] += self.before[name] ** 2
            entry["largest"] = max(entry["largest"], float(d.max(initial=0.0)))
            entry["moved"] += int(np.count_nonzero(d))
            entry["elements"] += len(d)
        return {
            place: {
                "mean": e["sum"] / e["elements"],
                "relative": (e["square"] / e["start"]) ** 0.5 if e["start"] else float("nan"),
                "largest": e["largest"], "moved": e["moved"], "elements": e["elements"],
            }
            for place, e in found.items()
        }  # fmt: skip

    def foreseen_by(self, info: Fisher, shares: Sequence[float] = SHARES) -> dict[str, Any]:
        """Whether information measured before training ranks the trained elements as their movement does.

        {"elements", "left_out", "rank_correlation" (Spearman's), "by_kind": {kind: rank correlation within it}, "overlap":
        {share: {"found", "chance"}}}, where `found` is the part of the top share by movement that is in the top share by
        information, and `chance` what two random subsets have in common. All of it is about the "elements" with information
        above 0: the "left_out" others (the embeddings of words that do not occur, which can be half of an encoder) mostly do
        not move either, so that separating them would pass for foresight. Kinds with nothing to rank are absent. Raises
        InputError where nothing was both trained and measured, or nothing of it has information, or the encoders differ.
        """
        both = self._both(info)
        by_kind: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for name, at in both.elements.items():
            value, distance = info.values[name].flatten().numpy(), self.distances[name]
            value, distance = (value, distance) if at is None else (value[at], distance[at])
            informed = value > 0
            by_kind.setdefault(self.parts[name].kind, []).append((distance[informed], value[informed]))
        pairs = {kind: _joined(by_kind.pop(kind)) for kind in KINDS if kind in by_kind}
        distance, value = _joined(list(pairs.values()))
        if not len(distance):
            raise InputError(
                "no parameter that this run trained has any information: measure on more rows (--examples)"
            )
        overlap = {}
        for share in shares:
            # At least one, or a small share of few elements would be a share of nothing.
            k = max(1, round(share * len(distance)))
            found = int(np.count_nonzero(_is_top(distance, k) & _is_top(value, k))) / k
            overlap[share] = {"found": found, "chance": k / len(distance)}
        correlations = {kind: spearman(*pair) for kind, pair in pairs.items()}
        return {
            "elements": len(distance), "left_out": both.count - len(distance),
            "rank_correlation": spearman(distance, value),
            "by_kind": {kind: r for kind, r in correlations.items() if not np.isnan(r)}, "overlap": overlap,
        }  # fmt: skip

    def _both(self, info: Fisher) -> Selection:
        """The backbone's elements that were trained and measured."""
        if info.notes.get("encoder_sha256") not in (None, self.notes.get("encoder_sha256")):
            raise InputError("this Fisher information was measured on another encoder than the run's")
        names = [name for name in info.within.backbone.elements if name in self.trained.backbone.elements]
        same = [name for name in names if self.parts[name].count == info.parts[name].count]
        measured = Selection(self.parts, {name: info.within.elements[name] for name in same})
        both = measured & self.trained.backbone
        if not both:
            raise InputError(
                "no parameter was both trained by this run and measured: measure --within the run's method"
            )
        return both


def movement(run: Trained, encoder: Encoder | str | Path | None = None) -> Movement:
    """The Movement of a run from its encoder; LoRA's is that of the weights it adapts. The encoder defaults to the run's own."""
    delta = delta_of(run)
    base = base_encoder(delta, encoder)
    # With LoRA folded in, the model before and the one after have the same parameters.
    merged = delta.merged(base)
    parts = parts_of(merged)
    start = dict(_start(delta, base).named_parameters())
    trained: dict[str, np.ndarray | None] = {}
    distances, before = {}, {}
    for name, after in merged.named_parameters():
        if parts[name].is_head:
            continue
        origin = start[name].detach()
        distance = (after.detach() - origin).abs().flatten().numpy()
        # The second for weights that LoRA adapts: the delta holds A and B, and not the weight.
        if name in delta.values or distance.any():
            at = delta.positions.get(name)
            trained[name] = None if at is None else at.long().numpy()
            distances[name], before[name] = distance, float(torch.linalg.vector_norm(origin))
    notes = {"encoder": base.name, "encoder_sha256": base.sha256, "task": delta.task["name"], "method": delta.method}
    return Movement(distances, before, Selection(parts, trained), notes)


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Distances and information, each one behind the other."""
    distances, values = zip(*pairs, strict=True)
    return np.concatenate(distances), np.concatenate(values)


def _is_top(values: np.ndarray, k: int) -> np.ndarray:
    """(E,) bool: whether an element is among the `k` with the highest values."""
    # A byte an element; a Python set of positions takes fifty.
    found = np.zeros(len(values), bool)
    found[np.argpartition(values, len(values) - k)[len(values) - k :]] = True
    return found


def _start(delta: Any, encoder: Encoder) -> Any:
    """The model as it was before training; only its backbone is looked at, so any head will do."""
    from ..encoders.heads import HeadShape

    return encoder.with_head(
        HeadShape(delta.task["kind"], tuple(delta.task["classes"])), head=delta.head, pairs=delta.pairs
    )
