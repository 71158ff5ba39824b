"""Scores against plain definitions written out here, and against scikit-learn's."""

import numpy as np
import pytest
import torch
from small import make_task

from trimtab.errors import InputError
from trimtab.tasks.metrics import (
    METRICS,
    calibration_error,
    check_metric,
    confusion,
    improves,
    metric_names,
    named,
    per_class,
    scores,
)
from trimtab.tasks.reading import Reading


def logits_for(predicted: list[int], n_classes: int = 3) -> torch.Tensor:
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(predicted), n_classes).float()


def test_single_label_by_hand():
    task, truth = make_task(), torch.tensor([0, 0, 1, 1, 2, 2])
    found = scores(task, logits_for([0, 1, 1, 1, 2, 0]), truth)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["precision"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert found["recall"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    f1 = [2 * p * r / (p + r) for p, r in ((1 / 2, 1 / 2), (2 / 3, 1), (1, 1 / 2))]
    assert found["f1"] == found["f1_macro"] == pytest.approx(np.mean(f1))
    assert confusion(task, logits_for([0, 1, 1, 1, 2, 0]), truth) == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    table = per_class(task, logits_for([0, 1, 1, 1, 2, 0]), truth)
    assert [row["class"] for row in table] == ["cat", "dog", "fish"]
    assert [row["rows"] for row in table] == [2, 2, 2]
    assert table[1]["precision"] == pytest.approx(2 / 3)


def test_averages_over_classes_leave_out_those_neither_asked_for_nor_answered():
    """Three classes of which the split holds two: a perfect model scores 1, and not 2/3."""
    found = scores(make_task(), logits_for([0, 1, 1]), torch.tensor([0, 1, 1]))
    assert found["precision"] == found["recall"] == found["f1_macro"] == 1.0
    answered = scores(make_task(), logits_for([0, 1, 2]), torch.tensor([0, 1, 1]))
    assert answered["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3), "a class that was only answered counts"


def test_two_classes_score_the_second():
    import dataclasses

    task = dataclasses.replace(make_task(), classes=("no", "yes"))
    found = scores(task, logits_for([1, 1, 0, 0], 2), torch.tensor([1, 0, 1, 0]))
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["matthews"] == 0.0


def test_matthews_is_the_correlation_of_two_binary_columns():
    import dataclasses

    task = dataclasses.replace(make_task(), classes=("no", "yes"))
    draw = np.random.default_rng(0)
    truth, predicted = draw.integers(0, 2, 200), draw.integers(0, 2, 200)
    found = scores(task, logits_for(predicted.tolist(), 2), torch.from_numpy(truth))
    assert found["matthews"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1])


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes that do not occur
@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("n_rows", [1, 5, 300])
def test_scores_of_one_class_a_row_are_those_of_scikit_learn(n_classes, n_rows):
    from dataclasses import replace

    from sklearn import metrics

    task, draw = replace(make_task(), classes=tuple("abcdefg"[:n_classes])), np.random.default_rng(n_rows)
    truth, predicted = draw.integers(0, n_classes, n_rows), draw.integers(0, n_classes, n_rows)
    predicted = np.where(draw.random(n_rows) < 0.4, truth, predicted)
    logits = logits_for(predicted.tolist(), n_classes)
    found = scores(task, logits, torch.from_numpy(truth))
    average = {"average": "binary"} if n_classes == 2 else {"average": "macro"}
    expected = metrics.precision_recall_fscore_support(truth, predicted, zero_division=0.0, **average)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0.0))
    assert found["matthews"] == pytest.approx(metrics.matthews_corrcoef(truth, predicted))
    expected = metrics.precision_recall_fscore_support(
        truth, predicted, labels=list(range(n_classes)), zero_division=0.0
    )
    table = per_class(task, logits, torch.from_numpy(truth))
    for name, column in zip(("precision", "recall", "f1", "rows"), expected, strict=True):
        assert [row[name] for row in table] == pytest.approx(column.tolist())


@pytest.mark.parametrize("n_rows", [1, 4, 200])
def test_scores_of_several_classes_a_row_are_those_of_scikit_learn(n_rows):
    from sklearn import metrics

    task, draw = make_task("multi_label"), np.random.default_rng(n_rows)
    truth, predicted = draw.integers(0, 2, (n_rows, 3)), draw.integers(0, 2, (n_rows, 3))
    truth[:, 2] = predicted[:, 2] = 0  # a class that is neither asked for nor answered counts for nothing
    found = scores(task, torch.from_numpy(8.0 * predicted - 4), torch.from_numpy(truth).float())
    expected = metrics.precision_recall_fscore_support(
        truth, predicted, labels=[0, 1], average="macro", zero_division=0.0
    )
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["f1_micro"] == pytest.approx(metrics.f1_score(truth, predicted, average="micro"))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    table = per_class(task, torch.from_numpy(8.0 * predicted - 4), torch.from_numpy(truth).float())
    each = metrics.precision_recall_fscore_support(truth, predicted, zero_division=0.0)
    for name, column in zip(("precision", "recall", "f1", "rows"), each, strict=True):
        assert [row[name] for row in table] == pytest.approx(column.tolist())


