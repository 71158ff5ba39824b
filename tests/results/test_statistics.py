"""Differences between methods: right scores of resamples, and no more false alarms than promised."""

import math
import statistics
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from small import make_task

from trimtab.results.resampled_scores import of_probabilities, resampled_score, usable
from trimtab.results.statistics import RESAMPLES, Difference, difference, holm, over_tasks
from trimtab.tasks.metrics import scores


@pytest.fixture
def draw() -> np.random.Generator:
    """Of the test's own, so that what it draws does not depend on which tests ran before."""
    return np.random.default_rng(0)


def as_logits(kind: str, answers: Any, n_classes: int) -> torch.Tensor:
    if kind == "single_label":
        return torch.nn.functional.one_hot(torch.tensor(answers), n_classes).float()
    return torch.tensor(answers).float() * 2 - 1 if kind == "multi_label" else torch.tensor(answers)[:, None]


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        *(("single_label", name) for name in ("accuracy", "precision", "recall", "f1", "f1_macro", "matthews")),
        *(("multi_label", name) for name in ("accuracy", "precision", "recall", "f1", "f1_macro", "f1_micro")),
        *(("regression", name) for name in ("pearson", "spearman", "mean_absolute_error", "mean_squared_error")),
    ],
)
def test_scores_of_resamples_are_those_of_the_rows_drawn(kind: str, metric: str, draw: np.random.Generator) -> None:
    n, task = 60, make_task(kind)
    labels, answers = {
        "single_label": lambda: (draw.integers(0, 3, n), draw.integers(0, 3, n)),
        "multi_label": lambda: (draw.integers(0, 2, (n, 3)), draw.integers(0, 2, (n, 3))),
        "regression": lambda: (draw.normal(size=n).round(1), draw.normal(size=n).round(1)),  # some are equal
    }[kind]()
    rows = [np.arange(n), draw.integers(0, n, n), draw.integers(0, n, n)]
    weights = np.stack([np.bincount(each, minlength=n) for each in rows])
    found = resampled_score(metric, labels, answers, weights, len(task.classes))
    if metric == "spearman":  # of ranks in the whole sample
        metric, labels, answers = "pearson", rankdata(labels), rankdata(answers)
    for each, value in zip(rows, found, strict=True):
        logits = as_logits(kind, answers[each], 3)
        expected = scores(
            task, logits, torch.tensor(labels[each]).to(torch.int64 if kind == "single_label" else torch.float32)
        )
        assert value == pytest.approx(expected[metric], abs=1e-5)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_binary_scores(metric: str, draw: np.random.Generator) -> None:
    labels, answers = draw.integers(0, 2, 80), draw.integers(0, 2, 80)
    from sklearn import metrics

    function = {"accuracy": metrics.accuracy_score, "f1": metrics.f1_score, "matthews": metrics.matthews_corrcoef}[
        metric
    ]
    assert resampled_score(metric, labels, answers, np.ones((1, 80)), 2)[0] == pytest.approx(function(labels, answers))


@pytest.mark.parametrize("metric", ["precision", "recall", "f1", "f1_macro", "matthews"])
@pytest.mark.parametrize("said", [[0, 1], [0, 1, 2]])
def test_classes_that_no_row_has_count_as_they_do_in_the_scores_of_a_fit(
    metric: str, said: list[int], draw: np.random.Generator
) -> None:
    task = make_task()  # of three classes, the last of which is in no validation row
    labels, answers = draw.integers(0, 2, 60), draw.choice(said, 60)
    expected = scores(task, as_logits("single_label", answers, 3), torch.tensor(labels))
    found = resampled_score(metric, labels, answers, np.ones((1, 60)), len(task.classes))
    assert found[0] == pytest.approx(expected[metric])
    observed = difference(metric, labels, [answers], [labels], len(task.classes)).mean
    own = scores(task, as_logits("single_label", labels, 3), torch.tensor(labels))
    assert observed == pytest.approx(expected[metric] - own[metric])


