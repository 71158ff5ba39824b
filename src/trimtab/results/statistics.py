"""Whether two methods differ: a paired bootstrap over rows, with the variance over seeds added, corrected for many tests."""

# Shapes: N validation rows, R resamples.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tasks.metrics import METRICS
from .resampled_scores import resampled_score

RESAMPLES = 1000  # of the validation rows
LEAST_ROWS = (
    10  # below that no difference is significant: that of two equal methods would be, in up to half of all studies
)
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
    """The Difference of what two methods said of the same rows, one array per seed, paired seed by seed.

    What they said is as `resampled_score` takes it: predictions, or outputs (N, C) where the metric is of probabilities.
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
        ours, theirs = (
            resampled_score(metric, labels, predictions, weights, n_classes, positive) for predictions in (a, b)
        )
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
