"""What cells come to over seeds and over tasks, with values worked out by hand."""

from dataclasses import replace

import pytest
from small import make_task

from trimtab.results.comparison import Cell, Comparison, summarised

SCORES = {"one": (0.5, 0.6, 0.7), "two": (0.3, 0.7, 0.8), "three": (0.9, 0.9, 0.9)}  # task -> scores of the seeds
VARIANCES = (0.01, 0.07, 0.0)  # of each, over n - 1: of "two" (0.3^2 + 0.1^2 + 0.2^2) / 2


def of_tasks(*names: str, n_seeds: int = 3) -> Comparison:
    """One method with these scores; it trains 100 elements in ever more seconds."""
    tasks = [replace(make_task(), name=name) for name in names]
    costs = {"elements": {"body": 100, "head": 9}, "delta_bytes": 2000}
    cells = [
        Cell(name, "head", seed, "accuracy", {"accuracy": SCORES[name][seed]}, seconds=10.0 * i + seed, **costs)
        for i, name in enumerate(names)
        for seed in range(n_seeds)
    ]
    return summarised("bert", tasks, ["head"], list(range(n_seeds)), "head", cells)


def test_mean_and_standard_deviation_over_seeds() -> None:
    for name, variance in zip(SCORES, VARIANCES, strict=True):
        (found,) = of_tasks(name).overall
        assert found.mean == pytest.approx(sum(SCORES[name]) / 3)
        assert found.standard_deviation == pytest.approx(variance**0.5)
        assert found.seconds == pytest.approx(1.0)
    assert of_tasks("one", n_seeds=1).overall[0].standard_deviation is None


def test_the_standard_deviation_over_tasks_is_that_of_the_mean_of_independent_scores() -> None:
    (found,) = of_tasks(*SCORES).overall
    assert found.mean == pytest.approx((0.6 + 0.6 + 0.9) / 3)
    assert found.standard_deviation == pytest.approx((0.01 + 0.07 + 0.0) ** 0.5 / 3)
    assert found.seconds == pytest.approx((1 + 11 + 21) / 3)
    assert (found.elements, found.delta_bytes) == (100, 2000)
    assert of_tasks(*SCORES, n_seeds=1).overall[0].standard_deviation is None


def test_the_same_scores_in_another_order_share_a_rank_and_the_smaller_method_goes_first() -> None:
    """Summed one by one, 0.9 + 0.8 + 0.7 and 0.7 + 0.8 + 0.9 differ in the last bit."""
    task = make_task()
    same = {"answers": list(task.validation.labels)}
    cells = [
        Cell(task.name, method, seed, "accuracy", {"accuracy": score}, elements={"body": size, "head": 9}, **same)
        for method, size, scores in (("full", 1000, (0.9, 0.8, 0.7)), ("head", 0, (0.7, 0.8, 0.9)))
        for seed, score in enumerate(scores)
    ]
    found = summarised("bert", [task], ["full", "head"], [0, 1, 2], "full", cells)
    assert [s.rank for s in found.overall] == [1, 1]
    assert found.best_first[0].method == "head"
    assert found.front("elements") == ["head"]


def test_of_equal_scores_the_method_with_the_lower_loss_goes_first() -> None:
    task = make_task()
    cells = [
        Cell(
            task.name, method, 0, "accuracy", {"accuracy": 0.5, "loss": loss}, elements={"body": size, "head": 9},
            answers=list(task.validation.labels),
        )
        for method, size, loss in (("head", 0, 0.7), ("full", 1000, 0.4), ("biases", 10, 0.4))
    ]  # fmt: skip
    found = summarised("bert", [task], ["head", "full", "biases"], [0], "head", cells)
    assert [s.rank for s in found.overall] == [1, 1, 1]
    assert [s.method for s in found.best_first] == ["biases", "full", "head"]
