"""The scores of a task, each with its direction and range.

Those of classes are sums of counts and written out here: importing scikit-learn for them took 100 MB and a second in every fit.
The tests compare them with scikit-learn's.
"""

# Shapes: N rows, C classes.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import pearson, ranks, spearman
from ..errors import InputError, counted, suggestion
from .decision_rule import USUAL, DecisionRule
from .label_parsing import plainly
from .task import Task

# Not before logits are scored: rows are read, and their errors told, without waiting for it.
if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """Which way is better, and between which values a score lies (None: unbounded)."""

    higher_is_better: bool
    low: float | None
    high: float | None

    def better(self, a: float, b: float) -> bool:
        """Whether score `a` is strictly better than `b`; a score that is not a number is never better."""
        if np.isnan(a) or np.isnan(b):
            return bool(np.isnan(b) and not np.isnan(a))
        return a > b if self.higher_is_better else a < b


_SHARE, _ERROR, _CORRELATION = Metric(True, 0.0, 1.0), Metric(False, 0.0, None), Metric(True, -1.0, 1.0)

# Every score by its name, as files and options spell it.
METRICS: dict[str, Metric] = {
    "accuracy": _SHARE,
    "precision": _SHARE,
    "recall": _SHARE,
    "f1": _SHARE,
    "f1_macro": _SHARE,
    "f1_micro": _SHARE,
    "matthews": _CORRELATION,
    "roc_auc": _SHARE,
    "average_precision": _SHARE,
    "pearson": _CORRELATION,
    "spearman": _CORRELATION,
    "mean_absolute_error": _ERROR,
    "mean_squared_error": _ERROR,
    "calibration_error": Metric(False, 0.0, 1.0),
    "brier_score": Metric(False, 0.0, 1.0),
    "loss": _ERROR,  # of classes the log loss
}


