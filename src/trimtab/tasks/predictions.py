"""Prediction: what a tuned model says of one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .metrics import decided, probabilities
from .task import Task

# Not before there are logits: a client has predictions without it.
if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """A class name with each class's probability, the names of all classes present (multi_label), or a value (regression)."""

    label: str | tuple[str, ...] | None = None  # a tuple for multi_label, empty where no class is present
    probabilities: dict[str, float] | None = None  # by class name, in class order; None for regression
    value: float | None = None  # in the unit of the labels; None but for regression
    best_guess: str | None = None  # the class that `label` would be, where the row is too unsure for an answer

    @property
    def guess(self) -> str | tuple[str, ...] | None:
        """The label, or of a row without an answer the best guess."""
        return self.label if self.best_guess is None else self.best_guess

    def as_json(self) -> dict[str, Any]:
        """Only what the kind of task has: label and probabilities (without an answer best_guess too), or value."""
        if self.value is not None:
            return {"value": self.value}
        guess = {} if self.best_guess is None else {"best_guess": self.best_guess}
        return {"label": self.label, **guess, "probabilities": self.probabilities}


def predictions(task: Task, logits: Tensor) -> list[Prediction]:
    """One Prediction for each row of logits (N, C); which classes are present in a multi_label row, the task says."""
    likely = probabilities(task.kind, logits)
    if task.kind == "regression":
        return [Prediction(value=row[0]) for row in likely.tolist()]
    given, answers = decided(task, likely.numpy()).tolist(), task.decision_rule.answers(likely.numpy()).tolist()
    return [_prediction(task, *row) for row in zip(likely.tolist(), given, answers, strict=True)]


def _prediction(task: Task, likely: list[float], given: int | list[int], answers: bool) -> Prediction:
    """The Prediction for one row's probabilities, in the order of the classes, and what `decided` makes of them."""
    by_class = dict(zip(task.classes, likely, strict=True))
    if isinstance(given, list):
        return Prediction(tuple(name for name, has in zip(task.classes, given, strict=True) if has), by_class)
    name = task.classes[given]
    return Prediction(name, by_class) if answers else Prediction(None, by_class, best_guess=name)
