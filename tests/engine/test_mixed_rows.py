"""Rows of several tasks, for any texts, tasks, items and points at which tasks begin."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trimtab.engine.mixed_rows import END, NOBODY, MixedRows, ModuleChange, TaskChange

POINTS = (0, 1, 4, 9, 18, END)  # at which tasks may begin
PATHS = ("a", "b", "c")
CPU = torch.device("cpu")


@st.composite
def batches(draw: st.DrawFn) -> MixedRows:
    """Texts, tasks that begin anywhere and change some modules, and items, of which some come twice."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    tasks = []
    for start in draw(st.lists(st.sampled_from(POINTS), min_size=1, max_size=5)):
        changed = {}
        if start != END:
            for path in draw(st.sets(st.sampled_from(PATHS))):
                matrix = draw(st.booleans())
                changed[path] = ModuleChange(weight=torch.zeros(2, 2) if matrix else None, bias=torch.zeros(2))
        tasks.append(TaskChange(changed, start))
    item = st.tuples(st.integers(0, len(lengths) - 1), st.integers(0, len(tasks) - 1))
    items = draw(st.lists(item, min_size=1, max_size=16))
    return MixedRows(lengths, tasks, items, CPU, step=draw(st.sampled_from([1, 2, 8, 64])))


def carried(rows: MixedRows) -> Tensor:
    """A tensor (T,) of the number of each token's text and its place in it, as 100 * text + place; of padding -1."""
    found = [100 * row.text + place for row in rows.rows for place in range(rows.lengths[row.text])]
    return torch.tensor(found + [-1] * (sum(rows.layout.lengths) - len(found)))


def by_row(rows: MixedRows, x: Tensor) -> list[list[int]]:
    """The values of each row."""
    parts = x.split(rows.layout.lengths)
    return [part.tolist() for part in parts[: len(rows.rows)]]


def check_partition(rows: MixedRows, point: int) -> None:
    """That every item has one row: of its text, shared only with tasks that have not begun, unless it has begun itself."""
    pairs = [(row.text, task) for row in rows.rows for task in row.tasks]
    assert len(pairs) == len({*pairs})
    assert {*pairs} == {*rows.items}
    for row in rows.rows:
        assert len(row.tasks) == 1 or all(rows.tasks[task].start > point for task in row.tasks)
    # Those of one text that have not begun have one row between them.
    waiting = [row.text for row in rows.rows if any(rows.tasks[task].start > point for task in row.tasks)]
    assert len(waiting) == len({*waiting})


def check_row_of(rows: MixedRows) -> None:
    """That `row_of` tells each item the row that has its text and its task."""
    found = rows.row_of()
    assert found.keys() == {*rows.items}
    for (text, task), number in found.items():
        assert rows.texts[number] == text
        assert task in rows.rows[number].tasks


def check_layout(rows: MixedRows) -> None:
    """That rows follow each other without a gap, and padding fills them up to the step."""
    starts, lengths = rows.layout.starts, rows.layout.lengths
    assert lengths[: len(rows.rows)] == [rows.lengths[text] for text in rows.texts]
    assert starts == [sum(lengths[:i]) for i in range(len(lengths))]
    tokens = sum(lengths[: len(rows.rows)])
    assert sum(lengths) % rows.step == 0
    assert sum(lengths) - tokens < rows.step
    assert len(lengths) - len(rows.rows) == (sum(lengths) > tokens)


def check_runs(rows: MixedRows) -> None:
    """That runs cover tokens, and texts, in order, each with its own task's change where that has a module at the paths."""
    sizes = rows.layout.lengths
    padding = [None] * (len(sizes) - len(rows.rows))
    tasks = [None if row.task == NOBODY else rows.tasks[row.task] for row in rows.rows] + padding
    for paths in (["a"], ["b", "c"], ["none"]):
        of_text = [task if task is not None and {*paths} & task.modules.keys() else None for task in tasks]
        of_token = [change for change, size in zip(of_text, sizes, strict=True) for _ in range(size)]
        for expected in (of_token, of_text):
            runs = rows.runs(paths, len(expected))
            assert [run.start for run in runs] == [0, *[run.stop for run in runs[:-1]]]
            assert all(run.start < run.stop for run in runs)
            covered = [run.change for run in runs for _ in range(run.stop - run.start)]
            assert len(covered) == len(expected)
            assert all(a is b for a, b in zip(covered, expected, strict=True))
            # As few as can be: a task has one, and none follows another without a change.
            changes = [id(run.change) for run in runs if run.change is not None]
            assert len(changes) == len({*changes})
            assert all(a.change is not None or b.change is not None for a, b in pairwise(runs))


def check_all(rows: MixedRows, point: int) -> None:
    check_partition(rows, point)
    check_row_of(rows)
    check_layout(rows)
    check_runs(rows)


@given(batches())
def test_every_item_has_a_row_of_its_text_and_in_the_end_of_its_task(rows: MixedRows) -> None:
    check_all(rows, 0)
    for point in POINTS[1:]:
        rows.reach(point)
        check_all(rows, point)
    assert all(len(row.tasks) == 1 for row in rows.rows)
    assert len(rows.rows) == len({*rows.items})
    assert {(row.text, row.task) for row in rows.rows} == {*rows.items}


@given(batches(), st.sets(st.sampled_from(POINTS[1:])))
def test_states_go_with_their_texts(rows: MixedRows, stops: set[int]) -> None:
    x = carried(rows)
    wide = x[:, None].repeat(1, 3)
    for point in sorted(stops):
        parts = rows.parts_at(point)
        before = len(rows.rows)
        x, wide = rows.reach(point, x, wide)
        assert parts == (len(rows.rows) > before)
        assert len(x) == sum(rows.layout.lengths)
        assert by_row(rows, x) == by_row(rows, carried(rows))
        assert torch.equal(wide, x[:, None].expand(-1, 3))
        # Nothing is left to do at the same point.
        assert not rows.parts_at(point)
        assert rows.reach(point, x)[0] is x


@given(batches(), st.sampled_from(POINTS[1:-1]))
def test_behind_the_last_attention_first_tokens_go_with_their_texts(rows: MixedRows, point: int) -> None:
    rows.reach(point)
    x = carried(rows).index_select(0, rows.layout.first_rows())
    rows.by_text = True
    for later in [each for each in POINTS if each > point]:
        (x,) = rows.reach(later, x)
        assert len(x) == len(rows.layout.lengths)
        assert x[: len(rows.rows)].tolist() == [100 * text for text in rows.texts]


@given(batches())
def test_who_has_matrices_of_his_own_comes_last(rows: MixedRows) -> None:
    for point in POINTS:
        if point:
            rows.reach(point)
        weights: Sequence[int] = [
            sum(change.weight is not None for change in rows.tasks[row.task].modules.values())
            for row in rows.rows
            if row.task != NOBODY
        ]
        assert [*weights] == sorted(weights)
        # Shared rows first, so that each task's are one run.
        assert sorted(rows.rows, key=lambda row: row.task != NOBODY) == rows.rows


@given(batches())
def test_a_number_of_rows_that_is_neither_of_tokens_nor_of_texts_is_refused(rows: MixedRows) -> None:
    wrong = sum(rows.layout.lengths) + 1
    with pytest.raises(RuntimeError, match=f"{wrong} rows of a"):
        rows.runs(["a"], wrong)
