"""Confidence intervals of scores, against known values, scipy's, and simulation."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from trimtab.tasks.metrics import interval_text, metric_names, scores
from trimtab.tasks.score_interval import score_interval, wilson
from trimtab.tasks.task import Rows, Task


def task_of(kind: str, metric: str, classes: tuple[str, ...] = ("a", "b")) -> Task:
    rows = Rows((["one"],), [None])
    return Task(
        name="t", kind=kind, classes=classes if kind != "regression" else (), text_columns=("text",), label_column="label",
        metric=metric, splits={"train": rows},
    )  # fmt: skip


def logits_of(predicted: list[int]) -> torch.Tensor:
    """Sure of `predicted`."""
    return torch.eye(2)[predicted] * 8 - 4


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (1, 8), (8, 8), (250, 300)])
def test_accuracy_has_wilsons_interval(hits: int, n: int):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high))
    truth = torch.zeros(n, dtype=torch.long)
    found = score_interval(task_of("single_label", "accuracy"), logits_of([0] * hits + [1] * (n - hits)), truth)
    assert found == pytest.approx((expected.low, expected.high))


def test_all_rows_right_are_no_proof_of_a_perfect_f1():
    truth = torch.tensor([0, 1] * 4)
    low, high = score_interval(task_of("single_label", "f1_macro"), logits_of(truth.tolist()), truth)
    assert high == 1.0
    assert low == pytest.approx(wilson(8, 8)[0])


def test_a_correlations_interval_is_near_fishers():
    """atanh(r) has a standard error of 1 / sqrt(n - 3) (Fisher 1915)."""
    draw = np.random.default_rng(0)
    truth = draw.normal(size=400)
    values = truth + draw.normal(size=400)
    logits = torch.tensor(values, dtype=torch.float32)[:, None]
    found = score_interval(task_of("regression", "pearson"), logits, torch.tensor(truth, dtype=torch.float32))
    z = np.arctanh(np.corrcoef(values, truth)[0, 1])
    expected = np.tanh([z - 1.96 / np.sqrt(397), z + 1.96 / np.sqrt(397)])
    assert found == pytest.approx(expected, abs=0.02)


def test_an_error_in_a_unit_has_an_interval_around_it():
    truth = torch.zeros(50)
    logits = torch.linspace(1, 3, 50)[:, None]
    low, high = score_interval(task_of("regression", "mean_absolute_error"), logits, truth)
    assert 1.7 < low < 2.0 < high < 2.3


def test_a_score_that_no_resample_moves_is_not_sure_for_that():
    truth = torch.full((6,), 2.0)
    low, high = score_interval(task_of("regression", "pearson"), torch.linspace(0, 1, 6)[:, None], truth)
    assert (low, high) == pytest.approx((wilson(6, 6)[0] - 1, 1 - wilson(6, 6)[0]))


@pytest.mark.parametrize("n", [1, 3])
def test_an_error_that_no_resample_moves_says_nothing_of_other_rows(n: int):
    logits = torch.full((n, 1), 0.25)  # off by the same in every row
    low, high = score_interval(task_of("regression", "mean_absolute_error"), logits, torch.zeros(n))
    assert (low, high) == (0.0, float("inf"))
    said = interval_text({"low": low, "high": None, "rows": n})
    assert said == f"nothing is known of its confidence interval from {n} row{'s' if n > 1 else ''}"


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_a_metric_alone_is_what_it_is_among_all(kind: str):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 1 if kind == "regression" else 2, generator=draw)
    labels = {
        "single_label": lambda: torch.randint(0, 2, (40,), generator=draw),
        "multi_label": lambda: torch.randint(0, 2, (40, 2), generator=draw).float(),
        "regression": lambda: torch.randn(40, generator=draw),
    }[kind]()
    task = task_of(kind, "loss")
    every = scores(task, logits, labels)
    assert tuple(every) == metric_names(kind)
    assert {name: scores(task, logits, labels, only=name)[name] for name in every} == every