def test_many_rows_and_classes_take_little_memory(draw: np.random.Generator) -> None:
    labels, answers = draw.integers(0, 150, 30_000), draw.integers(0, 150, 30_000)
    tracemalloc.start()
    found = difference("f1", labels, [answers], [labels], 150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.mean < -0.9
    assert peak < 1e8  # all resamples at once are 240 MB, and a table of classes by classes for each row is 5 GB


def test_resamples_are_the_same_however_many_are_drawn_at_once(
    draw: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, answers = draw.integers(0, 3, 40), draw.integers(0, 3, 40)
    whole = difference("f1", labels, [answers], [labels], 3)
    monkeypatch.setattr("trimtab.results.statistics._DRAWN_AT_ONCE", 40 * 7)
    assert difference("f1", labels, [answers], [labels], 3) == whole


TRUTH = np.zeros(10)
RUNS = [  # of two methods with three seeds: errors of the rows
    (np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1])),
    (np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1]), np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1])),
    (np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])),
]
BY_ROW = np.array([3, 3, 2, 1, 0, 0, 0, 0, 0, 0]) / 3  # how much better the first is on each, over seeds


@pytest.mark.parametrize(("metric", "n_classes"), [("accuracy", 2), ("mean_absolute_error", 0)])
def test_a_difference_by_hand(metric: str, n_classes: int) -> None:
    ours, theirs = zip(*RUNS, strict=True)
    found = difference(metric, TRUTH, ours, theirs, n_classes, seed=4)
    assert found.mean == pytest.approx(0.3)  # 0.3, 0.2 and 0.4
    assert found.seed_variance == pytest.approx((0.0**2 + 0.1**2 + 0.1**2) / 2 / 3)
    assert found.seed_freedom == 2
    drawn = np.random.default_rng(4).multinomial(10, [0.1] * 10, RESAMPLES)
    # Row by row, as often as each was drawn.
    means = [statistics.fmean(float(BY_ROW[row]) for row in np.arange(10).repeat(times)) for times in drawn]
    assert found.row_variance == pytest.approx(statistics.variance(means))
    # What it comes to with ever more resamples.
    assert found.row_variance == pytest.approx(np.var(BY_ROW) / 10, rel=0.15)


def test_a_difference_of_one_seed_or_of_few_rows_by_hand() -> None:
    ours, theirs = RUNS[0]
    found = difference("accuracy", TRUTH, [ours], [theirs], 2)
    assert (found.mean, found.seed_variance, found.seed_freedom) == (pytest.approx(0.3), 0.0, 0)
    few = difference("accuracy", TRUTH[:9], [ours[:9]], [theirs[:9]], 2)
    assert (few.row_variance, few.p) == (math.inf, 1.0)


def runs_of_one_method(n_rows: int, n_seeds: int, seed_noise: float, draw: Any) -> tuple[Any, list[Any], list[Any]]:
    """Labels and the answers of two methods that are one: rows differ in difficulty, and runs in luck and in mood."""
    labels = draw.integers(0, 2, n_rows)
    difficulty = draw.normal(1.5, 1.5, n_rows)

    def answers() -> Any:
        skill = difficulty + draw.normal(0, seed_noise) + draw.normal(0, 0.7, n_rows)
        return np.where(skill > 0, labels, 1 - labels)

    return labels, [answers() for _ in range(n_seeds)], [answers() for _ in range(n_seeds)]


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("seed_noise", [0.0, 0.3])
def test_two_identical_methods_are_rarely_told_apart(seed_noise: float, n_seeds: int) -> None:
    draw, trials, alarms = np.random.default_rng(1), 150, 0
    for trial in range(trials):
        labels, a, b = runs_of_one_method(300, n_seeds, seed_noise, draw)
        alarms += difference("accuracy", labels, a, b, 2, seed=trial).p < 0.05
    assert alarms / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5  # three standard errors of a share