def improves(metric: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    """Whether the scores `ours` are better than `theirs` by the main `metric`, or as good and with a lower loss.

    A share of few rows has few values: many steps tie in it while the model still learns, which the loss shows.
    """
    if METRICS[metric].better(ours[metric], theirs[metric]):
        return True
    tied = not METRICS[metric].better(theirs[metric], ours[metric])
    return tied and METRICS["loss"].better(ours["loss"], theirs["loss"])


_RANKING = ("roc_auc", "average_precision")
_OF_POSITIVE = ("precision", "recall", "f1", "average_precision")  # of two classes, those that are of one of them
# Kind of task -> its metrics, in the order in which `scores` gives them.
_NAMES = {
    "single_label": (
        "accuracy", "precision", "recall", "f1", "f1_macro", "matthews", *_RANKING, "calibration_error", "brier_score", "loss",
    ),
    "multi_label": (
        "accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro", *_RANKING, "calibration_error", "brier_score", "loss",
    ),
    "regression": ("pearson", "spearman", "mean_absolute_error", "mean_squared_error", "loss"),
}  # fmt: skip


def metric_names(kind: str) -> tuple[str, ...]:
    """The metrics that exist for a task kind."""
    return _NAMES[kind]


def check_metric(name: str, kind: str) -> str:
    """`name`, where it is a metric of `kind`, or the one that it is another name for; raises InputError otherwise."""
    if kind != "regression":
        name = {"log_loss": "loss", "brier": "brier_score"}.get(name, name)
    if name not in _NAMES[kind]:
        raise InputError(
            f"unknown metric {name!r} for a {kind} task{suggestion(name, _NAMES[kind])} (--metric); known: "
            f"{', '.join(_NAMES[kind])}"
        )
    return name


def named(metric: str, positive: str | None) -> str:
    """The metric, with the class that it is of: "f1 of fraud"; `positive` is that of the task, None where it has none."""
    return f"{metric} of {plainly(positive)}" if positive is not None and metric in _OF_POSITIVE else metric


def probabilities(kind: str, logits: Tensor) -> Tensor:
    """Softmax (single_label), sigmoid (multi_label) of logits (N, C), or the logits themselves (regression), in float32."""
    logits = logits.float()
    return {"single_label": lambda: logits.softmax(-1), "multi_label": logits.sigmoid}.get(kind, lambda: logits)()


def scores(task: Task, logits: Tensor, labels: Tensor, only: str | None = None) -> dict[str, float]:
    """Every metric of the task's kind, or `only` one, for logits (N, C) and labels as `label_tensor` makes them.

    With two classes precision, recall, F1 and average precision are those of `task.positive`; with more they are macro averages
    over the classes that occur among the labels or the predictions (ROC AUC and average precision: each class against the rest,
    over those that some rows have and others not). For multi_label, accuracy asks that all classes of a row be right. The
    calibration error is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599): over 15 equal bins of confidence,
    the mean of |accuracy - confidence|, weighted by rows. The Brier score (1950) is half the mean over rows of the squared
    differences of probabilities from 0 and 1, summed over classes: with two classes it is that of one of them, and never above 1;
    for multi_label it is the mean over classes. The loss is the plain one, without class weights or smoothing: of classes the log
    loss. Raises ValueError for no rows.
    """
    if len(labels) == 0:
        raise ValueError("no rows to score")
    from .losses import TaskLoss

    wanted = _NAMES[task.kind] if only is None else (only,)
    found, truth, positive = {}, labels.numpy(), task.positive_index
    # The same loss for every run of a task, so that losses of differently weighted trainings can be compared.
    if "loss" in wanted:
        found["loss"] = float(TaskLoss(task.kind)(logits.float(), labels))
    if not {*wanted} <= {"loss", *_RANKING}:
        likely = probabilities(task.kind, logits).numpy()
        found |= {
            "single_label": lambda: _single_label(likely, truth, task),
            "multi_label": lambda: _multi_label(likely, truth, task.decision_rule),
            "regression": lambda: _regression(likely, truth),
        }[task.kind]()
    if not {*wanted}.isdisjoint(_RANKING):  # sorts all rows once a class
        found |= _ranking(_class_scores(task.kind, logits), truth, positive)
    return {name: float(found[name]) for name in wanted}


def confusion(task: Task, logits: Tensor, labels: Tensor) -> list[list[int]] | None:
    """Counts of true class (rows) by predicted class (columns); None where a row may have several classes or none."""
    if task.kind != "single_label":
        return None
    n = len(task.classes)
    # Each pair of true and predicted class is one number in base n.
    said = decided(task, probabilities(task.kind, logits).numpy())
    return np.bincount(labels.numpy() * n + said, minlength=n * n).reshape(n, n).tolist()


def per_class(task: Task, logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Precision, recall, F1 and rows of each class; empty for regression."""
    if task.kind == "regression":
        return []
    counts = _Counts.of(labels.numpy(), decided(task, probabilities(task.kind, logits).numpy()), len(task.classes))
    # Of all classes, those that do not occur included: a table of them has a line for each.
    columns = (counts.precision, counts.recall, counts.f1, counts.asked)
    rows = zip(task.classes, *(column.tolist() for column in columns), strict=True)
    return [{"class": c, "precision": p, "recall": r, "f1": f, "rows": n} for c, p, r, f, n in rows]


def decided(task: Task, likely: NDArray) -> NDArray:
    """The class of each row (N,), or for multi_label 1 for each class it is given (N, C)."""
    rule = task.decision_rule
    return rule.chosen(likely, task.positive_index) if task.kind == "single_label" else rule.given(likely)


def predicted_labels(task: Task, logits: Tensor) -> NDArray:
    """What is predicted, from logits (N, C): class numbers (N,), classes as 0 and 1 (N, C), or values (N,)."""
    likely = probabilities(task.kind, logits).numpy()
    if task.kind == "regression":
        # Nine significant digits are all that float32 holds, in whatever unit labels are; float64 would write seventeen.
        return np.array([float(f"{value:.9g}") for value in likely[:, 0]])
    return decided(task, likely)


@dataclass(frozen=True)
class _Counts:
    """How often each class was right, was predicted, and was asked for: three (C,) arrays of whole numbers."""

    right: NDArray
    predicted: NDArray
    asked: NDArray

    @classmethod
    def of(cls, truth: NDArray, predicted: NDArray, n_classes: int) -> _Counts:
        """From class numbers (N,), or from classes as 0 and 1 (N, C)."""
        if truth.ndim == 2:
            truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
            return cls((truth * predicted).sum(0), predicted.sum(0), truth.sum(0))
        right, said, asked = (
            np.bincount(each, minlength=n_classes) for each in (truth[truth == predicted], predicted, truth)
        )
        return cls(right, said, asked)

    @property
    def precision(self) -> NDArray:
        """(C,): of the predictions, the share that is right; 0 where there are none."""
        return self.right / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> NDArray:
        """(C,): of the rows that have the class, the share that is predicted so; 0 where there are none."""
        return self.right / np.maximum(self.asked, 1)

    @property
    def f1(self) -> NDArray:
        """(C,): the harmonic mean of both; 0 where a class is neither predicted nor asked for."""
        return 2 * self.right / np.maximum(self.predicted + self.asked, 1)

    def macro(self) -> tuple[float, float, float]:
        """Means of precision, recall and F1 over the classes that are predicted or asked for; 0 where there are none."""
        # A class that is neither has no score, and counts for nothing.
        present = self.predicted + self.asked > 0
        if not present.any():
            return 0.0, 0.0, 0.0
        precision, recall, f1 = (float(each[present].mean()) for each in (self.precision, self.recall, self.f1))
        return precision, recall, f1

    def total(self) -> _Counts:
        """Of all classes together, as if they were one: three (1,) arrays."""
        return _Counts(*(each.sum(keepdims=True) for each in (self.right, self.predicted, self.asked)))

    def matthews(self) -> float:
        """The correlation of true and predicted classes of N rows of one class each, R_K; 0 where either is all one class.

        Gorodkin 2004 (Computational Biology and Chemistry 28), equation 8; with two classes the coefficient of Matthews 1975.
        """
        n, predicted, asked = float(self.asked.sum()), self.predicted.astype(float), self.asked.astype(float)
        together = n * self.right.sum() - predicted @ asked
        alone = (n * n - predicted @ predicted) * (n * n - asked @ asked)
        return float(together / np.sqrt(alone)) if alone > 0 else 0.0


def decision_scores(task: Task, predicted: NDArray, truth: NDArray) -> dict[str, float]:
    """The metrics that are of decisions alone, of classes predicted and true: both numbers (N,), or 0 and 1 (N, C)."""
    if task.kind == "single_label":
        return _of_classes(predicted, truth, len(task.classes), task.positive_index)
    return _of_several(predicted, truth)


def _single_label(likely: NDArray, truth: NDArray, task: Task) -> dict[str, float]:
    """All metrics but the loss and those of the ranking, of probabilities (N, C) and class numbers (N,)."""
    # How sure the most probable class is; what is predicted at another threshold does not change that.
    error = calibration_error(likely.max(-1), likely.argmax(-1) == truth)
    return decision_scores(task, decided(task, likely), truth) | {
        "calibration_error": error,
        "brier_score": float(brier_by_row(likely, truth).mean()),
    }


def _of_classes(predicted: NDArray, truth: NDArray, n_classes: int, positive: int | None) -> dict[str, float]:
    """Of class numbers (N,)."""
    counts = _Counts.of(truth, predicted, n_classes)
    precision, recall, f1 = macro = counts.macro()
    # As GLUE's F1 (mrpc, qqp), where the positive class is the second one.
    if positive is not None:
        precision, recall, f1 = (float(each[positive]) for each in (counts.precision, counts.recall, counts.f1))
    return {
        "accuracy": float(np.mean(predicted == truth)),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "f1_macro": macro[2],
        "matthews": counts.matthews(),
    }


def _multi_label(likely: NDArray, truth: NDArray, rule: DecisionRule) -> dict[str, float]:
    """All metrics but the loss and those of the ranking, of probabilities (N, C) and classes as 0 and 1 (N, C)."""
    return _of_several(rule.given(likely), truth) | {
        # How sure each probability is, whichever way it goes; what is predicted at another threshold does not change that.
        "calibration_error": calibration_error(
            np.maximum(likely, 1 - likely).ravel(), (USUAL.given(likely) == truth).ravel()
        ),
        "brier_score": float(brier_by_row(likely, truth).mean()),
    }


def _of_several(predicted: NDArray, truth: NDArray) -> dict[str, float]:
    """Of classes as 0 and 1 (N, C): each class of each row is a decision of its own."""
    counts = _Counts.of(truth, predicted, truth.shape[1])
    precision, recall, f1 = counts.macro()
    return {
        "accuracy": float(np.mean((predicted == truth).all(-1))),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "f1_macro": f1,
        "f1_micro": float(counts.total().f1[0]),
    }


def _class_scores(kind: str, logits: Tensor) -> NDArray:
    """(N, C): what orders rows by how likely each class is; finer than a probability, which may be rounded to 1."""
    exact = logits.double()
    return (exact.log_softmax(-1) if kind == "single_label" else exact).numpy()


def _ranking(found: NDArray, truth: NDArray, positive: int | None) -> dict[str, float]:
    """ROC AUC and average precision of class scores (N, C): of the class `positive`, or the mean over classes."""
    has = truth > 0.5 if truth.ndim == 2 else truth[:, None] == np.arange(found.shape[1])  # (N, C)
    columns = [positive] if positive is not None else np.flatnonzero(has.any(0) & ~has.all(0)).tolist()
    # As others are 0 where they are undefined, so is ROC AUC one half, which is chance.
    areas = [roc_auc(found[:, c], has[:, c]) for c in columns] or [0.5]
    precisions = [average_precision(found[:, c], has[:, c]) for c in columns] or [0.0]
    return {"roc_auc": float(np.mean(areas)), "average_precision": float(np.mean(precisions))}


def roc_auc(found: NDArray, has: NDArray) -> float:
    """How often a row that has the class scores higher than one that has not, ties counting one half; 0.5 without either.

    From ranks, as the statistic of Mann and Whitney (1947): `found` are scores (N,), `has` says which rows have the class.
    """
    n, n_others = int(has.sum()), int((~has).sum())
    if not n or not n_others:
        return 0.5
    return float((ranks(found)[has].sum() - n * (n + 1) / 2) / (n * n_others))


def average_precision(found: NDArray, has: NDArray) -> float:
    """The mean over rows that have the class of the precision among all rows that score at least as high; 0 without any."""
    if not has.any():
        return 0.0
    order = np.argsort(-found, kind="stable")
    ordered = found[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each run of equal scores
    hits = has[order].cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / has.sum())


def _regression(values: NDArray, truth: NDArray) -> dict[str, float]:
    """All metrics but the loss, of predictions (N, 1) and true numbers (N,)."""
    predicted = values[:, 0].astype(np.float64)
    # A correlation with a constant is not defined; 0 says "no relation".
    related = {"pearson": pearson(predicted, truth), "spearman": spearman(predicted, truth)}
    return {
        **{name: 0.0 if math.isnan(value) else value for name, value in related.items()},
        "mean_absolute_error": float(np.abs(predicted - truth).mean()),
        "mean_squared_error": float(((predicted - truth) ** 2).mean()),
    }


def brier_by_row(likely: NDArray, truth: NDArray) -> NDArray:
    """(N,): what each row adds to the Brier score, of probabilities (N, C) and labels: class numbers (N,) or 0 and 1 (N, C)."""
    if truth.ndim == 2:
        return np.square(likely.astype(np.float64) - truth).mean(1)
    return np.square(likely.astype(np.float64) - (truth[:, None] == np.arange(likely.shape[1]))).sum(1) / 2


def interval_text(interval: Mapping[str, Any]) -> str:
    """The 95% confidence interval of a score in words, with how many rows it is of."""
    low, high, rows = interval["low"], interval["high"], counted(interval["rows"], "row")
    if low is None or high is None:
        return f"nothing is known of its confidence interval from {rows}"
    return f"95% confidence interval {figure(low)} to {figure(high)}, {rows}"


def figure(value: float) -> str:
    """A score or a loss in few digits: three decimals, fewer above 100, two significant digits below 0.0005."""
    if not math.isfinite(value):
        return str(value)
    # Below 0.0005 three decimals would show nothing but zeros.
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    decimals = next(d for limit, d in ((1e4, 0), (100, 1), (0, 3)) if abs(value) >= limit)
    return f"{value:,.{decimals}f}"


def calibration_error(confidence: NDArray, correct: NDArray, n_bins: int = 15) -> float:
    """The expected calibration error, from 0 to 1, of N confidences in [0, 1] and whether each was right."""
    # A confidence of exactly 1 belongs to the last bin.
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    # Summed by bin, accuracy minus confidence times its rows: the rows in the weight and in the mean cancel.
    gaps = np.bincount(bins, weights=correct.astype(float) - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))
