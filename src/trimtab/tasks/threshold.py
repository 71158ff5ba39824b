"""One threshold for all classes of a multi_label task, chosen on its validation rows.

One for each class would rest on the few rows that have it.
"""

# Shapes: T thresholds, F folds, N rows, C classes.

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .decision_rule import DecisionRule

FEW_ROWS = 50  # with fewer, what is best on them says little of others
FOLDS = 5
_RESAMPLES = 200
# Nearest to one half first: of equally good ones that one is taken.
_THRESHOLDS = np.array(sorted((i / 100 for i in range(1, 100)), key=lambda t: abs(t - 0.5)))


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and why, in a sentence."""

    decision_rule: DecisionRule
    reason: str
    left_out: NDArray | None = (
        None  # decisions on rows that the rule was not chosen on, by repeat; where they are what is told
    )


def chosen_rule(metric: str, likely: NDArray, truth: NDArray, usual: DecisionRule, seed: int = 0) -> Chosen:
    """`usual`, with the threshold of the highest F1 on rows of probabilities and classes as 0 and 1, both (N, C).

    The F1 is `metric` where that is one, else the mean over classes. The threshold of `usual` is kept where there are few rows,
    and where thresholds chosen on four fifths of the rows gain less on the others than the standard error of that gain.
    """
    n, name = len(truth), metric if metric == "f1_micro" else "f1_macro"
    if n < FEW_ROWS:
        return Chosen(usual, f"The threshold stays {usual.threshold:g}: {n} validation rows are too few to choose one.")
    truth = truth.astype(np.int64)
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    right, predicted, asked = _counts(likely, truth, fold, usual)
    best = _best(name, right.sum(1), predicted.sum(1), asked.sum(0))
    if best == usual.threshold:
        return Chosen(usual, f"The threshold stays {best:g}: no other has a higher F1 on the validation rows.")
    left_out = np.empty_like(truth)  # (N, C): each row predicted with the threshold that is best on the other folds
    for f in range(FOLDS):
        own = _best(name, *(each.sum(-2) - each[..., f, :] for each in (right, predicted, asked)))
        left_out[fold == f] = replace(usual, threshold=own).given(likely[fold == f])
    gain, error = gain_of(name, usual.given(likely), left_out, truth, seed)
    if gain <= error:
        return Chosen(
            usual,
            f"The threshold stays {usual.threshold:g}: {best:g} is the best on the {n:,} validation rows, but of rows that it "
            f"was not chosen on it changes the F1 by {gain:+.3f}, which is less than its standard error ({error:.3f}).",
        )
    return Chosen(
        replace(usual, threshold=best),
        f"The threshold {best:g}, in place of {usual.threshold:g}, was chosen on the {n:,} validation rows: on rows that it "
        f"was not chosen on it changes the F1 by {gain:+.3f} (standard error {error:.3f}). Scores of earlier steps and of before "
        f"training are those at {usual.threshold:g}.",
    )


def best_for_all(metric: str, likely: NDArray, truth: NDArray, usual: DecisionRule) -> float:
    """The threshold for all classes of the highest F1 on rows of probabilities and classes as 0 and 1, both (N, C)."""
    right, predicted, asked = _counts(likely, truth, np.zeros(len(truth), np.int64), usual)
    return _best(metric, right.sum(1), predicted.sum(1), asked.sum(0))


def _counts(likely: NDArray, truth: NDArray, fold: NDArray, usual: DecisionRule) -> tuple[NDArray, NDArray, NDArray]:
    """How often a class was right and predicted, both (T, F, C), and asked for, (F, C)."""
    members = (fold == np.arange(FOLDS)[:, None]).astype(np.float64)  # (F, N)
    right, predicted = [], []
    for threshold in _THRESHOLDS.tolist():
        given = replace(usual, threshold=threshold).given(likely)
        right.append(members @ (given * truth))
        predicted.append(members @ given)
    return np.stack(right), np.stack(predicted), members @ truth


def _best(metric: str, right: NDArray, predicted: NDArray, asked: NDArray) -> float:
    """The threshold of the highest F1, from counts (T, C), (T, C) and (C,)."""
    return float(_THRESHOLDS[_f1(metric, right, predicted, asked).argmax()])


def gain_of(metric: str, before: NDArray, after: NDArray, truth: NDArray, seed: int) -> tuple[float, float]:
    """By how much the F1 of predictions (N, C) rises, and its standard error over rows drawn with replacement."""
    n = len(truth)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)

    def rise(weights: NDArray) -> NDArray:
        asked = weights @ truth
        found = [_f1(metric, weights @ (given * truth), weights @ given, asked) for given in (before, after)]
        return found[1] - found[0]

    return float(rise(np.ones((1, n)))[0]), float(rise(weights).std(ddof=1))


def _f1(metric: str, right: NDArray, predicted: NDArray, asked: NDArray) -> NDArray:
    """F1 as `scores` has it, from counts whose last axis is that of the classes."""
    said = predicted + asked
    if metric == "f1_micro":
        return 2 * right.sum(-1) / np.maximum(said.sum(-1), 1)
    return (2 * right / np.maximum(said, 1)).sum(-1) / np.maximum((said > 0).sum(-1), 1)
