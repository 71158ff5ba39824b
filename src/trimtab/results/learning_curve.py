"""What more labels would bring: error(n) = a + b n^-c of the errors at a few sizes, and its uncertainty.

Fitted by weighted least squares with a >= 0 and b >= 0. The range comes from a bootstrap over draws of the training rows, to
which is added what draws from the same rows do not show: that these rows are a draw themselves.
"""

# Shapes: K sizes, D draws of a size, R resamples, G exponents.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_ROWS = 32  # of a class: below, errors are not on the curve yet
LEAST_SIZES = 3
REACH = 8  # times the rows there are: what lies beyond is never told
LEVEL = 0.8  # of the ranges: so often the truth is to be inside
RESAMPLES = 500
_EXPONENTS = (0.1, 1.5)  # of c: slower is not to be told from a straight line, faster is over at once
_GRID, _ZOOMS = 25, 4  # exponents tried at once, each time between the neighbours of the last best
_STRAIGHT = 1e-12  # of the sum of squares: less variance than that of n^-c is none


class Power(NamedTuple):
    """error(n) = a + b n^-c."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """The error of n rows."""
        return self.a + self.b * n**-self.c


@dataclass(frozen=True)
class Errors:
    """The errors at one size, one for each draw."""

    n: int  # rows, or rows a class
    of_draws: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over draws."""
        return float(np.mean(self.of_draws))


