"""The threshold of a multi-label task: who is given which class, and how one threshold is chosen on the validation rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from small import make_task

from trimtab.errors import InputError
from trimtab.tasks.decision_rule import AUTO, USUAL, DecisionRule, checked_threshold, decision_rule_for
from trimtab.tasks.hardest_examples import hardest_mistakes
from trimtab.tasks.metrics import per_class, predicted_labels, scores
from trimtab.tasks.predictions import predictions
from trimtab.tasks.task import Rows, Task
from trimtab.tasks.threshold import FEW_ROWS, _f1, chosen_rule

LIKELY = torch.tensor([[0.9, 0.4, 0.1], [0.3, 0.2, 0.1], [0.6, 0.7, 0.35]])
LOGITS, TRUTH = LIKELY.logit(), torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 1, 1]])


def task_with(threshold: float = 0.5, *, at_least_one: bool = False) -> Task:
    return replace(make_task("multi_label"), decision_rule=DecisionRule(threshold, at_least_one))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (task_with(), [[1, 0, 0], [0, 0, 0], [1, 1, 0]]),
        (task_with(at_least_one=True), [[1, 0, 0], [1, 0, 0], [1, 1, 0]]),
        (task_with(0.32), [[1, 1, 0], [0, 0, 0], [1, 1, 1]]),
        (task_with(0.95, at_least_one=True), [[1, 0, 0], [1, 0, 0], [0, 1, 0]]),
    ],
)
def test_every_answer_goes_by_the_task(task: Task, expected: list[list[int]]) -> None:
    assert predicted_labels(task, LOGITS).tolist() == expected
    names = [tuple(name for name, has in zip(task.classes, row, strict=True) if has) for row in expected]
    assert [prediction.label for prediction in predictions(task, LOGITS)] == names
    found, truth = scores(task, LOGITS, TRUTH), TRUTH.numpy()
    assert found["f1_micro"] == pytest.approx(f1_score(truth, np.array(expected), average="micro"))
    assert found["accuracy"] == np.mean((np.array(expected) == truth).all(1))
    by_class = f1_score(truth, np.array(expected), average=None, zero_division=0)
    assert [row["f1"] for row in per_class(task, LOGITS, TRUTH)] == pytest.approx(list(by_class))
    rows = Rows((["a", "b", "c"],), [[0, 1], [0], [1, 2]])
    wrong = {i + 1 for i in range(3) if expected[i] != TRUTH[i].tolist()}
    assert {entry["row"] for entry in hardest_mistakes(task, rows, LOGITS, TRUTH)} == wrong


def test_what_does_not_depend_on_the_threshold_stays() -> None:
    usual, other = (scores(task, LOGITS, TRUTH) for task in (task_with(), task_with(0.3, at_least_one=True)))
    for name in ("loss", "roc_auc", "average_precision", "calibration_error"):
        assert usual[name] == other[name]


def test_a_description_keeps_it_and_an_older_one_has_the_usual() -> None:
    described = task_with(0.31, at_least_one=True).description()
    assert Task.from_description(described).decision_rule == DecisionRule(0.31, True)
    older = {name: value for name, value in described.items() if name not in ("threshold", "at_least_one")}
    assert Task.from_description(older).decision_rule == USUAL
    assert "threshold" not in make_task().description()


@pytest.mark.parametrize("value", [0, 1, -0.2, 1.5, float("nan"), "", "half"])
def test_what_is_no_threshold_is_refused(value: float | str) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        checked_threshold(value)


def test_a_text_is_a_number() -> None:
    assert (checked_threshold("0.3"), checked_threshold(AUTO), checked_threshold(None)) == (0.3, AUTO, None)


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_other_kinds_have_none(kind: str) -> None:
    with pytest.raises(InputError, match=r"threshold is for multi_label tasks.*--threshold"):
        decision_rule_for(kind, 0.5, False)
    with pytest.raises(InputError, match=r"at_least_one is for multi_label tasks.*--at-least-one"):
        decision_rule_for(kind, None, True)
    assert decision_rule_for(kind, None, False) == USUAL


def drawn(n: int, *, logit_of_half: float, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Probabilities and classes (n, 3), where a class that is as likely as not has the logit `logit_of_half`."""
    generator = np.random.default_rng(seed)
    true = generator.normal(0, 2, (n, 3)) - 1
    truth = (generator.random((n, 3)) < 1 / (1 + np.exp(-true))).astype(np.float32)
    return 1 / (1 + np.exp(-(true + logit_of_half))), truth


@pytest.mark.parametrize("metric", ["f1_macro", "f1_micro", "accuracy"])
def test_the_chosen_one_has_the_highest_f1(metric: str) -> None:
    likely, truth = drawn(400, logit_of_half=-2.0)
    chosen = chosen_rule(metric, likely, truth, USUAL)
    average = "micro" if metric == "f1_micro" else "macro"
    found = {
        t: f1_score(truth, likely >= t, average=average, zero_division=0) for t in (i / 100 for i in range(1, 100))
    }
    assert found[chosen.decision_rule.threshold] == max(found.values())
    assert chosen.decision_rule.threshold < 0.3
    assert "in place of 0.5" in chosen.reason


def test_at_least_one_is_kept_and_counted_when_one_is_chosen() -> None:
    likely, truth = drawn(400, logit_of_half=-2.0)
    usual = DecisionRule(at_least_one=True)
    chosen = chosen_rule("f1_macro", likely, truth, usual).decision_rule
    assert chosen.at_least_one
    f1 = [f1_score(truth, replace(usual, threshold=t).given(likely), average="macro") for t in (chosen.threshold, 0.5)]
    assert f1[0] > f1[1]


def test_few_rows_and_small_gains_keep_one_half() -> None:
    few = chosen_rule("f1_macro", *drawn(FEW_ROWS - 1, logit_of_half=-2.0), USUAL)
    assert few.decision_rule == USUAL
    assert "too few" in few.reason
    # So that one half is about the best there is: what is better on these rows is so by chance.
    for seed in range(4):
        noisy = chosen_rule("f1_macro", *drawn(200, logit_of_half=0.8, seed=seed), USUAL)
        assert noisy.decision_rule == USUAL
        assert "less than its standard error" in noisy.reason


def test_without_a_better_one_it_says_so() -> None:
    truth = np.tile(np.eye(2, dtype=np.float32), (40, 1))
    chosen = chosen_rule("f1_micro", np.where(truth, 0.9, 0.1), truth, USUAL)
    assert chosen.decision_rule == USUAL
    assert "no other has a higher F1" in chosen.reason


def test_f1_from_counts_is_that_of_the_scores() -> None:
    given, truth = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[1, 1, 0], [0, 1, 0]])
    counts = (given * truth).sum(0), given.sum(0), truth.sum(0)
    found = scores(make_task("multi_label"), torch.tensor(given * 2.0 - 1), torch.tensor(truth).float())
    assert [float(_f1(name, *counts)) for name in ("f1_macro", "f1_micro")] == [found["f1_macro"], found["f1_micro"]]
