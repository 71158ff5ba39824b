"""Rows whose label is likely wrong, by confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068).

What is asked is how probable labels are to a classifier that was not trained on the row. It finds rows to look at, and no more:
some are mistakes of the classifier, and only a person can say which.
"""

# Shapes: N rows, C classes.

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_FAR = 3.0  # spreads that a number lies from what is predicted, from which on it is listed
_MAD = 1.4826  # of normal numbers the standard deviation is so many times the median absolute deviation


class Suspect(NamedTuple):
    """A row to look at."""

    row: int
    suggested: int | float | tuple[int, ...]  # a class, several, or a number
    probability: float  # of the label that it has: the least probable come first; NaN of numbers
    distance: float = 0.0  # of numbers: from what is predicted, in spreads


def label_suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """Rows whose label (N,) is likely another, by out-of-fold probabilities (N, C); the least probable label first.

    A class counts for a row where its probability is at least the mean that it has in rows labelled so (the class's threshold);
    of those that count the most probable is meant, and it differs from the label and is more probable.
    """
    n_classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=probabilities[rows, labels], minlength=n_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    counting = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = counting.argmax(1)
    own = probabilities[rows, labels]
    found = np.flatnonzero((counting.max(1) >= 0) & (suggested != labels) & (probabilities.argmax(1) != labels))
    order = found[np.argsort(own[found], kind="stable")]
    return [Suspect(int(i), int(suggested[i]), float(own[i])) for i in order]


def label_suspects_of_many(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """The same for rows that have any of the classes, `labels` (N, C) of 0 and 1: each class is a yes or no of its own."""
    wrong: dict[int, list[int]] = {}
    least: dict[int, float] = {}
    for c in range(labels.shape[1]):
        yes = probabilities[:, c]
        for found in label_suspects(np.stack([1 - yes, yes], 1), labels[:, c].astype(int)):
            wrong.setdefault(found.row, []).append(c)
            least[found.row] = min(least.get(found.row, 1.0), found.probability)
    suspects = []
    for row, classes in wrong.items():
        meant = labels[row].astype(bool)
        meant[classes] ^= True
        suspects.append(Suspect(row, tuple(np.flatnonzero(meant).tolist()), least[row]))
    return sorted(suspects, key=lambda each: (each.probability, each.row))


def number_suspects(predicted: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """Rows whose number (N,) lies far from what is predicted out of fold (N,), the farthest first.

    Spread is the median absolute deviation, in the unit of a standard deviation: outliers do not widen it.
    """
    away = labels - predicted
    spread = _MAD * float(np.median(np.abs(away - np.median(away))))
    if not spread:
        return []
    distance = np.abs(away) / spread
    found = np.flatnonzero(distance >= _FAR)
    order = found[np.argsort(-distance[found], kind="stable")]
    return [Suspect(int(i), float(predicted[i]), float("nan"), float(distance[i])) for i in order]