def test_methods_that_differ_are_told_apart() -> None:
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 2, 500)
    good, poor = ([np.where(draw.random(500) < rate, labels, 1 - labels) for _ in range(3)] for rate in (0.9, 0.75))
    found = difference("accuracy", labels, good, poor, 2)
    assert found.mean == pytest.approx(0.15, abs=0.04)
    assert found.p < 0.01
    low, high = found.interval()
    assert 0 < low < found.mean < high
    assert difference("accuracy", labels, poor, good, 2).mean == pytest.approx(-found.mean)
    values = labels + draw.normal(0, 0.1, 500), labels + draw.normal(0, 2.0, 500)
    errors = difference("mean_absolute_error", labels.astype(float), [values[0]], [values[1]], 0)
    assert errors.mean > 1  # less error is better


def test_the_same_answers_do_not_differ(draw: np.random.Generator) -> None:
    labels = draw.integers(0, 2, 50)
    found = difference("accuracy", labels, [labels], [labels], 2)
    assert (found.mean, found.p) == (0, 1)


def test_over_tasks() -> None:
    one = Difference(0.02, 1e-4, 1e-4, 2)
    same = over_tasks([one, one, one, one])
    assert same.mean == pytest.approx(0.02)
    assert (same.row_variance, same.seed_variance) == pytest.approx((0.25e-4, 0.25e-4))
    assert same.seed_freedom == pytest.approx(8)  # four tasks of two degrees of freedom each
    assert over_tasks([one]).p == pytest.approx(one.p)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("rows", "seeds", "freedom"), [(1e-4, 1e-4, 2), (4e-4, 1e-5, 2), (1e-6, 4e-4, 4), (3e-4, 2e-4, 12)]
)
def test_p_is_the_share_of_draws_that_reach_so_far(rows: float, seeds: float, freedom: int) -> None:
    draw = np.random.default_rng(0)
    sums = np.sqrt(rows) * draw.normal(size=400_000) + np.sqrt(seeds) * draw.standard_t(freedom, 400_000)
    for reach in (0.0, 0.01, 0.03, 0.08):
        share = float((np.abs(sums) >= reach).mean())
        assert Difference(reach, rows, seeds, freedom).p == pytest.approx(share, abs=0.004)
    low, high = Difference(0.02, rows, seeds, freedom).interval()
    assert high - 0.02 == pytest.approx(0.02 - low)
    assert float((np.abs(sums) >= high - 0.02).mean()) == pytest.approx(0.05, abs=0.003)


def test_without_seeds_or_rows_it_is_the_plain_test() -> None:
    assert Difference(0.0196, 1e-4, 0.0, 0).p == pytest.approx(0.05, abs=1e-4)
    assert Difference(0.04303, 0.0, 1e-4, 2).p == pytest.approx(0.05, abs=1e-4)
    assert Difference(0.0196, 1e-4, 1e-12, 2).p == pytest.approx(0.05, abs=1e-3)
    assert Difference(1.0, 1e-4, 1e-9, 2).p < 1e-6
    assert Difference(0.0, 0.0, 0.0, 2).interval() == (0.0, 0.0)


@pytest.mark.parametrize("rows", [0.05, 0.5])
@pytest.mark.parametrize("freedom", [2, 4])
def test_far_out_no_more_alarms_than_promised(rows: float, freedom: int) -> None:
    """Equal methods, at the level that a correction for 15 comparisons asks for; the seeds' variance is 1, and estimated."""
    draw, level, n = np.random.default_rng(0), 0.05 / 15, 3000
    means = draw.normal(0, np.sqrt(rows + 1), n)
    alarms = sum(
        Difference(mean, rows, variance, freedom).p < level
        for mean, variance in zip(means, draw.chisquare(freedom, n) / freedom, strict=True)
    )
    assert alarms <= n * level + 3 * (n * level) ** 0.5  # 10 expected at most