def test_scoring_loads_no_scikit_learn():
    """It would take 100 MB and a second in every fit, and users need not have it."""
    import subprocess
    import sys

    code = (
        "import sys, torch\nfrom trimtab.tasks.metrics import scores\nfrom trimtab.tasks.task import Task\n"
        "task = Task('t', 'single_label', ('a', 'b'), ('text',), 'label', 'accuracy')\n"
        "print(scores(task, torch.eye(2), torch.tensor([0, 1]))['matthews'], 'sklearn' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["1.0", "False"]


def test_multi_label_by_hand():
    task = make_task("multi_label")
    truth = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    found = scores(task, torch.tensor([[3.0, -3, -3], [-3, 3, -3]]), truth)
    assert found["accuracy"] == 0.5
    assert found["f1_micro"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["f1_macro"] == pytest.approx((1 + 1 + 0) / 3)
    assert confusion(task, truth, truth) is None


def test_regression_by_hand():
    task, truth = make_task("regression"), torch.tensor([0.0, 1.0, 2.0, 3.0])
    found = scores(task, torch.tensor([[0.0], [1.0], [4.0], [9.0]]), truth)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(np.corrcoef([0, 1, 4, 9], [0, 1, 2, 3])[0, 1])
    assert found["mean_absolute_error"] == pytest.approx(2)
    assert found["mean_squared_error"] == found["loss"] == pytest.approx(10)
    assert scores(task, torch.ones(4, 1), truth)["pearson"] == 0.0


def test_calibration_error_by_hand():
    """Two bins: 0.9 sure and right half the time, 0.65 sure and always right."""
    confidence, correct = np.array([0.9, 0.9, 0.65, 0.65]), np.array([True, False, True, True])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.35)
    assert calibration_error(np.ones(5), np.ones(5, bool)) == 0.0


def test_a_row_is_as_sure_as_its_likeliest_class():
    likely = torch.tensor([[0.9, 0.06, 0.04], [0.04, 0.9, 0.06], [0.2, 0.15, 0.65], [0.15, 0.65, 0.2]])
    found = scores(make_task(), likely.log(), torch.tensor([0, 2, 2, 1]))  # only the second is wrong
    assert found["calibration_error"] == pytest.approx((2 * abs(1 / 2 - 0.9) + 2 * abs(1 - 0.65)) / 4)


def test_a_class_is_answered_or_left_out_with_equal_right():
    """Four decisions are 0.9 sure and three of them right; two are 0.65 sure, and one of them right."""
    likely, truth = torch.tensor([[0.9, 0.1, 0.65], [0.9, 0.1, 0.35]]), torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    found = scores(make_task("multi_label"), likely.logit(), truth)
    assert found["calibration_error"] == pytest.approx((4 * abs(3 / 4 - 0.9) + 2 * abs(1 / 2 - 0.65)) / 6)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_every_score_has_a_direction_and_lies_in_its_range(kind):
    task = make_task(kind)
    draw = torch.Generator().manual_seed(0)
    labels = {
        "single_label": torch.randint(3, (40,), generator=draw),
        "multi_label": torch.randint(2, (40, 3), generator=draw).float(),
        "regression": torch.rand(40, generator=draw),
    }[kind]
    found = scores(task, torch.randn(40, task.n_outputs, generator=draw), labels)
    assert tuple(found) == metric_names(kind)
    for name, value in found.items():
        metric = METRICS[name]
        assert metric.low is None or value >= metric.low
        assert metric.high is None or value <= metric.high


def test_better_follows_the_direction_and_never_prefers_nan():
    assert METRICS["accuracy"].better(0.9, 0.8)
    assert METRICS["loss"].better(0.8, 0.9)
    assert not METRICS["loss"].better(0.9, 0.9)
    for metric in METRICS.values():
        assert not metric.better(float("nan"), 0.0)
        assert metric.better(0.0, float("nan"))


def test_unknown_metric_is_refused():
    with pytest.raises(InputError, match="known: pearson"):
        check_metric("accuracy", "regression")


def test_no_rows_cannot_be_scored():
    with pytest.raises(ValueError, match="no rows"):
        scores(make_task(), torch.empty(0, 3), torch.empty(0, dtype=torch.long))


def test_ties_of_the_main_metric_are_decided_by_the_loss():
    old = {"accuracy": 0.5, "mean_squared_error": 4.0, "loss": 0.7}
    assert improves("accuracy", old | {"loss": 0.6}, old)
    assert not improves("accuracy", old, old)
    assert not improves("accuracy", old | {"accuracy": 0.4, "loss": 0.1}, old)
    assert improves("accuracy", old | {"accuracy": 0.6, "loss": 9.0}, old)
    assert improves("mean_squared_error", old | {"mean_squared_error": 3.0, "loss": 9.0}, old)
    assert improves("loss", old | {"loss": 0.6}, old)
    undefined = old | {"accuracy": float("nan")}
    assert improves("accuracy", old, undefined)
    assert not improves("accuracy", undefined | {"loss": 0.1}, old)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("levels", [3, 10_000])  # three different scores: nearly all are ties
def test_scores_of_a_ranking_are_those_of_scikit_learn(n_classes, levels):
    from dataclasses import replace

    from sklearn.metrics import average_precision_score, roc_auc_score

    draw = np.random.default_rng(levels)
    truth = draw.integers(0, n_classes, 200)
    logits = torch.from_numpy(draw.integers(0, levels, (200, n_classes)) * 3.0 / levels)
    single = scores(replace(make_task(), classes=tuple("abcde"[:n_classes])), logits, torch.from_numpy(truth))
    likely, has = logits.softmax(-1).numpy().round(12), np.eye(n_classes)[truth]
    if n_classes == 2:
        assert single["roc_auc"] == pytest.approx(roc_auc_score(truth, likely[:, 1]))
        assert single["average_precision"] == pytest.approx(average_precision_score(truth, likely[:, 1]))
    elif levels > 3:  # with few, probabilities that should be equal differ by rounding
        assert single["roc_auc"] == pytest.approx(roc_auc_score(truth, likely, multi_class="ovr"), abs=1e-3)
        assert single["average_precision"] == pytest.approx(average_precision_score(has, likely), abs=1e-3)
    task = replace(make_task("multi_label"), classes=tuple("abcde"[:n_classes]))
    several = scores(task, logits, torch.from_numpy(has).float())
    assert several["roc_auc"] == pytest.approx(roc_auc_score(has, logits.numpy()))
    assert several["average_precision"] == pytest.approx(average_precision_score(has, logits.numpy()))


def test_a_ranking_of_one_class_is_chance_and_one_of_sure_answers_is_no_tie():
    found = scores(make_task(), logits_for([0, 1, 2]), torch.tensor([1, 1, 1]))
    assert (found["roc_auc"], found["average_precision"]) == (0.5, 0.0)
    from dataclasses import replace

    sure = torch.tensor([[0.0, 40.0], [0.0, 30.0], [0.0, 20.0]])  # probabilities that all are 1 in float32
    assert scores(replace(make_task(), classes=("no", "yes")), sure, torch.tensor([1, 1, 0]))["roc_auc"] == 1.0


def test_two_classes_score_the_positive_one():
    from dataclasses import replace

    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    draw = np.random.default_rng(0)
    truth, logits = draw.integers(0, 2, 80), torch.from_numpy(draw.normal(size=(80, 2)))
    answers = logits.argmax(1).numpy()
    for positive, index in (("fraud", 0), ("legit", 1), (None, 1)):
        task = replace(make_task(), classes=("fraud", "legit"), reading=Reading(positive=positive))
        found = scores(task, logits, torch.from_numpy(truth))
        expected = precision_recall_fscore_support(truth, answers, pos_label=index, average="binary")
        assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
        likely = logits.softmax(-1)[:, index].numpy()
        assert found["average_precision"] == pytest.approx(average_precision_score(truth == index, likely))
        assert named("f1", task.positive) == f"f1 of {positive or 'legit'}"
    assert named("accuracy", "fraud") == "accuracy"
    assert named("f1", make_task().positive) == "f1"


@pytest.mark.parametrize(("classes", "kind"), [(2, "single_label"), (3, "single_label"), (3, "multi_label")])
def test_brier_score_is_that_of_scikit_learn(classes: int, kind: str) -> None:
    import dataclasses

    from sklearn.metrics import brier_score_loss

    draw, task = np.random.default_rng(0), make_task(kind)
    task = dataclasses.replace(task, classes=task.classes[:classes])
    logits = torch.tensor(draw.normal(size=(60, classes)) * 3)
    if kind == "single_label":
        truth = torch.tensor(draw.integers(0, classes, 60))
        expected = brier_score_loss(truth, logits.softmax(1), labels=range(classes), scale_by_half=True)
    else:
        truth = torch.tensor(draw.integers(0, 2, (60, classes))).float()
        expected = np.mean([brier_score_loss(truth[:, c], logits[:, c].sigmoid()) for c in range(classes)])
    assert scores(task, logits, truth)["brier_score"] == pytest.approx(expected, abs=1e-6)


def test_other_names_of_a_metric_are_understood_where_it_is_one() -> None:
    assert [check_metric(name, "single_label") for name in ("log_loss", "brier", "f1")] == ["loss", "brier_score", "f1"]
    with pytest.raises(InputError, match="unknown metric 'log_loss' for a regression task"):
        check_metric("log_loss", "regression")
