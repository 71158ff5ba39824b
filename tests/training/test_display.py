"""What is said of the time that a fit takes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trimtab.training.display import Display
from trimtab.training.steps import Step, Validation


def told(
    capsys: pytest.CaptureFixture[str],
    total: int,
    every: int,
    each: float,
    begun: int = 0,
    validation_seconds: float = 3.0,
) -> list[str]:
    """The lines on how long it takes, of a run of `total` steps from step `begun` on, validated after every `every` steps."""
    bench: Any = SimpleNamespace(
        total_steps=total, validation_due=lambda step: step % every == 0 or step == total, start_named="a probe",
        judged_by="accuracy", task=SimpleNamespace(metric="accuracy", positive=None),
    )  # fmt: skip
    display = Display(True)
    display._bench = bench  # as Begun brings it, with all that is said of a real one

    def validated(step: int) -> Validation:
        scores = {"accuracy": 0.5, "loss": 1.0}
        return Validation(step, 0.0, scores, 1.0, 0.1, 0.0, validation_seconds, True, 0, torch.zeros(1, 2))

    if not begun:
        display.show(validated(0))
    for step in range(begun + 1, total + 1):
        display.show(Step(step, 0.0, 1.0, step, step * each))
        if bench.validation_due(step):
            display.show(validated(step))
    return [line for line in capsys.readouterr().err.splitlines() if "to go" in line]


@pytest.mark.parametrize("every", [1, 9, 10, 27])
def test_it_is_told_once_how_long_the_rest_takes(capsys: pytest.CaptureFixture[str], every: int) -> None:
    (line,) = told(capsys, 27, every, 1.0, validation_seconds=3.0)
    left = 18 + 3 * sum(step % every == 0 or step == 27 for step in range(9, 28))
    assert line == f"about {left} s to go: 1 s a step, 3 s a validation"


def test_few_slow_steps_are_timed_by_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = told(capsys, 6, 6, 60.0, validation_seconds=30.0)
    assert (
        line == "about 4 min to go: 60 s a step, 30 s a validation"
    )  # behind the second step: 4 more, and a validation


def test_what_is_over_soon_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, 12, 12, 0.1, validation_seconds=0.1) == []


def test_a_resumed_run_counts_validations_whose_seconds_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = told(capsys, 120, 20, 1.0, begun=40)
    assert line == "about 71 s to go, and 4 validations: 1 s a step"