@pytest.mark.parametrize("metric", ["calibration_error", "f2", "mean_squared_error", "pearson"])
def test_a_metric_that_is_not_of_classes_is_refused_and_not_tested_as_f1(
    metric: str, draw: np.random.Generator
) -> None:
    for labels in (draw.integers(0, 2, 20), draw.integers(0, 2, (20, 3))):
        with pytest.raises(ValueError, match=metric):
            resampled_score(metric, labels, labels, np.ones((1, 20)), 3)
    with pytest.raises(ValueError, match="matthews is no metric of such labels"):
        resampled_score("matthews", draw.integers(0, 2, (20, 3)), draw.integers(0, 2, (20, 3)), np.ones((1, 20)), 3)
    with pytest.raises(ValueError, match="accuracy is no metric of such labels"):
        resampled_score("accuracy", draw.normal(size=20), draw.normal(size=20), np.ones((1, 20)), 0)
    assert not usable("calibration_error")


def by_scikit_learn(metric: str, kind: str, labels: Any, outputs: Any, positive: int | None) -> float:
    """The slow reference: of the rows drawn themselves, class by class where it is a mean over classes."""
    from scipy.special import expit, softmax
    from sklearn import metrics

    likely = softmax(outputs, axis=1) if kind == "single_label" else expit(outputs)
    has = labels if kind == "multi_label" else labels[:, None] == np.arange(outputs.shape[1])
    if metric == "loss" and kind == "single_label":
        return metrics.log_loss(labels, likely, labels=range(outputs.shape[1]))
    if metric == "brier_score" and kind == "single_label":
        return metrics.brier_score_loss(labels, likely, labels=range(outputs.shape[1]), scale_by_half=True)
    columns = range(outputs.shape[1]) if positive is None else [positive]
    if metric == "loss":
        return float(np.mean([metrics.log_loss(has[:, c], likely[:, c], labels=[0, 1]) for c in columns]))
    if metric == "brier_score":
        return float(np.mean([metrics.brier_score_loss(has[:, c], likely[:, c], labels=[0, 1]) for c in columns]))
    function = metrics.roc_auc_score if metric == "roc_auc" else metrics.average_precision_score
    scored = outputs if kind == "multi_label" else np.log(likely)
    return float(np.mean([function(has[:, c], scored[:, c]) for c in columns if 0 < has[:, c].sum() < len(labels)]))


