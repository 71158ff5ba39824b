"""Comparisons: summaries that are right, a page and tables that say so."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import make_task

import trimtab
from trimtab.errors import InputError
from trimtab.pages.comparison_page import conclusions, doubts, how_judged, markdown, write_page
from trimtab.pages.pareto_chart import COSTS, MOST_NAMES, chart, drawing
from trimtab.results.comparison import Cell, Comparison, summarised
from trimtab.results.statistics import Difference, holm
from trimtab.studies import cell_spec as module
from trimtab.studies.compare import compare
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import predicted_labels, scores
from trimtab.tasks.task import Task

METHODS = [trimtab.Full(), trimtab.LayerNorms(), trimtab.Head()]


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


@pytest.fixture(scope="module")
def study(encoder: Any, tmp_path_factory: Any) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("study")
    return compare(encoder, [make_task()], METHODS, seeds=2, out=folder, epochs=1), folder


def test_a_cell_is_the_fit_alone(study: Any, encoder: Any) -> None:
    found, folder = study
    assert len(found.cells) == len((folder / "cells.jsonl").read_text().splitlines()) == 6
    cell = next(c for c in found.cells if (c.method, c.seed) == ("layer_norms", 1))
    run = trimtab.fit(encoder, make_task(), trimtab.LayerNorms(), seed=1, epochs=1)
    assert cell.scores == pytest.approx(run.scores)
    assert cell.elements == {"body": run.delta.count_body, "head": run.delta.count_head}
    assert run.logits is not None
    assert cell.answers == run.logits.argmax(1).tolist()
    full = next(c for c in found.cells if c.method == "full")
    assert full.delta_bytes > cell.delta_bytes > 1000
    assert cell.peak_memory_bytes > 1e8


def test_seconds_are_those_of_a_fit_without_a_cache(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a method would be the quicker, the more seeds it has."""
    fit, told = module.fit, iter((0.0, 1000.0))

    def cached(*args: Any, **kwargs: Any) -> Any:
        run = fit(*args, **kwargs)
        return replace(run, details=run.details | {"cached_seconds": next(told)})

    monkeypatch.setattr(module, "fit", cached)
    first, second = compare(encoder, [make_task()], [trimtab.Head()], seeds=2, epochs=1).cells
    assert first.seconds < 1000 < second.seconds


def test_a_finished_study_costs_nothing(study: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, folder = study
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("a cell was computed again"))
    again = compare(encoder, [make_task()], METHODS, seeds=2, out=folder, epochs=1)
    assert again.as_json() == found.as_json()


def test_a_method_that_refuses_marks_its_cells(encoder: Any) -> None:
    methods = [trimtab.LayerNorms(), trimtab.LastLayers(k=9)]
    found = compare(encoder, [make_task()], methods, seeds=1, epochs=1)
    assert [s.method for s in found.overall] == ["layer_norms"]
    assert "does not fit" in found.refused["last_layers:k=9"]
    assert "last_layers:k=9 was refused" in markdown(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "at least one method"),
        ({"methods": [trimtab.Head(), trimtab.Head()]}, "head is there more than once"),
        ({"seeds": 0}, "at least one seed"),
        ({"reference": trimtab.Biases()}, "the reference biases is not among"),
        ({"epochs": -1}, "epochs=-1"),
        ({"epoch": 1}, "epoch"),
        ({"seed": 7}, "several seeds: seeds="),
    ],
)
def test_bad_choices(change: dict[str, Any], message: str, encoder: Any) -> None:
    given: dict[str, Any] = {"methods": METHODS, "seeds": 1} | change
    with pytest.raises(InputError, match=message):
        compare(encoder, [make_task()], given.pop("methods"), given.pop("seeds"), **given)


def task_named(name: str, kind: str = "single_label", metric: str = "accuracy") -> Task:
    return replace(make_task(kind, n_validation=150), name=name, metric=metric)


