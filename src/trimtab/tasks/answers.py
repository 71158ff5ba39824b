"""Answer: what a tuned model says of one text."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .metrics import probabilities
from .task import Task


@dataclass(frozen=True)
class Answer:
    """A class name with each class's probability, the names of all classes present (multi_label), or a value (regression)."""

    label: str | tuple[str, ...] | None = None  # a tuple for multi_label, empty where no class is present
    probabilities: dict[str, float] | None = None  # by class name, in class order; None for regression
    value: float | None = None  # in the unit of the labels; None but for regression

    def as_json(self) -> dict[str, Any]:
        """Only what the kind of task has: label and probabilities, or value."""
        return (
            {"value": self.value}
            if self.value is not None
            else {"label": self.label, "probabilities": self.probabilities}
        )


def answers(task: Task, logits: Tensor) -> list[Answer]:
    """One Answer for each row of logits (N, C); a class is present in a multi_label row from a probability of 0.5."""
    likely = probabilities(task.kind, logits).tolist()
    if task.kind == "regression":
        return [Answer(value=row[0]) for row in likely]
    return [_answer(task, row) for row in likely]


def _answer(task: Task, likely: list[float]) -> Answer:
    """The Answer for one row's probabilities, which are in the order of the classes."""
    by_class = dict(zip(task.classes, likely, strict=True))
    if task.kind == "multi_label":
        return Answer(tuple(name for name, p in by_class.items() if p >= 0.5), by_class)
    # Of equally likely classes, max takes the first in class order.
    return Answer(max(by_class, key=by_class.__getitem__), by_class)
