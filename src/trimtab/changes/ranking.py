"""The highest-ranking elements of a selection: of all, or of each layer or parameter; singly, or as whole vectors."""

# Shapes: E elements of a parameter, V vectors.

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..errors import InputError, suggestion
from .selection import Selection, wanted_count

GRANULARITIES = ("element", "vector")  # what is ranked and chosen as a whole
PER = ("all", "layer", "parameter")  # within what the ranking is made


def top_of(
    pool: Selection, scores: Mapping[str, Tensor], name: str, share: float | None = None, count: int | None = None,
    granularity: str = "element", per: str = "all",
) -> Selection:  # fmt: skip
    """The elements of `pool` with the highest `scores` (parameter name -> a score for each element), by `share` or `count`.

    With granularity "vector", whole vectors (a 1-D parameter, a row of a matrix) by their mean score, as many as fit into the
    count. `per` "layer" or "parameter" takes the same share of each, and none of one into whose share no vector fits. `name` is
    the method's, for messages; raises InputError for a share or count that does not fit, and for an unknown granularity or `per`.
    """
    wanted = wanted_count(name, pool.count, count, share)
    check_ranking(name, granularity, per)
    chosen = _top_vectors if granularity == "vector" else highest
    if per == "all":
        return _some(chosen(pool, scores, wanted), wanted)
    # Layer or name of the parameter -> names of the parameters in the group.
    groups: dict[object, list[str]] = {}
    for parameter in pool.elements:
        groups.setdefault(pool.parts[parameter].layer if per == "layer" else parameter, []).append(parameter)
    parts = [Selection(pool.parts, {each: pool.elements[each] for each in names}) for names in groups.values()]
    result = Selection(pool.parts, {})
    for part, quota in zip(parts, _quotas([part.count for part in parts], wanted), strict=True):
        if quota:
            result = result | chosen(part, scores, quota)
    return _some(result, wanted)


def _some(chosen: Selection, wanted: int) -> Selection:
    """The selection; raises InputError where it is empty: no vector fits into `wanted` elements, or a group's share of them."""
    if wanted and not chosen:
        raise InputError(
            f"{wanted} elements are too few for any of the highest-ranking vectors: take more, or single elements"
        )
    return chosen


def check_ranking(name: str, granularity: str, per: str) -> None:
    """Raises InputError for an unknown granularity or `per`; `name` is the method's."""
    for option, value, known in (("granularity", granularity, GRANULARITIES), ("per", per, PER)):
        if value not in known:
            raise InputError(f"{name}:{option}={value} is unknown{suggestion(value, known)}; known: {', '.join(known)}")


def highest(pool: Selection, scores: Mapping[str, Tensor], wanted: int) -> Selection:
    """The `wanted` elements of `pool` with the highest `scores`; among equals the first."""
    # Stable, so that ties fall the same way on every machine.
    order = np.argsort(-scores_at(pool, scores), kind="stable")[:wanted]
    return pool.taken(order)


def scores_at(pool: Selection, scores: Mapping[str, Tensor]) -> np.ndarray:
    """`scores` at the elements of `pool`, one after the other."""
    # An empty pool has an empty answer.
    picked = [np.empty(0, np.float32)]
    for name, at in pool.elements.items():
        flat = scores[name].flatten().numpy()
        picked.append(flat if at is None else flat[at])
    return np.concatenate(picked)


def _top_vectors(pool: Selection, scores: Mapping[str, Tensor], wanted: int) -> Selection:
    """The vectors with the highest mean scores, of `wanted` elements at most, which may be none.

    Raises InputError where `pool` has a parameter only in part.
    """
    # One entry per vector: its parameter, where it starts in it, how wide it is, its mean score.
    names: list[str] = []
    starts: list[np.ndarray] = []
    widths: list[np.ndarray] = []
    means: list[np.ndarray] = []
    for name, at in pool.elements.items():
        score = scores[name]
        if at is not None:
            raise InputError(f"granularity vector needs whole parameters, and {name} is there in part")
        # A matrix has a vector per row, (V, E / V); a 1-D parameter is one.
        rows = score.reshape(-1, score.shape[-1]) if score.dim() > 1 else score.reshape(1, -1)
        names += [name] * len(rows)
        starts.append(rows.shape[1] * np.arange(len(rows)))
        widths.append(np.full(len(rows), rows.shape[1], np.int64))
        means.append(rows.double().mean(1).numpy())
    start, width, mean = np.concatenate(starts), np.concatenate(widths), np.concatenate(means)
    order = np.argsort(-mean, kind="stable")
    # From the best down until the next one no longer fits; the count is a bound and not a promise.
    chosen = order[width[order].cumsum() <= wanted]
    elements: dict[str, list[np.ndarray]] = {}
    for i in np.sort(chosen):
        elements.setdefault(names[i], []).append(int(start[i]) + np.arange(int(width[i])))
    return Selection(pool.parts, {name: np.concatenate(at) for name, at in elements.items()})


def _quotas(counts: list[int], wanted: int) -> list[int]:
    """`wanted` dealt out in proportion to `counts`, rounded so that the sum is right (largest remainders)."""
    exact = np.array(counts) * wanted / sum(counts)
    quotas = np.floor(exact).astype(int)
    for i in np.argsort(quotas - exact, kind="stable")[: wanted - int(quotas.sum())]:
        quotas[i] += 1
    return quotas.tolist()
