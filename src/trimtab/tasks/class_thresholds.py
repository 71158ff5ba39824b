"""Thresholds of the highest F1: one for each class of a multi_label task, or that of the positive one of two classes.

Where a class has few positives every threshold is luck: it has that of all classes together. What they bring is told on rows
that they were not chosen on.
"""

# Shapes: N rows, K classes with a threshold of their own, R repeats.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, counted, shortened
from .decision_rule import DecisionRule
from .threshold import FEW_ROWS, FOLDS, Chosen, best_for_all, gain_of

FEW_POSITIVES = 20  # with fewer a class has no threshold of its own
_REPEATS = 2  # of the cross-fitting
_NEIGHBOURS = 10  # a threshold's F1 is the mean over a tenth as many to each side as there are positives


def check_thresholds(
    kind: str, classes: Sequence[str], positive: int | None, labels: Sequence[Any], given: str | None
) -> None:
    """Raises InputError where thresholds are asked for that a task with such validation labels cannot have."""
    if given is None:
        return
    if kind == "regression" or (kind == "single_label" and positive is None):
        what = (
            "a regression has no classes"
            if kind == "regression"
            else f"each row has the most probable of {len(classes)}"
        )
        raise InputError(f"thresholds are for multi_label tasks and for two classes; {what}: leave --thresholds out")
    if len(labels) < FEW_ROWS:
        raise InputError(
            f"thresholds need {FEW_ROWS} validation rows, and there are {len(labels)}: give more (--validation FILE or a larger "
            "share), or leave --thresholds out"
        )
    if kind == "single_label":
        assert positive is not None
        if positive not in labels:
            raise InputError(
                f"thresholds: no validation row is {classes[positive]!r}, whose F1 is to be the highest: give other validation "
                "rows (--validation FILE), or leave --thresholds out"
            )
        return
    lacking = [name for i, name in enumerate(classes) if not any(i in row for row in labels)]
    if lacking:
        raise InputError(
            f"thresholds: no validation row has the class {shortened([repr(name) for name in lacking])}: give other validation "
            "rows (--validation FILE), or leave --thresholds out"
        )


def best_threshold(likely: NDArray, truth: NDArray) -> float:
    """The threshold of the highest F1 of one class, from N probabilities and whether rows have it; halfway between two of them.

    F1 by threshold has steps: it is the mean over neighbours, and of equally good ones the nearest to one half is taken.
    """
    order = np.argsort(-likely, kind="stable")
    sure, hits = likely[order].astype(np.float64), truth[order].astype(np.float64).cumsum()
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))  # of each run of equal probabilities
    between = (sure[last] + np.append(sure[last[1:]], 0.0)) / 2
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    reach = int(hits[-1]) // _NEIGHBOURS
    sums = np.concatenate([[0.0], f1.cumsum()])
    low, high = (np.clip(np.arange(len(f1)) + by, 0, len(f1)) for by in (-reach, reach + 1))
    smooth = (sums[high] - sums[low]) / (high - low)
    best = np.flatnonzero(smooth >= smooth.max() - 1e-12)
    return float(between[best[np.abs(between[best] - 0.5).argmin()]])


def chosen_by_class(
    metric: str, likely: NDArray, truth: NDArray, usual: DecisionRule, names: Sequence[str], seed: int = 0
) -> Chosen:
    """`usual` with a threshold for each class, by probabilities and classes as 0 and 1, both (N, K).

    `usual` stays where on rows that thresholds were not chosen on they gain less than the standard error of that gain.
    """
    truth, name = truth.astype(np.int64), metric if metric == "f1_micro" else "f1_macro"
    found, n_own = _thresholds(name, likely, truth, usual)
    rule = _with(usual, found)
    left_out = _left_out(
        likely, truth, seed, lambda rows: _with(usual, _thresholds(name, likely[rows], truth[rows], usual)[0])
    )
    gain, error = gain_of(name, usual.given(likely), left_out[0], truth, seed)
    said = f"on rows that they were not chosen on they change the F1 by {gain:+.3f} (standard error {error:.3f})"
    several = len(names) > 1
    if gain <= error:
        which = "The thresholds stay" if several else "The threshold stays"
        return Chosen(
            usual, f"{which} {usual.threshold:g}: of the highest F1 on {counted(len(truth), 'validation row')}, {said}."
        )
    if not several:
        which = f"The threshold of {names[0]!r} is {found[0]:.3g}, in place of {usual.threshold:g}"
    else:
        which = (
            f"{n_own:,} of {len(names):,} classes have thresholds of their own ({found.min():.3g} to {found.max():.3g})"
        )
        if n_own < len(names):
            rest = found[truth.sum(0) < FEW_POSITIVES][0]
            which += f"; those with fewer than {FEW_POSITIVES} validation rows have that of all together, {rest:.3g}"
    return Chosen(rule, f"{which}: {said}. Scores of the run are those of such rows.", left_out)


def _thresholds(metric: str, likely: NDArray, truth: NDArray, usual: DecisionRule) -> tuple[NDArray, int]:
    """The threshold of each class (K,), and how many are of one class alone."""
    own = truth.sum(0) >= FEW_POSITIVES
    rest = usual.threshold
    if not own.all() and truth.shape[1] > 1:
        rest = best_for_all(metric, likely, truth, usual)
    found = [best_threshold(likely[:, k], truth[:, k]) if own[k] else rest for k in range(truth.shape[1])]
    return np.array(found), int(own.sum())


def _with(usual: DecisionRule, thresholds: NDArray) -> DecisionRule:
    """`usual` with these thresholds."""
    if len(thresholds) == 1:
        return replace(usual, threshold=float(thresholds[0]))
    return replace(usual, thresholds=tuple(thresholds.tolist()))


def _left_out(likely: NDArray, truth: NDArray, seed: int, rule_of: Callable[[NDArray], DecisionRule]) -> NDArray:
    """0 and 1, (R, N, K): each row decided by the rule of the other folds, once in each repeat."""
    found = np.empty((_REPEATS, *truth.shape), np.int64)
    generator = np.random.default_rng(seed)
    for repeat in range(_REPEATS):
        fold = generator.permutation(len(truth)) % FOLDS
        for f in range(FOLDS):
            at = np.flatnonzero(fold == f)
            found[repeat, at] = rule_of(np.flatnonzero(fold != f)).given(likely[at])
    return found
