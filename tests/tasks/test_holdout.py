"""Rows held out for validation, and training limited to some rows."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks.holdout import draw_order, hold_out, limited
from trimtab.tasks.task import Rows, Task


def rows(labels: list[Any]) -> Rows:
    return Rows(([f"text {i}" for i in range(len(labels))],), labels)


def task(n: int) -> Task:
    return Task("t", "single_label", ("a", "b"), ("text",), "label", "accuracy", {"train": rows([0, 1] * n)})


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 3))
def test_held_out_rows_are_a_stratified_part_of_all(labels: list[int], share: float, seed: int) -> None:
    counts = Counter(labels)
    if max(counts.values()) == 1:
        said = f"each of the {len(labels)} labels occurs once" if len(labels) > 1 else "too few"
        with pytest.raises(InputError, match=said):
            hold_out(rows(labels), "single_label", share, seed)
        return
    train, validation, note = hold_out(rows(labels), "single_label", share, seed)
    assert sorted([*train.texts[0], *validation.texts[0]]) == sorted(rows(labels).texts[0])
    assert f"{len(validation)} of {len(labels)} training rows held out, stratified, seed {seed}" in note
    held = Counter(validation.labels)
    assert all(held[label] <= count - 1 for label, count in counts.items()), "every class stays in training"
    # A class that can spare none leaves its part to others, which then may give a whole row more.
    assert all(held[label] - count * share <= 1 for label, count in counts.items())
    assert all(min(count * share, count - 1) - held[label] < 1 for label, count in counts.items())
    if all(count * share <= count - 1 for count in counts.values()):
        assert len(validation) == max(1, int(len(labels) * share + 0.5))


def test_labels_that_occur_once_are_asked_about() -> None:
    with pytest.raises(InputError, match=r"each of the 12 labels occurs once.*--label.*--kind regression"):
        hold_out(rows(list(range(12))), "single_label", 0.1, 0)
    with pytest.raises(InputError, match="1 training rows are too few"):
        hold_out(rows([0.5]), "regression", 0.1, 0)


def test_held_out_rows_depend_on_the_seed_and_keep_their_order() -> None:
    first, again, other = (hold_out(rows([0, 1] * 50), "single_label", 0.2, seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    numbers = [int(text.split()[1]) for text in first.texts[0]]
    assert numbers == sorted(numbers)
    assert Counter(first.labels) == {0: 10, 1: 10}


def test_small_classes_share_the_held_out_rows_by_lot() -> None:
    """30 classes of 3 rows, a tenth held out: 9 classes give a row, and not always the same ones."""
    labels = [i % 30 for i in range(90)]
    classes = [tuple(sorted(hold_out(rows(labels), "single_label", 0.1, seed)[1].labels)) for seed in range(4)]
    assert all(len(set(found)) == 9 for found in classes)
    assert len(set(classes)) > 1


@pytest.mark.parametrize(("kind", "labels"), [("regression", [0.5] * 10), ("multi_label", [[0], [], [0, 1], [1]] * 3)])
def test_other_kinds_are_held_out_without_strata(kind: Any, labels: list[Any]) -> None:
    train, validation, note = hold_out(rows(labels), kind, 0.2, 0)
    assert (len(train), len(validation)) == (len(labels) - 2, 2)
    assert note.endswith("held out, seed 0")


def test_a_limited_task_has_fewer_training_rows_in_a_seeded_order() -> None:
    whole = task(20)
    small = limited(whole, 8, seed=0)
    assert len(small.train) == 8
    assert set(small.train.texts[0]) < set(whole.train.texts[0])
    assert small.train.texts[0] == limited(whole, 12, seed=0).train.texts[0][:8], "a larger limit starts the same"
    assert small.train != limited(whole, 8, seed=1).train
    assert small.notes == ("training limited to 8 of 40 rows, stratified, seed 0",)


@pytest.mark.parametrize("limit", [None, 40, 1000])
def test_a_limit_beyond_the_rows_changes_nothing(limit: int | None) -> None:
    assert limited(task(20), limit, seed=0) == task(20)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match="--train-limit"):
        limited(task(20), limit, seed=0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 3))
def test_every_beginning_of_a_draw_is_stratified(labels: list[int], seed: int) -> None:
    """One row of every class first, then of each class its share of the rows drawn so far, to within two rows."""
    order = draw_order(labels, "single_label", seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    counts = Counter(labels)
    assert {labels[i] for i in order[: len(counts)]} == set(counts)
    for n in range(len(counts), len(labels) + 1):
        drawn = Counter(labels[i] for i in order[:n])
        assert all(abs(drawn[c] - n * counts[c] / len(labels)) < 2 + len(counts) for c in counts)


def test_a_draw_of_a_balanced_task_is_balanced() -> None:
    order = draw_order([0, 1, 2, 3] * 50, "single_label", 1)
    for n in (8, 16, 40, 100):
        found = Counter(int(i) % 4 for i in order[:n])
        assert max(found.values()) - min(found.values()) <= 1


@pytest.mark.parametrize(("kind", "labels"), [("regression", [0.5, 1.0, 2.0]), ("multi_label", [[0], [], [1]])])
def test_other_kinds_are_drawn_without_strata(kind: Any, labels: list[Any]) -> None:
    assert sorted(draw_order(labels, kind, 0).tolist()) == [0, 1, 2]
