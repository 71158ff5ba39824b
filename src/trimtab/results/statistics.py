"""Whether two methods differ: a paired bootstrap over rows, with the spread over seeds added, corrected for many tests."""

# Shapes: N validation rows, R resamples, C classes.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import ranks
from ..tasks.metrics import METRICS

RESAMPLES = 1000  # of the validation rows
LEAST_ROWS = 10  # below that nothing is told apart: two equal methods would be, in up to half of all studies
# Where an integral over a normal distribution is cut in panels: evenly, and around a steep place in units of its width.
_EVENLY, _AROUND = np.linspace(-12, 12, 17), np.array([-64, -16, -4, -1, 0, 1, 4, 16, 64])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)  # of each panel
_DRAWN_AT_ONCE = 2**21  # weights, one for each row of each resample: 16 MiB, however many rows there are


@dataclass(frozen=True)
class Difference:
    """How much better one method's main score is than another's (negative: worse), as a mean over seeds."""

    mean: float
    row_variance: float  # of the mean, from which rows were drawn; infinite where there are fewer than LEAST_ROWS
    seed_variance: float  # of the mean, from training again; 0 where there is one seed
    seed_freedom: float  # degrees of freedom of `seed_variance`: seeds - 1 for one task
    most: float = math.inf  # the largest difference that the range of the scores allows

    @property
    def p(self) -> float:
        """Two-sided: how often two equal methods would differ at least so much."""
        return self._beyond(abs(self.mean))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of the mean, cut where scores cannot differ by more: few seeds would allow anything."""
        low, high = self._uncut(level)
        # Infinite ends say that there are too few rows, and stay.
        return (low, high) if low == -math.inf else (max(low, -self.most), min(high, self.most))

    @property
    def is_cut(self) -> bool:
        """Whether the range of the scores ends the interval of 95%."""
        low, high = self._uncut(0.95)
        return math.isfinite(low) and max(-low, high) > self.most

    def _uncut(self, level: float) -> tuple[float, float]:
        """The interval as if scores had no range."""
        from scipy.optimize import brentq

        if self.row_variance == math.inf:
            return -math.inf, math.inf
        far = 2 * math.sqrt(self.row_variance + self.seed_variance)
        if far == 0:
            return self.mean, self.mean
        while self._beyond(far) > 1 - level:
            far *= 2
        # As a part of `far`: the tolerance of the search is absolute, and differences may be in any unit.
        part = float(brentq(lambda x: self._beyond(x * far) - (1 - level), 0, 1))  # pyright: ignore[reportArgumentType]
        return self.mean - part * far, self.mean + part * far

    def _beyond(self, reach: float) -> float:
        """The chance that |r Z + s T| is at least `reach`, with Z normal, T of Student's distribution, r^2 and s^2 the variances.

        The distribution of Behrens (1929) and Fisher (1935) for a sum of which one variance is known well (the resamples are
        many) and the other from few seeds. Welch and Satterthwaite's approximation promises too much far out, where corrected p
        values are decided (benchmarks/false_alarms); this one errs on the careful side.
        """
        from scipy.special import ndtr, stdtr

        if self.row_variance == math.inf:
            return 1.0
        rows, seeds = math.sqrt(self.row_variance), math.sqrt(self.seed_variance if self.seed_freedom else 0.0)
        if rows == seeds == 0:
            return float(reach == 0)
        if seeds == 0:
            return float(2 * ndtr(-reach / rows))
        if rows == 0:
            return float(2 * stdtr(self.seed_freedom, -reach / seeds))
        # Over the normal part: where it reaches so far by itself, the rest rises from nothing to all within some s / r.
        steep = np.multiply.outer((1, -1), reach / rows + seeds / rows * _AROUND).ravel()
        edges = np.unique(np.concatenate([_EVENLY, steep[np.abs(steep) < _EVENLY[-1]]]))
        half = np.diff(edges)[:, None] / 2
        z, weights = edges[:-1, None] + half * (1 + _NODES), half * _WEIGHTS
        beyond = stdtr(self.seed_freedom, (rows * z - reach) / seeds) + stdtr(
            self.seed_freedom, (-rows * z - reach) / seeds
        )
        return float((weights * np.exp(-(z**2) / 2) * beyond).sum() / math.sqrt(2 * math.pi))


def difference(
    metric: str, labels: NDArray, ours: Sequence[NDArray], theirs: Sequence[NDArray], n_classes: int, seed: int = 0,
    positive: int = 1,
) -> Difference:  # fmt: skip
    """The Difference of two methods' answers to the same rows, one array per seed, paired seed by seed.

    `n_classes` is the task's (0 for regression), `positive` the number of its positive class where there are two. A difference
    above 0 is better for every metric. The same resampled rows serve both
    methods and all seeds; what training again would change comes on top, as the variance over seeds, because rows alone
    would call two runs of one method different.
    """
    known = METRICS[metric]
    sign = 1.0 if known.higher_is_better else -1.0
    most = math.inf if known.low is None or known.high is None else known.high - known.low
    pairs = list(zip(ours, theirs, strict=True))

    def better_by(a: NDArray, b: NDArray, weights: NDArray) -> NDArray:
        ours, theirs = (resampled_score(metric, labels, answers, weights, n_classes, positive) for answers in (a, b))
        return sign * (ours - theirs)

    whole = np.ones((1, len(labels)))
    observed = [float(better_by(a, b, whole)[0]) for a, b in pairs]
    resampled = np.concatenate(
        [np.mean([better_by(a, b, weights) for a, b in pairs], axis=0) for weights in _resamples(len(labels), seed)]
    )
    n = len(observed)
    by_seed = float(np.var(observed, ddof=1)) / n if n > 1 else 0.0
    # Of so few rows a resample knows nothing: where they all say the same, it would be certain.
    by_row = math.inf if len(labels) < LEAST_ROWS else float(np.var(resampled, ddof=1))
    return Difference(float(np.mean(observed)), by_row, by_seed, n - 1, most)


def _resamples(n_rows: int, seed: int) -> Iterator[NDArray]:
    """How often each row is drawn in each of RESAMPLES resamples, a few (R, N) at a time."""
    draw, at_once = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // n_rows)
    # One stream whatever the size of a piece: the draws are those of a single call.
    for start in range(0, RESAMPLES, at_once):
        yield draw.multinomial(n_rows, np.full(n_rows, 1 / n_rows), min(at_once, RESAMPLES - start))


def over_tasks(differences: Sequence[Difference]) -> Difference:
    """The mean of the differences on several tasks, each with the same weight; the tasks are these, not a sample of tasks."""
    n = len(differences)
    rows, seeds = (sum(getattr(d, part) for d in differences) / n**2 for part in ("row_variance", "seed_variance"))
    squares = sum((d.seed_variance / n**2) ** 2 / max(1.0, d.seed_freedom) for d in differences)
    freedom = seeds**2 / squares if squares else 0.0
    most = sum(d.most for d in differences) / n
    return Difference(float(np.mean([d.mean for d in differences])), rows, seeds, freedom, most)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): below 0.05, the chance of one false alarm among all is at most 5%."""
    order, adjusted, highest = np.argsort(ps), [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


_OF_CLASSES = ("precision", "recall", "f1", "f1_macro")  # from the counts of each class
_KNOWN = (
    *_OF_CLASSES,
    "accuracy",
    "matthews",
    "f1_micro",
    "pearson",
    "spearman",
    "mean_absolute_error",
    "mean_squared_error",
)


def resampled_score(
    metric: str, labels: NDArray, answers: NDArray, weights: NDArray, n_classes: int, positive: int = 1
) -> NDArray:
    """`metric` (R,) of answers to rows that count `weights` (R, N) times, as tasks/metrics.py scores the rows drawn.

    Answers are class numbers (N,), classes as 0 and 1 (N, C), or values (N,). `n_classes` is the task's, because some of its
    classes may be in neither labels nor answers, and `positive` the number of its positive class. Raises ValueError for
    metrics that depend on more than the answers, see `usable`, and for those that are not of such labels.
    """
    if not usable(metric):
        raise ValueError(f"resamples cannot be scored by {metric}")
    if metric in ("pearson", "spearman"):
        if metric == "spearman":  # of ranks in the whole sample, which resampling hardly changes
            labels, answers = ranks(labels), ranks(answers)
        return _correlation(labels, answers, weights)
    if metric in ("mean_absolute_error", "mean_squared_error"):
        error = np.abs(labels - answers) ** (2 if metric == "mean_squared_error" else 1)
        return weights @ error / weights.sum(1)
    if labels.ndim == 2:
        return _multi_label(metric, labels, answers, weights)
    if metric == "accuracy":
        return weights @ (labels == answers).astype(float) / weights.sum(1)
    of_labels, of_answers = _membership(labels, n_classes), _membership(answers, n_classes)
    # Counts (R, C): no table of true by predicted class is needed.
    hits, true, said = (weights @ each for each in (of_labels.multiply(of_answers), of_labels, of_answers))
    if metric == "matthews":
        return _matthews(hits, true, said)
    return _of_classes(metric, hits, true, said, positive if n_classes == 2 else None)


def usable(metric: str) -> bool:
    """Whether `resampled_score` knows the metric: one of classes or values that were answered, and not of how sure they are."""
    return metric in _KNOWN


def _of_classes(metric: str, hits: NDArray, true: NDArray, said: NDArray, positive: int | None) -> NDArray:
    """Precision, recall or F1 from counts (R, C): of the class `positive`, else the mean over those that occur.

    What is undefined is 0. Raises ValueError for another metric: it must not be tested as F1.
    """
    if metric not in _OF_CLASSES:
        raise ValueError(f"{metric} is no metric of such classes")
    by_class = {
        "precision": _ratio(hits, said), "recall": _ratio(hits, true),
    }.get(metric, _ratio(2 * hits, true + said))  # fmt: skip
    if positive is not None and metric != "f1_macro":
        return by_class[:, positive]
    return _ratio(by_class.sum(1), (true + said > 0).sum(1))


def _multi_label(metric: str, labels: NDArray, answers: NDArray, weights: NDArray) -> NDArray:
    """`metric` (R,) of classes as 0 and 1 (N, C); for accuracy, all classes of a row must be right."""
    if metric == "accuracy":
        return weights @ (labels == answers).all(1).astype(float) / weights.sum(1)
    hits, true, said = weights @ (labels * answers), weights @ labels, weights @ answers
    if metric == "f1_micro":
        return _ratio(2 * hits.sum(1), true.sum(1) + said.sum(1))
    return _of_classes(metric, hits, true, said, None)


def _membership(classes: NDArray, n_classes: int) -> Any:
    """(N, C): 1 where a row is of the class; sparse, as a dense one would be large for many classes."""
    from scipy.sparse import csr_array

    n = len(classes)
    return csr_array((np.ones(n), classes, np.arange(n + 1)), shape=(n, n_classes))


def _matthews(hits: NDArray, true: NDArray, said: NDArray) -> NDArray:
    """The correlation of Gorodkin 2004 for any number of classes, from counts (R, C)."""
    n = true.sum(1)
    covariance = n * hits.sum(1) - (true * said).sum(1)
    spread = (n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _correlation(x: NDArray, y: NDArray, weights: NDArray) -> NDArray:
    """Pearson's, of values that count `weights` times; 0 where one side is constant."""
    x, y = x - x.mean(), y - y.mean()  # smaller numbers, smaller rounding errors
    n = weights.sum(1)
    mx, my = weights @ x / n, weights @ y / n
    covariance = weights @ (x * y) / n - mx * my
    spread = (weights @ (x * x) / n - mx**2) * (weights @ (y * y) / n - my**2)
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _ratio(a: NDArray, b: NDArray) -> NDArray:
    """a / b element by element, and 0 where b is 0: what is undefined scores 0, as in tasks/metrics.py."""
    return np.divide(a, b, out=np.zeros_like(a, dtype=float), where=b > 0)