OF_PROBABILITIES = ("roc_auc", "average_precision", "loss", "brier_score")


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
@pytest.mark.parametrize(
    ("kind", "n_classes", "positive"),
    [("single_label", 2, 1), ("single_label", 2, 0), ("single_label", 4, None), ("multi_label", 3, None)],
)
def test_scores_of_probabilities_are_those_of_scikit_learn_on_the_rows_drawn(
    metric: str, kind: str, n_classes: int, positive: int | None, draw: np.random.Generator
) -> None:
    n = 40
    labels = draw.integers(0, n_classes, n) if kind == "single_label" else draw.integers(0, 2, (n, n_classes))
    outputs = draw.normal(size=(n, n_classes))
    outputs[5:15] = outputs[:10]  # some are equal
    if kind == "single_label":
        labels[labels == 3] = draw.choice([0, 3], (labels == 3).sum(), p=[0.9, 0.1])  # few, that some resamples lack
    rows = [np.arange(n), *draw.integers(0, n, (25, n))]
    weights = np.stack([np.bincount(each, minlength=n) for each in rows])
    found = resampled_score(metric, labels, outputs, weights, n_classes, positive or 0)
    expected = [by_scikit_learn(metric, kind, labels[each], outputs[each], positive) for each in rows]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_a_difference_of_probabilities_is_the_bootstrap_by_hand(metric: str, draw: np.random.Generator) -> None:
    """A loop over resamples and scikit-learn, seed by seed, against the Difference."""
    n, sign = 30, 1 if metric in ("roc_auc", "average_precision") else -1
    labels = np.arange(n) % 2
    ours, theirs = (
        [np.stack([-s * (labels - 0.5), s * (labels - 0.5)], 1) + draw.normal(size=(n, 2)) for _ in range(2)]
        for s in (1.5, 0.3)
    )
    found = difference(metric, labels, ours, theirs, 2, seed=3)

    def better_by(rows: Any) -> list[float]:
        a, b = (
            [by_scikit_learn(metric, "single_label", labels[rows], each[rows], 1) for each in outputs]
            for outputs in (ours, theirs)
        )
        return [sign * (x - y) for x, y in zip(a, b, strict=True)]

    observed = better_by(np.arange(n))
    assert found.mean == pytest.approx(statistics.fmean(observed))
    assert found.seed_variance == pytest.approx(statistics.variance(observed) / 2)
    drawn = np.random.default_rng(3).multinomial(n, [1 / n] * n, RESAMPLES)
    means = [statistics.fmean(better_by(np.arange(n).repeat(times))) for times in drawn]
    assert found.row_variance == pytest.approx(statistics.variance(means))
    assert found.mean > 0


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_they_are_the_scores_of_a_fit(metric: str, kind: str, draw: np.random.Generator) -> None:
    task = make_task(kind)
    labels = draw.integers(0, 2, 50) if kind == "single_label" else draw.integers(0, 2, (50, 3))  # one class is absent
    outputs = draw.normal(size=(50, 3)) * 6
    expected = scores(
        task, torch.tensor(outputs), torch.tensor(labels).to(torch.int64 if kind == "single_label" else torch.float32)
    )
    assert of_probabilities(metric, kind)
    assert resampled_score(metric, labels, outputs, np.ones((1, 50)), 3)[0] == pytest.approx(expected[metric], abs=1e-6)


def test_what_no_row_drawn_decides_is_chance() -> None:
    labels, outputs = np.array([0, 0, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    weights = np.array([[2, 1, 0], [0, 0, 3]])  # all of one class, and all of the other
    assert resampled_score("roc_auc", labels, outputs, weights, 2).tolist() == [0.5, 0.5]
    assert resampled_score("average_precision", labels, outputs, weights, 2).tolist() == [0.0, 1.0]
    assert resampled_score("average_precision", labels, outputs[:, [0, 1, 1]], weights, 3).tolist() == [0.0, 0.0]


def test_the_positive_class_is_the_tasks(draw: np.random.Generator) -> None:
    from sklearn.metrics import f1_score

    labels, answers = draw.integers(0, 2, 80), draw.integers(0, 2, 80)
    for positive in (0, 1):
        found = resampled_score("f1", labels, answers, np.ones((1, 80)), 2, positive)
        assert found[0] == pytest.approx(f1_score(labels, answers, pos_label=positive))
    mirrored = difference("f1", labels, [answers], [1 - answers], 2, positive=0)
    assert mirrored.mean == pytest.approx(
        f1_score(labels, answers, pos_label=0) - f1_score(labels, 1 - answers, pos_label=0)
    )


def test_an_interval_ends_where_scores_cannot_differ_by_more() -> None:
    """Two seeds leave one degree of freedom, whose interval is wider than any accuracy."""
    labels = np.arange(40) % 2
    right, wrong, half = labels, 1 - labels, np.zeros(40, int)
    found = difference("accuracy", labels, [right, half], [wrong, half], 2)
    assert found.is_cut
    assert found.interval() == (-1.0, 1.0)
    over = over_tasks([found, found])
    assert over.most == 1.0
    assert over.interval()[1] <= 1.0
    matthews = difference("matthews", labels, [right, half], [wrong, half], 2)
    assert matthews.most == 2.0
    assert matthews.interval()[1] <= 2.0
    errors = difference("mean_absolute_error", labels * 1.0, [right * 1.0, half * 1.0], [wrong * 1.0, half * 1.0], 0)
    assert not errors.is_cut
    assert errors.interval()[1] > 1.0
