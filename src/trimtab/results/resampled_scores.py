"""Scores of many resamples of the same rows at once: each metric from how often a row was drawn, as tasks/metrics.py has it."""

# Shapes: N rows, R resamples, C classes.

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import ranks
from ..tasks.metrics import brier_by_row, metric_names

_OF_COUNTS = ("precision", "recall", "f1", "f1_macro")  # of each class
_OF_RANKS = ("roc_auc", "average_precision")
_OF_PROBABILITIES = (*_OF_RANKS, "brier_score", "loss")
_OF_LABELS = (*_OF_COUNTS, "accuracy", "matthews", "f1_micro")
_OF_VALUES = ("pearson", "spearman", "mean_absolute_error", "mean_squared_error")


def usable(metric: str) -> bool:
    """Whether `resampled_score` knows the metric: all but the calibration error, whose resamples are further off than itself."""
    return metric in (*_OF_LABELS, *_OF_PROBABILITIES, *_OF_VALUES)


def of_probabilities(metric: str, kind: str) -> bool:
    """Whether the metric of a task of `kind` rests on how sure each prediction was, and not on the predictions alone."""
    return kind != "regression" and metric in _OF_PROBABILITIES


def resampled_score(
    metric: str, labels: NDArray, said: NDArray, weights: NDArray, n_classes: int, positive: int = 1
) -> NDArray:
    """`metric` (R,) of what was said of rows that count `weights` (R, N) times, as tasks/metrics.py scores the rows drawn.

    What was said are predictions: class numbers (N,), classes as 0 and 1 (N, C), or values (N,); for metrics of probabilities the
    model's outputs (N, C), whose softmax or, where rows may have several classes, sigmoid these are. `n_classes` is the task's (0
    for regression), because some of its classes may be in neither labels nor predictions, and `positive` the number of its
    positive class where there are two. Raises ValueError for a metric that is not of such labels, and for those not `usable`.
    """
    kind = "regression" if n_classes == 0 else "multi_label" if labels.ndim == 2 else "single_label"
    if metric not in metric_names(kind):  # it must not be tested as F1
        raise ValueError(f"{metric} is no metric of such labels")
    if not usable(metric):
        raise ValueError(f"resamples cannot be scored by {metric}")
    if kind == "regression":
        return _of_values(metric, labels, said, weights)
    one = positive if kind == "single_label" and n_classes == 2 else None
    if metric in _OF_RANKS:
        return _of_ranks(metric, labels, said, weights, one)
    if metric in _OF_PROBABILITIES:
        return weights @ (_losses if metric == "loss" else _briers)(labels, said) / weights.sum(1)
    if kind == "multi_label":
        return _multi_label(metric, labels, said, weights)
    if metric == "accuracy":
        return weights @ (labels == said).astype(float) / weights.sum(1)
    of_labels, of_predictions = _membership(labels, n_classes), _membership(said, n_classes)
    # Counts (R, C): no table of true by predicted class is needed.
    hits, true, given = (weights @ each for each in (of_labels.multiply(of_predictions), of_labels, of_predictions))
    if metric == "matthews":
        return _matthews(hits, true, given)
    return _of_counts(metric, hits, true, given, one)


def _of_values(metric: str, labels: NDArray, predictions: NDArray, weights: NDArray) -> NDArray:
    """`metric` (R,) of numbers (N,)."""
    if metric in ("pearson", "spearman"):
        if metric == "spearman":  # of ranks in the whole sample, which resampling hardly changes
            labels, predictions = ranks(labels), ranks(predictions)
        return _correlation(labels, predictions, weights)
    error = np.abs(labels - predictions) ** (1 if metric == "mean_absolute_error" else 2)  # that of the loss too
    return weights @ error / weights.sum(1)


def _of_counts(metric: str, hits: NDArray, true: NDArray, said: NDArray, positive: int | None) -> NDArray:
    """Precision, recall or F1 from counts (R, C): of the class `positive`, else the mean over those that occur.

    What is undefined is 0.
    """
    by_class = {
        "precision": _ratio(hits, said), "recall": _ratio(hits, true),
    }.get(metric, _ratio(2 * hits, true + said))  # fmt: skip
    if positive is not None and metric != "f1_macro":
        return by_class[:, positive]
    return _ratio(by_class.sum(1), (true + said > 0).sum(1))


