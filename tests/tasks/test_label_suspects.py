"""Likely label errors, as cleanlab finds them on the same probabilities; and planted ones."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.label_suspects import label_suspects, label_suspects_of_many, number_suspects


def noisy(seed: int, n: int = 400, n_classes: int = 3, rate: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a classifier that is right of most rows, labels of which some are wrong, and which."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, n_classes, n)
    logits = draw.normal(0, 1, (n, n_classes))
    logits[np.arange(n), true] += 2.5
    likely = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = draw.random(n) < rate
    labels = np.where(wrong, (true + draw.integers(1, n_classes, n)) % n_classes, true)
    return likely, labels, wrong


@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(0.0, 0.4))
def test_the_rows_are_those_of_cleanlab(seed: int, n_classes: int, rate: float) -> None:
    likely, labels, _ = noisy(seed, 200, n_classes, rate)
    if len(np.unique(labels)) < n_classes:
        return
    theirs = find_label_issues(labels, likely, filter_by="confident_learning", n_jobs=1)
    ours = label_suspects(likely, labels)
    assert sorted(each.row for each in ours) == np.flatnonzero(theirs).tolist()
    assert all(each.suggested != labels[each.row] for each in ours)
    assert [each.probability for each in ours] == sorted(each.probability for each in ours)


def test_planted_errors_are_found_with_what_was_there() -> None:
    likely, labels, wrong = noisy(0, 4000)
    found = label_suspects(likely, labels)
    rows = [each.row for each in found]
    assert wrong[rows].mean() > 0.6
    assert wrong[rows].sum() > 0.6 * wrong.sum()
    assert wrong[rows[:100]].mean() > 0.85  # the least probable come first


def test_a_class_without_rows_is_never_suggested() -> None:
    likely = np.array([[0.0, 0.1, 0.9], [0.0, 0.9, 0.1], [0.0, 0.8, 0.2], [0.0, 0.05, 0.95]])
    assert [each[:2] for each in label_suspects(likely, np.array([1, 1, 1, 1]))] == []


def test_of_several_classes_each_is_a_yes_or_no() -> None:
    draw = np.random.default_rng(0)
    true = draw.random((500, 3)) < 0.4
    likely = np.clip(np.where(true, 0.9, 0.1) + draw.normal(0, 0.03, true.shape), 0.01, 0.99)
    likely[[7, 40]] = np.where(true[[7, 40]], 0.99, 0.01)  # surer than most
    labels = true.astype(int)
    labels[7, 1] ^= 1
    labels[40] ^= 1
    found = {each.row: each.suggested for each in label_suspects_of_many(likely, labels)}
    assert found == {7: tuple(np.flatnonzero(true[7])), 40: tuple(np.flatnonzero(true[40]))}


def test_a_number_far_from_what_is_predicted() -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(0, 1, 300)
    predicted = labels + draw.normal(0, 0.1, 300)
    labels[3], labels[200] = labels[3] + 4, labels[200] - 2
    found = number_suspects(predicted, labels)
    assert [each.row for each in found[:2]] == [3, 200]
    assert found[0].distance == pytest.approx(40, rel=0.2)
    assert found[0].suggested == predicted[3]
    assert number_suspects(predicted, predicted) == []