def cell_of(task: Task, method: str, seed: int, answers: Any, elements: int = 10, **other: Any) -> Cell:
    """A made-up cell with these predictions for the validation rows, scored by the task's metric."""
    logits = torch.tensor(answers)[:, None] if task.kind == "regression" else torch.eye(3)[torch.tensor(answers)]
    found = scores(task, logits, label_tensor(task, task.validation))
    baseline = dict.fromkeys(found, 0.3)
    costs: dict[str, Any] = {"seconds": 100.0, "examples_per_second": 10.0, "delta_bytes": 1000, "share": 0.5} | other
    counts = {"body": elements, "head": 9}
    return Cell(
        task.name, method, seed, task.metric, found, baseline, counts, answers=np.asarray(answers).tolist(), **costs
    )


def made_up(rates: dict[str, float], n_tasks: int = 2) -> Comparison:
    """A comparison of methods that are right at the given rates, each with a hundredth of the elements of the one before."""
    draw, cells = np.random.default_rng(0), []
    tasks = [task_named(f"animals {number}") for number in range(n_tasks)]
    for task in tasks:
        truth = np.array(task.validation.labels)
        for seed in (0, 1, 2):
            for i, (method, rate) in enumerate(rates.items()):
                right = np.random.default_rng(7).random(150) < rate + draw.normal(0, 0.004)
                answers = np.where(right, truth, (truth + 1) % 3)
                costs = {"seconds": 100.0 - i, "delta_bytes": 10 ** (7 - i)}
                cells.append(cell_of(task, method, seed, answers, 10 ** (6 - 2 * i), **costs))
    return summarised("bert", tasks, list(rates), [0, 1, 2], next(iter(rates)), cells)


def by_error(errors: dict[str, float], *, also: dict[str, float] | None = None) -> Comparison:
    """Methods by the mean absolute error of a regression, and by accuracy on a second task where rates are given."""
    tasks = [task_named("counts", "regression", "mean_absolute_error")]
    truth, cells = np.array(tasks[0].validation.labels), []
    for i, (method, error) in enumerate(errors.items()):
        noise = np.random.default_rng(1).normal(0, error, 150)
        cells.append(cell_of(tasks[0], method, 0, truth + noise, 10 ** (6 - 2 * i)))
    if also:
        tasks.append(task_named("animals"))
        truth = np.array(tasks[1].validation.labels)
        for i, (method, rate) in enumerate(also.items()):
            right = np.random.default_rng(7).random(150) < rate
            cells.append(cell_of(tasks[1], method, 0, np.where(right, truth, (truth + 1) % 3), 10 ** (6 - 2 * i)))
    return summarised("bert", tasks, list(errors), [0], next(iter(errors)), cells)


def test_where_lower_is_better_the_lowest_error_is_best(tmp_path: Path) -> None:
    found = by_error({"full": 0.5, "good": 0.1, "poor": 2.0})
    assert found.higher_is_better is False
    assert [s.method for s in found.best_first] == ["good", "full", "poor"]
    assert found.front("elements") == ["poor", "good"]
    assert {s.method: s.verdict for s in found.overall} == {"full": "", "good": "better", "poor": "worse"}
    first, second, _ = conclusions(found)
    assert first.startswith("good scores best: 0.0")
    assert "(mean absolute error, lower is better)" in first
    assert second.startswith("good is the smallest change that is better than full")
    good = next(s for s in found.overall if s.method == "good")
    assert good.difference is not None
    assert good.difference.mean > 0.2  # positive is better, for an error too
    assert "positive is better" in how_judged(found)
    page = write_page(found, tmp_path / "page.html").read_text()
    assert "no other method scores better for less (poor, good)" in page
    assert "mean absolute error, lower is better" in page
    assert found.as_json()["higher_is_better"] is False


