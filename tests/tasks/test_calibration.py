"""A temperature: the one of the lowest log-loss, by a slow search; no class changes by it; and who has none."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from small import make_task

from trimtab.errors import InputError
from trimtab.tasks.calibration import (
    COLDEST,
    HOTTEST,
    best_temperature,
    check_calibrates,
    confidences,
    reliability,
)
from trimtab.tasks.losses import TaskLoss
from trimtab.tasks.metrics import calibration_error, predicted_labels, probabilities


def drawn(kind: str, n: int, temperature: float, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Logits (n, 3) whose probabilities are those of the labels once they are divided by `temperature`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 3))
    if kind == "multi_label":
        truth = (generator.random((n, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    else:
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = np.array([generator.choice(3, p=row) for row in p])
    return (logits * temperature).astype(np.float32), truth


def loss(kind: str, logits: NDArray, truth: NDArray, temperature: float) -> float:
    labels = torch.tensor(truth, dtype=torch.float64 if kind == "multi_label" else torch.int64)
    return float(TaskLoss(kind)(torch.tensor(logits, dtype=torch.float64) / temperature, labels))


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize("true", [0.5, 0.9, 1.7, 3.0])
def test_it_is_the_one_of_the_lowest_loss(kind: str, true: float) -> None:
    logits, truth = drawn(kind, 300, true)
    found = best_temperature(logits, truth)
    slow = minimize_scalar(
        lambda t: loss(kind, logits, truth, t), bounds=(COLDEST, HOTTEST), method="bounded", options={"xatol": 1e-7}
    )
    assert found == pytest.approx(slow.x, rel=5e-3)  # of three digits
    assert found == pytest.approx(true, rel=0.25)
    grid = np.linspace(COLDEST, HOTTEST, 200)
    assert loss(kind, logits, truth, found) <= min(loss(kind, logits, truth, t) for t in grid) + 1e-5


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_it_stays_within_its_bounds(kind: str) -> None:
    for true, end in ((20.0, HOTTEST), (0.05, COLDEST)):
        assert best_temperature(*drawn(kind, 300, true)) == end


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_rows_without_a_mistake_make_nothing_surer(kind: str) -> None:
    logits = np.random.default_rng(0).normal(0, 0.3, (80, 3)).astype(np.float32)
    truth = logits.argmax(1) if kind == "single_label" else (logits >= 0).astype(np.float32)
    assert best_temperature(logits, truth) == 1.0
    wrong = truth.copy()
    wrong[0] = 1 - wrong[0] if kind == "multi_label" else (truth[0] + 1) % 3
    assert best_temperature(logits, wrong) < 1.0


@given(
    st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
    st.floats(COLDEST, HOTTEST),
    st.sampled_from(["single_label", "multi_label"]),
)
def test_no_class_changes(rows: list[list[float]], temperature: float, kind: str) -> None:
    # Rounding apart: of two logits that differ in the last digit either may be the larger one.
    logits = (torch.tensor(rows) * 64).round() / 64
    task = make_task(kind)
    assert (predicted_labels(task, logits / temperature) == predicted_labels(task, logits)).all() or (
        probabilities(kind, logits).max() > 1 - 1e-6  # where several are rounded to the same probability
    )
    assert ((logits / temperature).argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_the_diagram_is_that_of_the_error(kind: str) -> None:
    logits, truth = drawn(kind, 200, 2.0)
    sure, right = confidences(probabilities(kind, torch.tensor(logits)).numpy(), truth)
    bins = reliability(sure, right)
    assert sum(each["decisions"] for each in bins) == len(sure) == truth.size
    gaps = sum(each["decisions"] * abs(each["right"] - each["confidence"]) for each in bins)
    assert gaps / len(sure) == pytest.approx(calibration_error(sure, right), abs=1e-6)
    assert all(0 <= each["right"] <= 1 for each in bins)
    assert [each["confidence"] for each in bins] == sorted(each["confidence"] for each in bins)


def test_few_rows_and_numbers_have_none() -> None:
    with pytest.raises(InputError, match="needs 50 validation rows, and there are 49"):
        check_calibrates("single_label", 49, True)
    with pytest.raises(InputError, match="regression"):
        check_calibrates("regression", 500, True)
    assert [check_calibrates("multi_label", n, None) for n in (49, 50)] == [False, True]
    assert not check_calibrates("single_label", 500, False)
    assert not check_calibrates("regression", 500, None)
