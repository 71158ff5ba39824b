"""Correlations, and the ranks behind Spearman's.

They are a few lines here because scipy.stats, which has them too (the tests compare), takes half a second and 50 MB to import, in
every measurement and every fit of a regression.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: NDArray) -> NDArray[np.float64]:
    """Ranks (N,) of numbers (N,) from 1 up; equal numbers share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.append(True, ordered[1:] != ordered[:-1])  # whether a number is another than the one before it
    bounds = np.append(np.flatnonzero(first), len(values))  # where each run of equal numbers begins, and the end
    shared = (bounds[:-1] + 1 + bounds[1:]) / 2
    found = np.empty(len(values))  # float64: squares of millions of ranks overflow float32
    found[order] = shared[np.cumsum(first) - 1]
    return found


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation of two lists of N numbers; NaN where one side has fewer than two different ones."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    # Of a size near 1 first: the squares of very small or large numbers are out of range.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def spearman(a: NDArray, b: NDArray) -> float:
    """Spearman's rank correlation of two lists of N numbers; NaN where one side has fewer than two different ones."""
    return pearson(ranks(a), ranks(b))
