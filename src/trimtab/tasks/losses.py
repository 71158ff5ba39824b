"""The loss of each task kind, row by row, so that a batch may be split and still mean the same."""

import csv
import io
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .task import Rows, Task


@dataclass(frozen=True, eq=False)
class TaskLoss:
    """Cross-entropy (single_label), binary cross-entropy averaged over classes (multi_label) or squared error (regression).

    `class_weights` (C,) multiplies a row's loss by its class's weight (single_label) or the loss of present classes
    (multi_label). `label_smoothing` moves that share of the target to the uniform distribution (arXiv 1512.00567).
    """

    kind: str
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    # What training divides it by: the variance of a regression's labels, so that their unit does not matter.
    unit: float = 1.0

    def to(self, device: torch.device) -> "TaskLoss":
        """The same with its weights on `device`."""
        return self if self.class_weights is None else replace(self, class_weights=self.class_weights.to(device))

    def per_row(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses (B,) for float32 logits (B, C) and labels as `label_tensor` makes them."""
        if self.kind == "regression":
            return (logits.squeeze(-1) - labels) ** 2
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.kind == "multi_label":
            # Each class is a yes or no of its own, and the uniform distribution over these two gives 1/2.
            targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none").mean(1)
        # Not its own `weight`: with smoothing, that would weight the classes a row does not have as well.
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return losses if weights is None else losses * weights[labels]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What training makes small: the mean over rows, in `unit`."""
        return self.per_row(logits, labels).mean() / self.unit


def task_loss(task: Task, class_weights: str = "none", label_smoothing: float = 0.0) -> TaskLoss:
    """The TaskLoss of `task`; "balanced" weights each class by rows / (classes * rows of the class), from the train split.

    For multi_label, "balanced" weights present classes by absent / present rows. "fraud=10,legit=1" names weights of one's own.
    Raises InputError for regression, and for weights that are none.
    """
    if task.kind == "regression" and (class_weights != "none" or label_smoothing):
        raise InputError("class weights and label smoothing need classes; this task is a regression")
    weights = None
    if class_weights == "balanced":
        labels = label_tensor(task, task.train)
        if task.kind == "single_label":
            # At least 1: a declared class may have no row, and its weight would be infinite.
            counts = torch.bincount(labels, minlength=task.n_outputs).clamp(min=1)
            weights = len(labels) / (task.n_outputs * counts)
        else:
            present = labels.sum(0).clamp(min=1)
            weights = (len(labels) - present).clamp(min=1) / present
    elif class_weights != "none":
        weights = _named_weights(class_weights, task.classes)
    return TaskLoss(task.kind, weights, label_smoothing, task.standard_deviation**2)


def _named_weights(text: str, classes: tuple[str, ...]) -> Tensor:
    """Weights (C,) as "fraud=10,legit=1" names them, 1 for every other class; raises InputError for what is no weight.

    A name with a comma is written as in CSV: `"a, b"=10`.
    """
    weights = torch.ones(len(classes))
    seen = set()
    for part in next(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True), [""]):
        name, equals, number = (each.strip() for each in part.rpartition("="))
        if not equals:
            raise InputError(
                f"class weights must be none or balanced, or a weight for each class named (fraud=10,legit=1), not {text!r}"
            )
        if name not in classes:
            raise InputError(f"class weights: there is no class {name!r}; the classes are {', '.join(classes[:20])}")
        if name in seen:
            raise InputError(f"class weights: {name!r} is named twice; give each class one weight")
        seen.add(name)
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise InputError(f"class weights: {name}={number} must be a number above 0 and finite")
        weights[classes.index(name)] = weight
    return weights


def label_tensor(task: Task, rows: Rows) -> Tensor:
    """Labels as the loss takes them: int64 (N,) single_label, float32 (N, C) of 0 and 1 multi_label, float32 (N,) regression."""
    if task.kind == "regression":
        return torch.tensor(rows.labels, dtype=torch.float32)
    if task.kind == "single_label":
        return torch.tensor(rows.labels, dtype=torch.int64)
    labels = torch.zeros(len(rows), len(task.classes))
    for i, present in enumerate(rows.labels):
        labels[i, present] = 1.0
    return labels
