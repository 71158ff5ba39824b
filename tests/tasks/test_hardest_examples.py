"""The rows a model gets most wrong, told so that a person finds them in the file."""

from dataclasses import replace

import pytest
import torch
from small import make_task

from trimtab.tasks.hardest_examples import hardest_mistakes
from trimtab.tasks.task import Rows

ROWS = Rows((["a cat", "a dog", "a fish", "a bird"],), [0, 1, 2, 0])
LOGITS = torch.tensor([[3.0, 0, 0], [2.0, 0, 0], [9.0, 0, 0], [0, 1.0, 0]])


def found_among(rows: Rows, **how: int) -> list[dict]:
    return hardest_mistakes(make_task(), rows, LOGITS, torch.tensor(rows.labels), **how)


def test_wrong_rows_the_worst_first() -> None:
    found = found_among(ROWS)
    assert [(entry["row"], entry["label"], entry["predicted"]) for entry in found] == [
        (3, "fish", "cat"), (2, "dog", "cat"), (4, "cat", "dog"),
    ]  # fmt: skip
    expected = torch.nn.functional.cross_entropy(LOGITS[2:3], torch.tensor([2])).item()
    assert found[0]["loss"] == pytest.approx(expected)
    assert found[0]["probability"] == pytest.approx(LOGITS[2].softmax(0)[0].item())
    assert len(found_among(ROWS, limit=2)) == 2


def test_rows_are_counted_as_their_source_counts_them() -> None:
    """Held-out rows of a file keep the numbers they have in it; a text file has lines."""
    found = found_among(replace(ROWS, numbers=[11, 25, 38, 40], unit="line"))
    assert [(entry["row"], entry["unit"]) for entry in found] == [(38, "line"), (25, "line"), (40, "line")]
    assert {entry["unit"] for entry in found_among(ROWS)} == {"row"}
