"""What the curves say, in plain words."""

from dataclasses import replace

import pytest
import torch
from small import make_task

from trimtab.results.checkpoint import Progress
from trimtab.training.diagnostics import plain_notes

TASK, VARIED, LABELS = make_task(), torch.eye(3), torch.arange(3)  # outputs and labels of every class


def progress(rows, best_step):
    history = [{"step": 0, "train_loss": None, "validation_loss": 0.7, "scores": {"accuracy": 0.5}}]
    history += [
        {"step": 10 * (i + 1), "train_loss": train, "validation_loss": validation, "scores": {"accuracy": score}}
        for i, (train, validation, score) in enumerate(rows)
    ]
    return Progress(step=history[-1]["step"], best_step=best_step, history=history)


def test_losses_that_part_are_called_overfitting():
    state = progress([(0.6, 0.5, 0.8), (0.4, 0.45, 0.82), (0.1, 0.7, 0.81)], best_step=20)
    notes = plain_notes(state, None, TASK, VARIED, LABELS, 30)
    assert len(notes) == 1
    assert notes[0].startswith("Overfitting: after step 20")
    assert "step 20, the best on validation, are kept" in notes[0]


def test_losses_that_fall_together_are_not():
    state = progress([(0.6, 0.5, 0.8), (0.4, 0.45, 0.805)], best_step=20)
    assert plain_notes(state, None, TASK, VARIED, LABELS, 20) == []


def test_scores_that_still_rise_ask_for_more_epochs():
    state = progress([(0.6, 0.5, 0.7), (0.4, 0.45, 0.8)], best_step=20)
    assert "more epochs may help" in plain_notes(state, None, TASK, VARIED, LABELS, 20)[0]


def test_why_it_stopped():
    state = progress([(0.6, 0.5, 0.8)], best_step=10)
    assert "Interrupted after step 10 of 30" in plain_notes(state, "interrupted", TASK, VARIED, LABELS, 30)[0]
    assert "Stopped early" in plain_notes(state, "early", TASK, VARIED, LABELS, 30)[0]


@pytest.mark.parametrize(("after", "said"), [([0.4, 0.3], True), ([0.4, 0.5], False), ([0.6, 0.4], False)])
def test_scores_that_fell_below_the_start(after: list[float], said: bool) -> None:
    history = [
        {"step": step, "scores": {"accuracy": score}, "train_loss": 1.0, "validation_loss": 1.0}
        for step, score in enumerate([0.5, *after])
    ]
    state = Progress(step=2, best_step=1, history=history)
    assert any("worse than it was before" in note for note in plain_notes(state, None, TASK, VARIED, LABELS, 2)) == said


def test_one_prediction_for_everything_is_said() -> None:
    state = progress([(0.6, 0.5, 0.6), (0.4, 0.45, 0.605)], best_step=20)
    constant = torch.tensor([[0.1, 0.9, 0.2], [0.0, 3.0, 1.0]])
    (note,) = plain_notes(state, None, TASK, constant, torch.tensor([0, 1]), 20)
    assert note.startswith(
        f"The prediction for every validation row is {TASK.classes[1]!r}, so the scores are those of a constant"
    )
    assert plain_notes(state, None, TASK, constant, torch.tensor([1, 1]), 20) == [], "rows of one class tell nothing"


@pytest.mark.parametrize(
    ("kind", "logits", "labels", "prediction"),
    [
        ("regression", [[2.5], [2.5]], [0.0, 1.0], "2.500"),
        ("multi_label", [[-1.0, -2.0, -3.0], [-2.0, -1.0, -5.0]], [[0, 0, 1], [1, 0, 0]], "no class"),
        ("multi_label", [[1.0, -2.0, 3.0], [2.0, -1.0, 5.0]], [[0, 0, 1], [1, 0, 0]], "'cat', 'fish'"),
        ("regression", [[2.5], [2.6]], [0.0, 1.0], None),
        ("multi_label", [[1.0, -2.0, 3.0], [2.0, 1.0, 5.0]], [[0, 0, 1], [1, 0, 0]], None),
        ("multi_label", [[1.0, -2.0, 3.0], [2.0, -1.0, 5.0]], [[0, 0, 1], [0, 0, 1]], None),
    ],
)
def test_one_prediction_for_everything_is_said_of_every_kind(
    kind: str, logits: list, labels: list, prediction: str | None
) -> None:
    state = progress([(0.6, 0.5, 0.6), (0.4, 0.45, 0.605)], best_step=20)
    task = replace(make_task(kind), metric="accuracy")
    notes = plain_notes(state, None, task, torch.tensor(logits), torch.tensor(labels, dtype=torch.float32), 20)
    if prediction is None:
        assert notes == []
    else:
        assert notes[0].startswith(f"The prediction for every validation row is {prediction}, so")


def test_a_probe_that_no_step_beat_is_no_failure_of_training() -> None:
    history = [
        {"step": step, "scores": {"accuracy": score}, "train_loss": 1.0, "validation_loss": 1.0}
        for step, score in enumerate([0.5, 0.4])
    ]
    state = Progress(step=1, best_step=0, history=history)
    (note,) = plain_notes(state, None, TASK, VARIED, LABELS, 1, start="a linear probe of the frozen encoder")
    assert note.startswith("No step has a better accuracy than a linear probe of the frozen encoder")
    assert "`--method head` finds it" in note
    (note,) = plain_notes(state, None, TASK, VARIED, LABELS, 1, start="the checkpoint's own head")
    assert note.startswith("No step has a better accuracy than the checkpoint's own head")
    assert "--method head" not in note