def test_scores_of_both_directions_are_ranked_by_task(tmp_path: Path) -> None:
    # By a mean of scores, full would be best for its large error; by a mean of negated errors, that error alone would decide.
    found = by_error({"full": 3.0, "second": 1.0, "first": 0.1}, also={"full": 0.9, "second": 0.4, "first": 0.6})
    assert found.higher_is_better is None
    assert {s.method: s.mean_rank for s in found.overall} == {"full": 2.0, "second": 2.5, "first": 1.5}
    assert {s.method: s.rank for s in found.overall} == {"full": 2, "second": 3, "first": 1}
    assert [s.mean_rank for s in found.by_task["animals"]] == [None, None, None]
    assert found.front("elements") == ["first"]
    lead = conclusions(found)[0]
    assert lead.startswith("first ranks best: mean rank 1.50 over 2 tasks (of ranks, not of scores")
    assert lead.endswith("full, the reference, has mean rank 2.00.")
    assert "nothing is tested over the tasks" in how_judged(found)
    assert {s.verdict for s in found.overall} == {""}
    # "first" is worse on animals, "second" too; full is the larger one.
    assert conclusions(found)[1] == "Every other method is significantly worse than full on some task."
    overall = found.as_json()["overall"]
    assert [entry["mean"] for entry in overall] == [None, None, None]
    assert json.dumps(found.as_json(), allow_nan=False)
    page = write_page(found, tmp_path / "page.html").read_text()
    assert "mean rank, 1 is best" in page
    assert "the mean over tasks of the rank on each" in page


def test_errors_of_several_tasks_have_no_common_mean() -> None:
    """One in euros would decide for the other, which is in metres."""
    small, large = by_error({"full": 0.1, "good": 0.1}), by_error({"full": 1.0, "good": 0.2})
    tasks = [small.tasks[0], replace(large.tasks[0], name="prices")]
    cells = [*small.cells, *(replace(cell, task="prices") for cell in large.cells)]
    found = summarised("bert", tasks, ["full", "good"], [0], "full", cells)
    assert found.higher_is_better is None
    assert [s.difference for s in found.overall] == [None, None]
    assert "good is the smallest change that is not significantly worse than full on any task" in conclusions(found)[1]


def test_a_method_that_is_refused_elsewhere_has_no_say_in_who_ranks_best() -> None:
    found = by_error({"A": 1.0, "B": 0.5, "C": 0.75}, also={"A": 0.9, "B": 0.5, "C": 0.95})
    cells = [replace(c, refused="no") if (c.task, c.method) == (found.tasks[0].name, "C") else c for c in found.cells]
    without = summarised("bert", found.tasks, ["A", "B", "C"], [0], "A", cells)
    assert {s.method: s.mean_rank for s in without.overall} == {"A": 1.5, "B": 1.5}


def test_nine_rows_tell_nothing_apart() -> None:
    task = task_named("few")
    task = replace(task, splits={name: rows.take(range(9)) for name, rows in task.splits.items()})
    truth = label_tensor(task, task.validation).numpy()
    cells = [cell_of(task, "full", 0, truth), cell_of(task, "head", 0, (truth + 1) % 3)]
    found = summarised("bert", [task], ["full", "head"], [0], "full", cells)
    assert {s.verdict for s in found.overall} == {"", "not significantly different"}
    assert "−1.000 (too few rows)" in markdown(found)
    assert "The 9 validation rows of few are too few" in how_judged(found)
    assert json.dumps(found.as_json(), allow_nan=False)


def test_constant_predictions_and_scores_below_the_start_are_said(tmp_path: Path) -> None:
    task = task_named("animals")
    truth = label_tensor(task, task.validation).numpy()
    cells = [
        cell_of(task, "full", 0, truth), cell_of(task, "head", 0, np.zeros_like(truth)),
        replace(cell_of(task, "lora", 0, truth), baseline={"accuracy": 1.1}),
    ]  # fmt: skip
    found = summarised("bert", [task], ["full", "head", "lora"], [0], "full", cells)
    said = [
        "head predicts the same for every row of animals: the score is that of a constant.",
        "lora scores worse than before training on animals.",
    ]
    assert doubts(found) == said
    assert all(f"- {each}" in markdown(found) for each in said)
    assert all(each in write_page(found, tmp_path / "page.html").read_text() for each in said)


def test_a_dollar_in_a_name_is_drawn(tmp_path: Path) -> None:
    task = task_named("a$_b$")
    truth = label_tensor(task, task.validation).numpy()
    cells = [cell_of(task, name, 0, truth) for name in ("full", "selection:file=x$_{y$.safetensors")]
    found = summarised("bert", [task], [cell.method for cell in cells], [0], "full", cells)
    assert "x$_{y$" in drawing(found, "elements")


