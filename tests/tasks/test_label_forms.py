"""Labels as other libraries write them: vectors of 0 and 1, and objects of flags."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_like


def rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


@pytest.mark.parametrize("one", [1, 1.0, True])
def test_a_vector_has_a_class_for_each_position(one: Any) -> None:
    task = read(rows([[0, one, 0], [one, one, 0], [0, 0, 0], [0, 0, one]]), validation_share=0)
    assert (task.kind, task.classes) == ("multi_label", ("0", "1", "2"))
    assert task.train.labels == [[1], [0, 1], [], [2]]
    assert "each label is a list of 3 zeros and ones" in task.notes[0]


def test_vectors_of_two_positions_are_not_the_classes_0_and_1() -> None:
    """As class numbers every row would have both."""
    task = read(rows([[0, 1], [1, 0], [1, 0]]), validation_share=0)
    assert task.train.labels == [[1], [0], [0]]
    assert read(rows([[0, 1], [1, 0]]), kind="single_label", validation_share=0).train.labels == [1, 0]
    assert read_like(task, rows([[1, 1], [0, 0]])).test.labels == [[0, 1], []]


def test_lists_of_class_numbers_stay_such() -> None:
    task = read(rows([[0, 1], [1, 2], [2]]), validation_share=0)
    assert (task.classes, task.train.labels) == (("0", "1", "2"), [[0, 1], [1, 2], [2]])
    assert read_like(task, rows([[0, 1], [1, 0]])).test.labels == [[0, 1], [0, 1]]


def test_vectors_that_pandas_has_written_as_text_are_vectors(write: Callable[[str, str], Path]) -> None:
    path = write("a.csv", 'text,label\na,"[0, 1, 0]"\nb,"[1, 0, 1]"\n')
    task = read(path, kind="multi_label", validation_share=0)
    assert task.train.labels == [[1], [0, 2]]


def test_objects_of_flags_name_their_classes(write: Callable[[str, str], Path]) -> None:
    labels = [{"POS": 1.0, "NEG": 0.0}, {"POS": 0, "NEG": 1}, {"POS": None, "NEG": True}, {"POS": 0, "NEG": 0}]
    task = read(rows(labels), validation_share=0)
    assert (task.kind, task.classes, task.train.labels) == ("multi_label", ("NEG", "POS"), [[1], [0], [0], []])
    path = write("a.jsonl", "".join(json.dumps({"text": "x", "cats": label}) + "\n" for label in labels[:3]))
    assert read(path, label="cats", kind="single_label", validation_share=0).train.labels == [1, 0, 0]


def test_objects_of_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"row 1: the label is \{'POS': 0.7.*a label is a word or a number"):
        read(rows([{"POS": 0.7, "NEG": 0.3}, {"POS": 1, "NEG": 0}]))