def _multi_label(metric: str, labels: NDArray, predictions: NDArray, weights: NDArray) -> NDArray:
    """`metric` (R,) of classes as 0 and 1 (N, C); for accuracy, all classes of a row must be right."""
    if metric == "accuracy":
        return weights @ (labels == predictions).all(1).astype(float) / weights.sum(1)
    hits, true, said = weights @ (labels * predictions), weights @ labels, weights @ predictions
    if metric == "f1_micro":
        return _ratio(2 * hits.sum(1), true.sum(1) + said.sum(1))
    return _of_counts(metric, hits, true, said, None)


def _of_ranks(metric: str, labels: NDArray, outputs: NDArray, weights: NDArray, positive: int | None) -> NDArray:
    """ROC AUC or average precision (R,): of the class `positive`, else the mean over the classes that some rows drawn have and
    others have not; where there is none, what is chance: one half or 0."""
    has = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.arange(outputs.shape[1])  # (N, C)
    # Finer than probabilities, which may be rounded to 1.
    found = outputs if labels.ndim == 2 else log_softmax(outputs)
    score = _roc_auc if metric == "roc_auc" else _average_precision
    chance, total, counted = 0.5 if metric == "roc_auc" else 0.0, np.zeros(len(weights)), np.zeros(len(weights))
    for c in range(outputs.shape[1]) if positive is None else [positive]:
        n, n_all = weights @ has[:, c], weights.sum(1)
        # Of one class all that have it may be drawn: its precision then is 1, and its area nothing.
        some = n > 0 if positive is not None and metric != "roc_auc" else (n > 0) & (n < n_all)
        if some.any():
            total[some] += score(found[:, c], has[:, c], weights[some])
            counted += some
    return np.where(counted > 0, total / np.maximum(counted, 1), chance)


def _roc_auc(found: NDArray, has: NDArray, weights: NDArray) -> NDArray:
    """(R,): how often a row that has the class scores (N,) higher than one that has not, ties counting one half."""
    order, last = _runs(found)
    drawn = weights[:, order]
    yes, no = ((drawn * each[order]).cumsum(1)[:, last] for each in (has, ~has))
    below = no + np.concatenate(
        [np.zeros((len(no), 1)), no[:, :-1]], axis=1
    )  # twice: those of a run of ties count one half
    return (np.diff(yes, axis=1, prepend=0) * below).sum(1) / (2 * yes[:, -1] * no[:, -1])


def _average_precision(found: NDArray, has: NDArray, weights: NDArray) -> NDArray:
    """(R,): the mean over rows that have the class of the precision among all rows that score (N,) at least as high."""
    order, last = _runs(-found)
    drawn = weights[:, order]
    hits, seen = (drawn * has[order]).cumsum(1)[:, last], drawn.cumsum(1)[:, last]
    return (np.diff(hits, axis=1, prepend=0) * _ratio(hits, seen)).sum(1) / hits[:, -1]


def _runs(found: NDArray) -> tuple[NDArray, NDArray]:
    """The order of scores (N,), lowest first, and the last place of each run of equal ones in it."""
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    return order, np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def log_softmax(outputs: NDArray) -> NDArray:
    """Log-probabilities (N, C) of the outputs (N, C) of single_label rows."""
    shifted = outputs.astype(np.float64) - outputs.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def likely(outputs: NDArray, *, several: bool) -> NDArray:
    """Probabilities (N, C) of outputs (N, C): sigmoids where rows may have `several` classes, else their softmax."""
    from scipy.special import expit

    return expit(outputs.astype(np.float64)) if several else np.exp(log_softmax(outputs))


def _losses(labels: NDArray, outputs: NDArray) -> NDArray:
    """(N,): the log loss of each row, as tasks/losses.py has it."""
    if labels.ndim == 2:
        return np.logaddexp(0, np.where(labels > 0.5, -1, 1) * outputs.astype(np.float64)).mean(1)
    return -log_softmax(outputs)[np.arange(len(labels)), labels]


def _briers(labels: NDArray, outputs: NDArray) -> NDArray:
    """(N,): what each row adds to the Brier score."""
    return brier_by_row(likely(outputs, several=labels.ndim == 2), labels)


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