def test_a_method_counts_where_every_seed_of_it_was_finished() -> None:
    whole = made_up({"full": 0.9, "close": 0.89, "poor": 0.5})

    def without(change: Any) -> Comparison:
        cells = [each for each in map(change, whole.cells) if each is not None]
        return summarised("bert", whole.tasks, whole.methods, whole.seeds, "full", cells)

    def is_one(cell: Cell) -> bool:
        return (cell.task, cell.method, cell.seed) == ("animals 1", "close", 1)

    refused = without(lambda c: Cell(c.task, c.method, c.seed, c.metric, refused="no peft") if is_one(c) else c)
    missing = without(lambda c: None if is_one(c) else c)
    for found in (refused, missing):
        assert [s.method for s in found.by_task["animals 0"]] == ["full", "close", "poor"]
        assert [s.method for s in found.by_task["animals 1"]] == [s.method for s in found.overall] == ["full", "poor"]
    assert refused.refused == {"close": "on animals 1 with seed 1: no peft"}
    assert missing.refused == {"close": "on animals 1 with seed 1: there is no such cell"}
    assert "close was refused: on animals 1 with seed 1: no peft" in markdown(refused)
    on_one_task = without(
        lambda c: (
            Cell(*(c.task, c.method, c.seed, c.metric), refused="odd")
            if (c.task, c.method) == ("animals 0", "poor")
            else c
        )
    )
    assert on_one_task.refused == {"poor": "on animals 0: odd"}
    assert not whole.refused


def test_what_is_said_where_nothing_was_compared() -> None:
    assert conclusions(made_up({"full": 0.9}))[1] == "Nothing else was compared to full: there is no other method."
    whole = made_up({"full": 0.9, "close": 0.89})
    cells = [replace(cell, refused="no peft") if cell.method == "close" else cell for cell in whole.cells]
    found = summarised("bert", whole.tasks, whole.methods, whole.seeds, "full", cells)
    assert conclusions(found)[1] == "Nothing else was compared to full: the other methods were refused."
    assert "every one is significantly worse" in conclusions(made_up({"full": 0.9, "poor": 0.3}))[1]


def test_a_reference_that_is_itself_the_smallest_is_said_to_be() -> None:
    def second_line(rates: dict[str, float], reference: str) -> str:
        whole = made_up(rates)
        return conclusions(summarised("bert", whole.tasks, whole.methods, whole.seeds, reference, whole.cells))[1]

    line = second_line({"full": 0.9, "norms": 0.89, "head": 0.89}, "head")
    assert line.startswith(
        "head itself is the smallest of the changes that are not significantly worse: 100 parameters"
    )
    assert "better" not in line
    assert second_line({"full": 0.99, "head": 0.6}, "head").endswith("but better than it: full.")
    assert second_line({"full": 0.9, "norms": 0.89, "head": 0.3}, "norms").startswith("norms itself is the smallest")


def test_how_steps_were_chosen_is_not_said_to_be_alike_for_every_method() -> None:
    text = how_judged(made_up({"full": 0.9, "poor": 0.5}))
    assert "alike" not in text
    assert "more epochs" in text


def test_comparisons_over_tasks_are_corrected_among_themselves() -> None:
    found = made_up({"full": 0.9, "close": 0.87, "poor": 0.84})
    for family in ([found.overall], list(found.by_task.values())):
        judged = [summary for each in family for summary in each if summary.difference is not None]
        plain = [summary.difference.p for summary in judged if summary.difference is not None]
        assert len(plain) == 2 * len(family)
        assert [summary.p for summary in judged] == pytest.approx(holm(plain))
        assert min(holm(plain)) > min(plain) > 0


def test_summaries_and_the_three_lines() -> None:
    found = made_up({"full": 0.9, "close": 0.89, "poor": 0.5})
    ranks = {s.method: s.rank for s in found.overall}
    assert ranks == {"full": 1, "close": 2, "poor": 3}
    verdicts = {s.method: s.verdict for s in found.overall}
    assert verdicts == {"full": "", "close": "not significantly different", "poor": "worse"}
    close = found.by_task["animals 0"][1]
    by_seed = [c.score for c in found.cells if c.method == "close" and c.task == "animals 0"]
    assert close.mean == pytest.approx(np.mean(by_seed))
    assert close.standard_deviation == pytest.approx(np.std(by_seed, ddof=1))
    assert found.front("elements") == ["poor", "close", "full"]
    first, second, third = conclusions(found)
    assert first.startswith("full scores best")
    assert second.startswith("close is the smallest change that is not significantly different from full")
    assert third.startswith("poor is quickest")
    # three methods, two tasks and the mean over them: two differences each
    assert sum(s.p is not None for each in [*found.by_task.values(), found.overall] for s in each) == 6


