"""What a server counts by task is bounded, however many tasks there are."""

from prometheus_client import CollectorRegistry

from trimtab.serving.metrics import OTHER, Metrics, TaskCounter


def series(registry: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["task"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "t_total"
    }


def test_the_most_frequent_tasks_have_a_series_and_no_count_is_lost() -> None:
    registry = CollectorRegistry()
    counter = TaskCounter("t", "of tests", registry, most=3)
    for name, n in (("a", 10), ("b", 20), ("c", 30), ("d", 5), ("e", 20), ("d", 5)):
        counter.add(name, n)
    assert series(registry) == {"a": 10, "b": 20, "c": 30, OTHER: 30}
    counter.add("d", 11)  # more than twice as often as a: from now on it is told apart
    assert series(registry) == {"b": 20, "c": 30, "d": 11, OTHER: 30}
    counter.add("a", 1)
    assert series(registry)[OTHER] == 31
    counter.forget("b")
    counter.add("a", 1)
    assert series(registry) == {"a": 1, "c": 30, "d": 11, OTHER: 31}
    counter.forget("none")


def test_where_series_cannot_be_taken_back_the_first_tasks_keep_theirs() -> None:
    registry = CollectorRegistry()
    counter = TaskCounter("t", "of tests", registry, most=2, keeps=True)
    for name, n in (("a", 1), ("b", 2), ("c", 30)):
        counter.add(name, n)
    counter.forget("a")
    counter.add("c", 1)
    counter.add("a", 1)
    assert series(registry) == {"a": 2, "b": 2, OTHER: 31}


def test_a_thousand_tasks_are_a_hundred_series() -> None:
    metrics = Metrics()
    for i in range(1000):
        metrics.predictions.add(f"task{i}", 1)
    lines = [line for line in metrics.text().decode().splitlines() if line.startswith("trimtab_predictions_total{")]
    assert len(lines) == 101
    assert 'trimtab_predictions_total{task="other"} 900.0' in lines


def test_a_task_that_goes_takes_its_series_with_it() -> None:
    metrics = Metrics()
    metrics.predictions.add("a", 1)
    metrics.count_load("a", "removed")
    assert b'task="a"' not in metrics.text()
    assert b'trimtab_task_loads_total{result="removed"} 1.0' in metrics.text()


def test_each_app_counts_by_itself() -> None:
    one, other = Metrics(), Metrics()
    one.refused.labels("overloaded").inc()
    assert b'reason="overloaded"' in one.text()
    assert b'reason="overloaded"' not in other.text()
