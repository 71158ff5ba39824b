"""The rows a model gets most wrong: often mislabelled or ambiguous, and always worth reading."""

from typing import Any

from torch import Tensor

from .losses import TaskLoss
from .predictions import predictions
from .task import Rows, Task


def hardest_mistakes(task: Task, rows: Rows, logits: Tensor, labels: Tensor, limit: int = 20) -> list[dict[str, Any]]:
    """The wrongly predicted rows of highest loss (all rows count as wrong in a regression), as JSON values.

    `row` is the number in the source, where that is known, as `unit` counts it, else the one in the split, from 1; logits are
    (N, C) and labels as `label_tensor` makes them.
    """
    # The plain loss, as in the scores, whatever the training weighted.
    losses = TaskLoss(task.kind).per_row(logits, labels)
    found = []
    # From the highest loss down, passing over rows whose prediction is right all the same.
    for i in losses.argsort(descending=True).tolist():
        mistake = _mistake(task, rows[i], logits[i : i + 1])
        if mistake["label"] != mistake["predicted"]:
            number = i + 1 if rows.numbers is None else rows.numbers[i]
            found.append({"row": number, "unit": rows.unit, **mistake, "loss": float(losses[i])})
        if len(found) == limit:
            break
    return found


def _mistake(task: Task, row: dict[str, Any], logits: Tensor) -> dict[str, Any]:
    """The texts of a row with its label, what was predicted, and how sure the model was of that; logits (1, C)."""
    # `row` was made for this call, so no row loses its label by this.
    prediction, label = predictions(task, logits)[0], row.pop("label")
    if task.kind == "regression":
        return row | {"label": label, "predicted": prediction.value, "probability": None}
    assert prediction.probabilities is not None
    # Each class is a decision of its own there, so no one probability is that of the prediction.
    if task.kind == "multi_label":
        return row | {
            "label": [task.classes[i] for i in label],
            "predicted": list(prediction.label or ()),
            "probability": None,
        }
    guess = prediction.guess
    assert isinstance(guess, str)
    return row | {
        "label": task.classes[label],
        "predicted": guess,
        "probability": prediction.probabilities[guess],
    }
