"""What predicts a label without the text's meaning: one word, the length, or the place of the row in its file.

A model finds such a shortcut before anything else, is right with it on held-out rows of the same source, and wrong on all others.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from .task import Rows

_WORD = re.compile(r"\w+")
_LEAST_ROWS = 40  # below, chance alone makes shortcuts
_LEAST_WITH = 0.02  # of the rows must have a word, or lack it
_TELLING = 0.5  # of the way from the largest class to all rows, which a rule must go to be told
_BINS = 20  # equally many rows each, of a length or a place
_MOST_WORDS = 5


class Shortcut(NamedTuple):
    """A rule that needs no reading."""

    what: str  # in plain words
    accuracy: float  # on rows that it was not chosen on
    majority: float  # of always saying the largest class, on the same rows


def shortcuts(rows: Rows) -> list[Shortcut]:
    """Rules that alone predict the classes of single-label rows, the best first; found on one half, judged on the other."""
    labelled = [i for i, label in enumerate(rows.labels) if label is not None]
    if len(labelled) < _LEAST_ROWS:
        return []
    labels = np.array([rows.labels[i] for i in labelled])
    # In a seeded order: rows that are sorted by class must be on both sides.
    order = np.random.default_rng(0).permutation(len(labels))
    found, judged = np.sort(order[::2]), np.sort(order[1::2])
    majority = float(np.mean(labels[judged] == np.bincount(labels[found]).argmax()))
    least = majority + _TELLING * (1 - majority)
    told: list[Shortcut] = []
    for k, column in enumerate(rows.texts):
        texts = [column[i] for i in labelled]
        of = "" if len(rows.texts) == 1 else f" of the {('first', 'second')[k]} text"
        for word, accuracy in _words(texts, labels, found, judged):
            told.append(Shortcut(f"whether the word {word!r:.60} occurs{of}", accuracy, majority))
        lengths = np.array([len(text) for text in texts])
        told.append(Shortcut(f"the number of characters{of}", _binned(lengths, labels, found, judged), majority))
    # A file sorted by class: a model never sees that, but whoever splits it by place does.
    numbers = np.array(labelled if rows.numbers is None else [rows.numbers[i] for i in labelled])
    told.append(Shortcut("the place of the row in its file", _binned(numbers, labels, found, judged), majority))
    return sorted((each for each in told if each.accuracy >= least and majority < 1), key=lambda each: -each.accuracy)


def _words(texts: Sequence[str], labels: np.ndarray, found: np.ndarray, judged: np.ndarray) -> list[tuple[str, float]]:
    """The words that say most of the class, by whether they occur, with the accuracy of that on the `judged` rows."""
    sets = [set(_WORD.findall(text.lower())) for text in texts]
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for i in found:
        for word in sets[i]:
            counts[word][int(labels[i])] += 1
    n, totals = len(found), np.bincount(labels[found], minlength=int(labels.max()) + 1)
    right = {}
    for word, of in counts.items():
        having = sum(of.values())
        if min(having, n - having) < _LEAST_WITH * n:
            continue
        lacking = totals.copy()
        for label, count in of.items():
            lacking[label] -= count
        right[word] = max(of.values()) + int(lacking.max())
    best = sorted(right, key=lambda word: (-right[word], word))[:_MOST_WORDS]
    return [(word, _accuracy([word in each for each in sets], labels, found, judged)) for word in best]


def _binned(values: np.ndarray, labels: np.ndarray, found: np.ndarray, judged: np.ndarray) -> float:
    """The accuracy on the `judged` rows of saying what most rows say whose value is in the same of a few ranges."""
    edges = np.unique(np.quantile(values[found], np.linspace(0, 1, _BINS + 1)[1:-1]))
    return _accuracy(np.searchsorted(edges, values).tolist(), labels, found, judged)


def _accuracy(keys: Sequence[Hashable], labels: np.ndarray, found: np.ndarray, judged: np.ndarray) -> float:
    """Of saying the most frequent label that the `found` rows of the same key have."""
    said: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for i in found:
        said[keys[i]][int(labels[i])] += 1
    usual = int(np.bincount(labels[found]).argmax())
    meant = {key: of.most_common(1)[0][0] for key, of in said.items()}
    return float(np.mean([meant.get(keys[i], usual) == labels[i] for i in judged]))