def test_page_and_markdown(tmp_path: Path) -> None:
    found = made_up({"full": 0.9, "<b>odd|name</b>": 0.89})
    page = write_page(found, tmp_path / "page.html").read_text()
    assert conclusions(found)[1].replace("<b>", "&lt;b&gt;").replace("</b>", "&lt;/b&gt;") in page
    assert "<b>odd" not in page
    assert page.count("<svg") == 3
    assert 'src="http' not in page
    assert "url(http" not in page
    tables = write_page(found, tmp_path / "tables.md").read_text()
    assert tables == markdown(found) == write_page(found, tmp_path / "TABLES.MD").read_text()
    assert "odd\\|name" in tables
    assert "\\<b>" in tables
    assert "<b>" not in tables.replace("\\<", "")


@pytest.mark.parametrize("odd", ["method", "reference", "task"])
def test_a_table_in_markdown_holds_whatever_the_names(odd: str) -> None:
    name = "a|b <img src=q> `c`"
    task = task_named(name if odd == "task" else "animals")
    truth = label_tensor(task, task.validation).numpy()
    methods = [name if odd == "reference" else "full", name if odd == "method" else "head"]
    found = summarised("bert", [task], methods, [0], methods[0], [cell_of(task, m, 0, truth) for m in methods])
    text = markdown(found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}
    assert not re.search(r"(?<!\\)[<`]", text)
    assert "img src" in text


def test_json_holds_no_answers(study: Any) -> None:
    text = json.dumps(study[0].as_json())
    assert '"answers"' not in text
    assert '"cells"' in text


def names_in(drawing: str, methods: list[str]) -> list[str]:
    return [method for method in methods if f">{method}<" in drawing]


@pytest.mark.parametrize("count", [3, 14])
def test_where_there_are_many_methods_charts_name_the_front_and_the_reference(count: int, tmp_path: Path) -> None:
    task, draw = task_named("animals"), np.random.default_rng(3)
    truth = np.array(task.validation.labels)
    methods, cells = [f"method{i}" for i in range(count)], []
    for i, method in enumerate(methods):
        answers = np.where(draw.random(150) < 0.5 + 0.02 * (i % 5), truth, (truth + 1) % 3)
        cells.append(cell_of(task, method, 0, answers, 800 + 40 * i, delta_bytes=10_000 + 900 * i))
    found = summarised("bert", [task], methods, [0], methods[-1], cells)
    for cost in COSTS:
        named = names_in(drawing(found, cost), methods)
        wanted = {*found.front(cost), methods[-1]} if count > MOST_NAMES else set(methods)
        assert set(named) == wanted
        assert len(wanted) < count or count <= MOST_NAMES
    assert (">1,000<" in drawing(found, "elements")) == (count == 14)  # a tick, on an axis of less than a decade
    page = write_page(found, tmp_path / "page.html").read_text()
    assert ("only the reference is named" in page) == (count > MOST_NAMES)


def test_long_names_of_methods_may_break_at_commas(tmp_path: Path) -> None:
    long = "moved_top:count=998,by=gain,within=(layer_norms+biases)"
    page = write_page(made_up({"full": 0.9, long: 0.89}), tmp_path / "page.html").read_text()
    assert "moved_top:count=998,<wbr>by=gain,<wbr>within=(layer_norms+biases)" in page


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_predictions_are_kept_in_the_unit_of_the_labels(unit: float) -> None:
    values = unit * torch.tensor([[0.123456789], [-1.0], [2.5]])
    found = predicted_labels(make_task("regression"), values)
    assert np.array_equal(found.astype(np.float32), values[:, 0].numpy())