class Forecast(NamedTuple):
    """The error that is expected of n rows: its middle, and the range in which it is with a probability of LEVEL."""

    n: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A curve through errors, and many others that the draws allow as well."""

    law: Power
    resampled: NDArray  # (R, 3): a, b and c of each
    largest: int  # rows of the largest size

    def forecast(self, n: int) -> Forecast:
        """Raises ValueError beyond REACH times what there is."""
        if n > REACH * self.largest:
            raise ValueError(f"{n} is more than {REACH} times {self.largest}")
        a, b, c = self.resampled.T
        errors = a + b * n**-c
        low, middle, high = np.quantile(errors, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        return Forecast(n, float(low), float(middle), float(high))

    def rows_for(self, error: float) -> tuple[int, int] | None:
        """The range, with a probability of LEVEL, of the rows that it takes to come to `error`; None where it is out of reach."""
        a, b, c = self.resampled.T
        with np.errstate(divide="ignore"):  # never, where the error is below a
            n = np.where(error > a, (np.maximum(error - a, 0) / np.maximum(b, 1e-300)) ** (-1 / c), np.inf)
        low, high = np.quantile(n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        return (round(float(low)), round(float(high))) if high <= REACH * self.largest else None


def usable(sizes: Sequence[Errors]) -> list[Errors]:
    """The sizes that a curve is fitted to."""
    return [each for each in sizes if each.n >= LEAST_ROWS]


def learning_curve(sizes: Sequence[Errors], n_judged: int) -> LearningCurve:
    """The curve through the usable of `sizes`, in order of n, the last being all rows; errors are on `n_judged` rows.

    The same errors give the same curve. Raises ValueError for fewer than LEAST_SIZES usable sizes, or a size with one draw.
    """
    points = usable(sizes)
    if len(points) < LEAST_SIZES or any(len(point.of_draws) < 2 for point in points):
        raise ValueError(f"a curve takes {LEAST_SIZES} sizes of at least {LEAST_ROWS} rows, and 2 draws of each")
    n = np.array([point.n for point in points], np.float64)
    means = np.array([point.mean for point in points])
    variances, shared = _variances(points)
    # Errors are proportions of the rows that are judged, or as uncertain as these.
    of_rows = np.clip(means, 0.5 / n_judged, 1 - 0.5 / n_judged)
    weights = 1 / (variances + shared + of_rows * (1 - of_rows) / n_judged)
    law = fitted_powers(n, means[None], weights)[0]
    resampled = fitted_powers(n, _resampled(points, variances, shared), weights)
    return LearningCurve(Power(*law.tolist()), resampled, points[-1].n)


def fitted_powers(n: NDArray, errors: NDArray, weights: NDArray) -> NDArray:
    """a, b and c (R, 3) with the least weighted squares of errors (R, K) at the sizes n (K,), all with the weights (K,).

    Given c, a and b are a line of n^-c, solved exactly; c is searched in a grid that is made finer around its best.
    """
    low, high = (np.full(len(errors), end) for end in _EXPONENTS)
    found = np.empty((len(errors), 3))
    for _ in range(_ZOOMS):
        c = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _GRID)
        a, b, squares = _lines(n ** -c[:, :, None], errors[:, None, :], weights)
        best = squares.argmin(1)
        rows = np.arange(len(errors))
        found = np.stack([a[rows, best], b[rows, best], c[rows, best]], 1)
        low, high = c[rows, np.maximum(best - 1, 0)], c[rows, np.minimum(best + 1, _GRID - 1)]
    return found


def _lines(x: NDArray, y: NDArray, weights: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """a >= 0 and b >= 0 of a + b x with the least weighted squares over the last axis, and these."""
    w = weights / weights.sum()
    mean_x, mean_y = (w * x).sum(-1), (w * y).sum(-1)
    variance = (w * x * x).sum(-1) - mean_x**2
    covariance = (w * x * y).sum(-1) - mean_x * mean_y
    b = np.maximum(np.where(variance > _STRAIGHT, covariance / np.maximum(variance, _STRAIGHT), 0), 0)
    a = mean_y - b * mean_x
    # Where the free line has a < 0, the best is through 0.
    through = np.maximum((w * x * y).sum(-1) / (w * x * x).sum(-1), 0)
    a, b = np.where(a < 0, 0, a), np.where(a < 0, through, b)
    return a, b, (w * (y - a[..., None] - b[..., None] * x) ** 2).sum(-1)


def _variances(points: Sequence[Errors]) -> tuple[NDArray, float]:
    """The variance (K,) of the mean error of each size over its draws, and that which all sizes share.

    The variance between draws of all rows in the world falls as 1 / n; where more is measured (of the seeds, say), that is taken.
    Draws of a share f of N rows differ by the part 1 - f of it only: the rest, as much as of N rows, they have in common.
    """
    largest = points[-1].n
    n, count = (np.array([get(p) for p in points], np.float64) for get in (lambda p: p.n, lambda p: len(p.of_draws)))
    measured = np.array([np.var(point.of_draws, ddof=1) for point in points])
    part = n / largest
    small = part <= 0.5  # nearer to all rows too little is left to be seen
    if small.any():
        unit = float(np.average((measured * n / np.maximum(1 - part, 0.5))[small], weights=(count - 1)[small]))
    else:
        unit = float(np.max(measured * n))
    between = np.maximum(unit / n, np.where(small, measured / np.maximum(1 - part, 0.5), 0))
    return between * (1 - part) / count + np.where(small, 0, measured / count), unit / largest


def _resampled(points: Sequence[Errors], variances: NDArray, shared: float) -> NDArray:
    """Mean errors (R, K): draws drawn again, those of one number together, and what they lack of `variances`."""
    chance = np.random.default_rng(0)
    drawn: dict[int, NDArray] = {}
    means = np.tile(chance.normal(0, np.sqrt(shared), RESAMPLES)[:, None], len(points))
    for k, point in enumerate(points):
        count = len(point.of_draws)
        if count not in drawn:
            drawn[count] = chance.integers(0, count, (RESAMPLES, count))
        means[:, k] += np.array(point.of_draws)[drawn[count]].mean(1)
        lacking = max(0.0, variances[k] - float(np.var(point.of_draws)) / count)
        means[:, k] += chance.normal(0, np.sqrt(lacking), RESAMPLES)
    return means
