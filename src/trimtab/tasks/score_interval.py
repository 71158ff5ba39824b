"""How far a score of so many rows may be from that of all rows: 95% confidence intervals."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .metrics import METRICS, decision_scores, predicted_labels, scores
from .task import Task

LEVEL, _Z = 0.95, 1.959964
_RESAMPLES = 200  # of the rows


def score_interval(
    task: Task, logits: Tensor, labels: Tensor, seed: int = 0, predicted: NDArray | None = None
) -> tuple[float, float]:
    """(low, high) around the task's main metric, for logits (N, C) and labels as `scores` takes them.

    Accuracy has Wilson's interval (Wilson 1927), other metrics the percentiles of a bootstrap over rows (Efron 1979). Where every
    resample has one score, as where all rows are right, it has the room that Wilson leaves to a share of 1: eight right rows of
    eight are no proof of 1.0. An error has no such room, and one that no resample moves may be any. Nothing of training again, or
    of a choice made on these rows, is in it. `predicted` are decisions in the place of those that the task makes of the logits.
    """
    metric = METRICS[task.metric]
    if task.metric == "accuracy":
        right = (predicted_labels(task, logits) if predicted is None else predicted) == labels.numpy()
        return wilson(int((right if right.ndim == 1 else right.all(-1)).sum()), len(labels))
    if predicted is not None and task.metric not in decision_scores(task, predicted, labels.numpy()):
        predicted = None

    def scored(at: np.ndarray) -> float:
        if predicted is None:
            return scores(task, logits[at], labels[at], only=task.metric)[task.metric]
        return decision_scores(task, predicted[at], labels.numpy()[at])[task.metric]

    drawn = bootstrapped(len(labels), scored, seed)
    ends = -math.inf if metric.low is None else metric.low, math.inf if metric.high is None else metric.high
    if len(drawn) < _RESAMPLES / 2:  # undefined on most resamples: anything may be true
        return ends
    low, high = ends_of(drawn)
    if low == high:
        if metric.low is None or metric.high is None:
            return ends
        room = 1.0 - wilson(len(labels), len(labels))[0]
        return max(metric.low, low - room), min(metric.high, high + room)
    return low, high


def bootstrapped(
    n_rows: int, statistic: Callable[[NDArray], float], seed: int = 0, resamples: int = _RESAMPLES
) -> NDArray:
    """`statistic` of so many resamples of rows (N,), drawn with replacement; those that are no number are left out."""
    draw = np.random.default_rng(seed)
    found = [statistic(draw.integers(0, n_rows, n_rows)) for _ in range(resamples)]
    return np.asarray(found)[np.isfinite(found)]


def ends_of(drawn: NDArray) -> tuple[float, float]:
    """Between which the middle 95% of `drawn` lie."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95% confidence interval of the share `hits` / `n`."""
    share, z2 = hits / n, _Z**2
    middle, width = share + z2 / (2 * n), _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    low, high = (middle - width) / (1 + z2 / n), (middle + width) / (1 + z2 / n)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)  # rounding apart, these are the ends