def test_an_interval_does_not_depend_on_the_unit() -> None:
    plain, tiny = (Difference(-0.1 * unit, 1e-3 * unit**2, 2e-3 * unit**2, 2.0) for unit in (1.0, 1e-12))
    assert np.allclose(np.array(tiny.interval()) / 1e-12, plain.interval(), rtol=1e-6)
    assert tiny.p == pytest.approx(plain.p)


def test_seconds_below_one_have_places_of_their_own() -> None:
    task = task_named("animals")
    truth = np.array(task.validation.labels)
    cells = [cell_of(task, f"m{i}", 0, truth, seconds=seconds) for i, seconds in enumerate((0.2, 0.4, 0.8))]
    found = summarised("bert", [task], ["m0", "m1", "m2"], [0], "m0", cells)
    places = {
        round(float(line.get_xdata()[0]), 3)
        for line in chart(found, "seconds").axes[0].lines
        if line.get_marker() == "o"
    }
    assert places == {0.2, 0.4, 0.8}


@pytest.mark.parametrize(
    ("cost", "values"),
    [
        ("seconds", (3.0, 3.2)), ("seconds", (1.2, 2.4)), ("seconds", (61.0, 75.0)), ("seconds", (0.2, 4000.0)),
        ("delta_bytes", (43_100, 43_130)), ("delta_bytes", (9_000, 90_000_000)),
        ("elements", (22_713_216, 22_713_986)), ("elements", (0, 22_713_216)), ("elements", (998, 9_984)),
    ],
)  # fmt: skip
def test_ticks_of_costs_tell_apart_and_say_what_they_stand_at(cost: str, values: tuple[float, float]) -> None:
    task = task_named("animals")
    truth = label_tensor(task, task.validation).numpy()
    cells = [
        replace(cell, **{cost: {"body": value, "head": 9} if cost == "elements" else value})
        for value, cell in zip(values, (cell_of(task, name, 0, truth) for name in ("full", "head")), strict=True)
    ]
    axis = chart(summarised("bert", [task], ["full", "head"], [0], "full", cells), cost).axes[0].xaxis
    words = [tick.get_text() for tick in axis.get_ticklabels()]
    assert 2 <= len(words) <= 10
    assert len(set(words)) == len(words)
    if cost == "seconds":
        assert [float(word.removesuffix(" s").replace(",", "")) for word in words] == pytest.approx(axis.get_ticklocs())


def test_baselines_are_the_first_lines_and_no_methods(encoder: Any, tmp_path: Path) -> None:
    tasks = [make_task(), replace(make_task(n_train=90), name="others")]
    found = compare(encoder, tasks, ["head"], seeds=2, out=tmp_path, baselines=True, epochs=1)
    names = ["majority", "tf-idf", "frozen vectors"]
    assert [s.method for s in found.baselines["animals"]] == [s.method for s in found.baselines[""]] == names
    assert found.methods == ["head"]
    assert {cell.method for cell in found.cells} == {"head"}
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 2 * (
        2 + 3
    )  # of each baseline one: rows are the same
    one, other = (found.baselines[task.name][1].mean for task in tasks)
    assert found.baselines[""][1].mean == pytest.approx((one + other) / 2)
    lines = markdown(found).splitlines()
    table = [line.split(" | ")[0] for line in lines if line.startswith("| ") and "method" not in line]
    assert table == [f"| {name}" for name in [*names, "head"] * 3]
    page = write_page(found, tmp_path / "page.html").read_text()
    assert page.count(">frozen vectors</th>") == 3
    assert [each["method"] for each in found.as_json()["baselines"]["others"]] == names
    # Of a part of the rows each seed has its own.
    some = compare(encoder, tasks[:1], ["head"], seeds=2, baselines=True, epochs=1, train_limit=30)
    assert some.baselines["animals"][1].standard_deviation is not None


def test_a_method_that_is_no_better_than_words_is_said_to_be() -> None:
    found = made_up({"full": 0.7, "head": 0.6}, n_tasks=1)
    words = replace(found.by_task[found.tasks[0].name][0], method="tf-idf", mean=0.99)
    said = doubts(replace(found, baselines={found.tasks[0].name: [words]}))
    assert f"No method scores better than tf-idf on {found.tasks[0].name} (0.990), which takes seconds." in said
    assert not [each for each in doubts(found) if "No method" in each]
