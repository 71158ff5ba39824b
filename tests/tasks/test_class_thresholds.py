"""Thresholds of classes: the highest F1 by a slow search, none of few positives, and a score of rows that did not choose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from small import make_task

from trimtab.errors import InputError
from trimtab.tasks.class_thresholds import FEW_POSITIVES, best_threshold, check_thresholds, chosen_by_class
from trimtab.tasks.decision_rule import USUAL, DecisionRule
from trimtab.tasks.metrics import confusion, decision_scores, predicted_labels, scores
from trimtab.tasks.predictions import predictions
from trimtab.tasks.task import Task
from trimtab.tasks.threshold import best_for_all

NAMES = ("cat", "dog", "fish")


def slow(likely: NDArray, truth: NDArray) -> list[tuple[float, float]]:
    """(threshold, F1) halfway between all neighbouring probabilities, from the highest down."""
    values = [*sorted(set(likely.tolist()), reverse=True), 0.0]
    middles = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False)]
    return [(t, f1_score(truth, likely >= t, zero_division=0)) for t in middles]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=60).filter(
        lambda rows: 1 <= sum(has for _, has in rows) <= 9
    )
)
def test_without_neighbours_it_has_the_highest_f1(rows: list[tuple[int, bool]]) -> None:
    likely, truth = np.array([p / 41 for p, _ in rows]), np.array([has for _, has in rows])
    every = slow(likely, truth)
    best = max(f1 for _, f1 in every)
    nearest = min((t for t, f1 in every if f1 >= best - 1e-12), key=lambda t: abs(t - 0.5))
    assert best_threshold(likely, truth) == pytest.approx(nearest)


def test_the_mean_over_neighbours_is_taken() -> None:
    likely, truth = drawn(400, 0)
    likely, truth = likely[:, 0], truth[:, 0]
    every = slow(likely, truth)
    reach = int(truth.sum()) // 10
    f1 = [f for _, f in every]
    smooth = [float(np.mean(f1[max(0, i - reach) : i + reach + 1])) for i in range(len(f1))]
    best = [every[i][0] for i in range(len(f1)) if smooth[i] >= max(smooth) - 1e-12]
    found = best_threshold(likely, truth)
    assert found == pytest.approx(min(best, key=lambda t: abs(t - 0.5)))
    assert dict(every)[found] > max(f1) - 0.03


def drawn(n: int, seed: int, shifts: tuple[float, ...] = (-1.0, -2.0, -3.5)) -> tuple[NDArray, NDArray]:
    """Probabilities that are too low, by class, and classes (n, 3)."""
    generator = np.random.default_rng(seed)
    true = generator.normal(0, 2, (n, 3)) + np.array([0, -1, -3.0])
    truth = (generator.random((n, 3)) < 1 / (1 + np.exp(-true))).astype(np.float32)
    return 1 / (1 + np.exp(-(true + np.array(shifts)))), truth


def test_each_class_with_positives_has_its_own() -> None:
    likely, truth = drawn(600, 1)
    assert truth.sum(0).min() >= FEW_POSITIVES
    chosen = chosen_by_class("f1_macro", likely, truth, USUAL, NAMES)
    assert chosen.decision_rule.thresholds == tuple(best_threshold(likely[:, k], truth[:, k]) for k in range(3))
    assert "3 of 3 classes have thresholds of their own" in chosen.reason
    given_now = chosen.decision_rule.given(likely)
    assert f1_score(truth, given_now, average="macro") > f1_score(truth, likely >= 0.5, average="macro")


def test_a_class_of_few_positives_has_that_of_all() -> None:
    likely, truth = drawn(600, 1)
    truth[np.flatnonzero(truth[:, 2])[FEW_POSITIVES - 1 :], 2] = 0
    chosen = chosen_by_class("f1_macro", likely, truth, USUAL, NAMES)
    assert chosen.decision_rule.thresholds is not None
    assert chosen.decision_rule.thresholds[2] == best_for_all("f1_macro", likely, truth, USUAL)
    assert "2 of 3 classes" in chosen.reason
    assert "fewer than 20 validation rows" in chosen.reason


def test_no_row_is_scored_by_thresholds_that_it_chose() -> None:
    likely, truth = drawn(300, 2)
    chosen = chosen_by_class("f1_macro", likely, truth, USUAL, NAMES)
    assert chosen.left_out is not None
    assert chosen.left_out.shape == (2, 300, 3)
    # The same folds again, one of them by hand.
    fold = np.random.default_rng(0).permutation(300) % 5
    others = fold != 0
    own = [best_threshold(likely[others, k], truth[others, k]) for k in range(3)]
    assert (chosen.left_out[0][fold == 0] == (likely[fold == 0] >= np.array(own))).all()


def test_what_brings_nothing_is_not_taken() -> None:
    truth = np.tile(np.eye(3, dtype=np.float32), (40, 1))
    chosen = chosen_by_class("f1_macro", np.where(truth, 0.9, 0.1), truth, USUAL, NAMES)
    assert chosen.decision_rule == USUAL
    assert chosen.left_out is None
    assert "stay 0.5" in chosen.reason


def binary(threshold: float, positive: str = "cat") -> Task:
    task = make_task()
    return replace(
        task,
        classes=("cat", "dog"),
        decision_rule=DecisionRule(threshold),
        reading=replace(task.reading, positive=positive),
    )


@pytest.mark.parametrize("positive", ["cat", "dog"])
def test_two_classes_have_that_of_the_positive_one(positive: str) -> None:
    logits, truth = torch.tensor([[0.0, 2.0], [0.0, 0.5], [1.0, 0.0], [3.0, 0.0]]), torch.tensor([1, 0, 1, 0])
    for threshold in (0.2, 0.5, 0.8):
        task = binary(threshold, positive)
        at = task.classes.index(positive)
        over = logits.softmax(-1)[:, at].numpy() >= threshold
        expected = np.where(over, at, 1 - at)
        assert (predicted_labels(task, logits) == expected).all()
        assert [each.label for each in predictions(task, logits)] == [task.classes[i] for i in expected]
        found = scores(task, logits, truth)
        assert found["f1"] == pytest.approx(f1_score(truth, expected, pos_label=at))
        assert found["f1"] == decision_scores(task, expected, truth.numpy())["f1"]
        assert np.trace(np.array(confusion(task, logits, truth))) == (expected == truth.numpy()).sum()
        assert Task.from_description(task.description()).decision_rule == DecisionRule(threshold)
    assert (
        scores(binary(0.2), logits, truth)["calibration_error"]
        == scores(binary(0.5), logits, truth)["calibration_error"]
    )


def test_a_description_keeps_them_and_rows_without_an_answer() -> None:
    rule = DecisionRule(0.5, True, (0.1, 0.2, 0.9))
    task = replace(make_task("multi_label"), decision_rule=rule)
    assert Task.from_description(task.description()).decision_rule == rule
    assert "thresholds" not in make_task("multi_label").description()
    unsure = replace(make_task(), decision_rule=DecisionRule(abstain_below=0.7))
    assert Task.from_description(unsure.description()).decision_rule == unsure.decision_rule
    answer, none = predictions(unsure, torch.tensor([[5.0, 0, 0], [0.2, 0, 0]]))
    assert (answer.label, answer.best_guess) == ("cat", None)
    assert (none.label, none.best_guess, none.guess) == (None, "cat", "cat")
    assert list(none.as_json()) == ["label", "best_guess", "probabilities"]
    assert "best_guess" not in answer.as_json()


def test_what_cannot_have_them_is_refused() -> None:
    labels = [[0], [1]] * 30
    check_thresholds("multi_label", ("a", "b"), None, labels, "f1")
    check_thresholds("multi_label", ("a", "b", "c"), None, labels, None)
    for kind, classes, positive, given_labels, said in (
        ("multi_label", ("a", "b", "c"), None, labels, r"no validation row has the class 'c'"),
        ("multi_label", ("a", "b"), None, labels[:49], "need 50 validation rows, and there are 49"),
        ("single_label", ("a", "b"), 1, [0] * 60, r"no validation row is 'b'"),
        ("single_label", ("a", "b", "c"), None, [0, 1, 2] * 30, "multi_label tasks and for two classes"),
        ("regression", (), None, [0.5] * 60, "a regression has no classes"),
    ):
        with pytest.raises(InputError, match=said):
            check_thresholds(kind, classes, positive, given_labels, "f1")
