"""Several classes in a cell, one class in a list, one column of 0 and 1, and marks for no label."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_like
from trimtab.tasks.task import Task

WriteRows = Callable[[str, list[dict[str, Any]]], Path]


@pytest.fixture
def read_labels(write_rows: WriteRows) -> Callable[..., Task]:
    """A function from labels, one a row of JSON Lines, to the task; nothing is held out."""

    def read_labels(labels: list[Any], **options: Any) -> Task:
        rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
        return read(write_rows("rows.jsonl", rows), **{"validation_share": 0.0, **options})

    return read_labels


Reader = Callable[..., Task]


def message(read: Reader, labels: list[Any], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(labels, **options)
    return str(caught.value)


TAGS = ["rude", "urgent,billing", "rude,billing", "", "billing,urgent,rude"]


@pytest.mark.parametrize("mark", [",", ", ", "/", " / ", "#", "\n", ";", "|"])
def test_classes_of_one_cell_are_divided(read_labels: Reader, mark: str) -> None:
    task = read_labels([tags.replace(",", mark) for tags in TAGS], kind="multi_label")
    assert task.classes == ("billing", "rude", "urgent")
    assert task.train.labels == [[1], [0, 2], [0, 1], [], [0, 1, 2]]
    found = mark.strip(" ") if mark.strip(" ") not in (";", "|") else None
    assert task.reading.label_separator == found
    assert any(f"divided by {found!r}" in note for note in task.notes) == (found is not None)


def test_hash_tags_are_divided(read_labels: Reader) -> None:
    task = read_labels(["#rude", "#rude #late", "#late", "#rude#new", "#new"], kind="multi_label")
    assert (task.classes, task.train.labels[1]) == (("late", "new", "rude"), [0, 2])


def test_a_mark_that_may_be_part_of_a_name_is_asked_about(read_labels: Reader) -> None:
    labels = ["Smith, John", "Lee, Ann", "Smith, John"]
    said = message(read_labels, labels, kind="multi_label")
    assert "line 1: the label 'Smith, John' may be several classes, or one with ','" in said
    assert "--label-separator ','" in said
    task = read_labels(labels, kind="multi_label", label_separator="")
    assert (task.classes, task.train.labels) == (("Lee, Ann", "Smith, John"), [[1], [0], [1]])
    task = read_labels(labels, kind="multi_label", label_separator=",")
    assert task.classes == ("Ann", "John", "Lee", "Smith")


def test_a_separator_that_is_named_divides_and_nothing_else_does(read_labels: Reader) -> None:
    task = read_labels(["a|b::c", "c", "a|b"], kind="multi_label", label_separator="::")
    assert (task.classes, task.train.labels) == (("a|b", "c"), [[0, 1], [1], [0]])


def test_a_separator_says_that_there_are_several_classes(read_labels: Reader) -> None:
    task = read_labels(["a\nb", "b", "a"], label_separator="\\n")
    assert (task.kind, task.train.labels) == ("multi_label", [[0, 1], [1], [0]])
    with pytest.raises(InputError, match="not of single_label"):
        read_like(read_labels(["a", "b"]), [{"text": "x", "label": "a"}], label_separator=",")
    assert "not of single_label" in message(read_labels, ["a,b", "c"], label_separator=",", kind="single_label")


def test_names_that_are_declared_are_never_divided(write: Callable[..., Path]) -> None:
    write("task/labels.json", '{"type": "multi_label", "classes": ["oil, gas", "coal"]}')
    folder = write("task/train.csv", 'text,label\nx,"oil, gas"\ny,coal\nz,"oil, gas|coal"\n').parent
    assert read(folder, validation_share=0).train.labels == [[0], [1], [0, 1]]


def test_other_files_of_the_task_are_divided_likewise(read_labels: Reader, write: Callable[..., Path]) -> None:
    task = read_labels(TAGS, kind="multi_label")
    path = write("new.csv", 'text,label\nx,"rude,urgent"\ny,\n')
    assert read_like(task, path).test.labels == [[1, 2], []]
    assert Task.from_description(task.description()).reading == task.reading


@pytest.mark.parametrize("mark", ["|", ";", ",", "#", "/", "\n"])
def test_without_a_kind_a_combination_beside_its_parts_is_asked_about(read_labels: Reader, mark: str) -> None:
    labels = [f"rude{mark}late", "rude", "late"] * 5
    assert "may be one class or several" in message(read_labels, labels)
    assert len(read_labels(labels, kind="single_label").classes) == 3


@pytest.mark.parametrize("mark", ["|", ";", ",", "#", "/"])
def test_without_a_kind_parts_in_changing_company_are_noted(read_labels: Reader, mark: str) -> None:
    labels = [f"rude{mark}late", f"late{mark}new", f"new{mark}rude"] * 5
    (note,) = read_labels(labels).notes
    assert f"labels such as 'rude{mark}late' may be several classes, which are divided by {mark!r}" in note
    assert read_labels(labels, kind="single_label").notes == ()
    assert read_labels([f"rude{mark}late", f"new{mark}old"] * 5).notes == (), (
        "parts that are always together are a name"
    )


def test_lists_that_are_written_as_text_are_read_where_all_are(read_labels: Reader) -> None:
    task = read_labels(["['a', 'b']", '["a"]', "[]"], kind="multi_label")
    assert (task.classes, task.train.labels) == (("a", "b"), [[0, 1], [0], []])
    for odd in ("[a, b]", "a", "[['a']]"):
        assert "looks like a list written as text" in message(read_labels, ["['a', 'b']", odd], kind="multi_label")


# One class in every row.


def test_lists_of_one_class_are_said_and_taken_as_one_label(read_labels: Reader) -> None:
    labels = [["fish"], ["bird"], ["fish"]]
    task = read_labels(labels)
    assert task.kind == "multi_label"
    assert "each of the 3 rows has exactly one class" in task.notes[0]
    assert "--kind single_label" in task.notes[0]
    assert read_labels([*labels, []]).notes == ()
    assert read_labels(labels, kind="multi_label").notes == (), "it was asked for"
    task = read_labels(labels, kind="single_label")
    assert (task.kind, task.classes, task.train.labels) == ("single_label", ("bird", "fish"), [1, 0, 1])


def test_one_hot_columns_are_said_and_taken_as_one_label(write: Callable[..., Path]) -> None:
    path = write("a.csv", "text,fish,bird\nx,1,0\ny,0,1\nz,0,1\n")
    task = read(path, label="fish,bird", validation_share=0)
    assert (task.kind, task.train.labels) == ("multi_label", [[0], [1], [1]])
    assert "each of the 3 rows has exactly one class" in task.notes[0]
    task = read(path, label="fish,bird", kind="single_label", validation_share=0)
    assert (task.kind, task.classes, task.train.labels) == ("single_label", ("fish", "bird"), [0, 1, 1])
    assert read_like(task, path).test.labels == [0, 1, 1]
    both = write("b.csv", "text,fish,bird\nx,1,1\ny,0,1\n")
    with pytest.raises(InputError, match=r"line 2: this row has 2 classes \('fish', 'bird'\)"):
        read(both, label="fish,bird", kind="single_label")
    with pytest.raises(InputError, match=r"line 2: this row has 0 classes \(none\)"):
        read(write("b.csv", "text,fish,bird\nx,0,0\ny,0,1\n"), label="fish,bird", kind="single_label")


# One column of 0 and 1.


@pytest.mark.parametrize("flags", [("0", "1"), (0, 1), (False, True), (0.0, 1.0)])
def test_a_column_of_0_and_1_is_the_class_of_its_name(write_rows: WriteRows, flags: tuple[Any, Any]) -> None:
    rows = [{"text": f"t {i}", "spam": flags[i % 3 == 0]} for i in range(6)]
    path = write_rows("a.jsonl", rows)
    task = read(path, label="spam", kind="multi_label", validation_share=0)
    assert (task.classes, task.train.labels) == (("spam",), [[0], [], [], [0], [], []])
    assert "'spam' is the one class" in task.notes[0]
    assert read_like(task, path).test.labels == task.train.labels
    other = write_rows("b.jsonl", [{"text": "x", "junk": flags[1]}, {"text": "y", "junk": flags[0]}])
    assert read_like(task, other, label="junk").test.labels == [[0], []]


def test_a_gap_in_a_column_of_0_and_1_is_no_0(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"1 with no label \(line 3\)"):
        read(write("a.csv", "text,spam\nx,1\ny,\nz,0\n"), label="spam", kind="multi_label")


# Rows without tags.


@pytest.mark.parametrize("empty", [None, "", " ", "\u200b", float("nan")])
@pytest.mark.parametrize("kind", ["multi_label", None])
def test_rows_without_tags_are_rows_of_no_class(read_labels: Reader, empty: Any, kind: str | None) -> None:
    task = read_labels([["a", "b"], empty, ["a"]], kind=kind)
    assert task.train.labels == [[0, 1], [], [0]]
    assert "1 row without a label is a row of no class" in task.notes[0]


def test_a_row_without_the_column_of_tags_is_a_row_of_no_class(write_rows: WriteRows) -> None:
    path = write_rows("a.jsonl", [{"text": "x", "tags": ["a", "b"]}, {"text": "y"}, {"text": "z"}])
    task = read(path, label="tags", validation_share=0)
    assert task.train.labels == [[0, 1], [], []]
    assert "2 rows without a label are rows of no class" in task.notes[0]


# Marks for no label.


@pytest.mark.parametrize("mark", ["-100", "-1", "-999"])
@pytest.mark.parametrize("kind", [None, "regression"])
def test_a_number_beside_the_labels_is_noted_and_left_out_on_request(
    read_labels: Reader, mark: str, kind: str | None
) -> None:
    labels = [0, int(mark), 1, 2, int(mark)]
    task = read_labels(labels, kind=kind)
    assert f"the label {mark} is often a mark for no label" in task.notes[0]
    assert f"--missing-label {mark}" in task.notes[0]
    task = read_labels(labels, kind=kind, missing_label=int(mark))
    assert task.train.labels == [0, 1, 2]
    assert f"left out 2 of 5 rows (2 with the label '{mark}', which stands for none)" in task.notes[0]
    assert task.reading.missing_label == (mark,)


@pytest.mark.parametrize(("labels", "kind"), [([-1, 1], None), ([-2, -1, 1], None), ([-2.5, -1.0, 3], "regression")])
def test_a_negative_label_among_its_like_is_not_noted(
    read_labels: Reader, labels: list[float], kind: str | None
) -> None:
    assert read_labels(labels, kind=kind).notes == ()


def test_a_word_for_no_label_is_left_out_on_request(read_labels: Reader) -> None:
    labels = ["yes", "n/a", "no", "?"]
    assert "--missing-label n/a" in read_labels(labels).notes[0]
    task = read_labels(labels, missing_label=["n/a", "?"])
    assert task.classes == ("no", "yes")
    assert "2 with the label 'n/a' or '?'" in task.notes[0]


def test_marks_are_found_in_lists_and_columns_of_0_and_1(read_labels: Reader, write: Callable[..., Path]) -> None:
    task = read_labels([["a", "b"], ["b", "n/a"], ["n/a"], []], missing_label="n/a")
    assert task.train.labels == [[0, 1], [1], []]
    path = write("a.csv", "text,a,b\nx,1,0\ny,-1,-1\nz,1,1\n")
    task = read(path, label="a,b", missing_label=-1, validation_share=0)
    assert task.train.labels == [[0], [0, 1]]


def test_a_test_split_of_marks_alone_has_no_labels(write: Callable[..., Path]) -> None:
    write("t/train.csv", "text,label\nx,0\ny,1\nz,-100\n")
    task = read(write("t/test.csv", "text,label\nx,-100\ny,-100.0\n").parent, missing_label="-100", validation_share=0)
    assert (task.train.labels, task.test.labels) == ([0, 1], [None, None])
    scored = read_like(task, write("new.csv", "text,label\nx,-100\ny,1\n"))
    assert scored.test.labels == [1], "the run's own marks hold for other files"


# Quantities.


@pytest.mark.parametrize(
    "labels",
    [
        ["62.225,00 \u20ac", "1.200,50 \u20ac", "900,00 \u20ac"],
        ["$1,200.50", "$900.00"],
        ["EUR 5.10", "EUR 7.20"],
        ["1,5", "2,25"],
        ["1'200.5", "3'400.0"],
        ["12.5%", "7.0%"],
        ["3.5 kg", "12 kg"],
    ],
)
def test_prices_and_measures_are_not_taken_for_classes(read_labels: Reader, labels: list[str]) -> None:
    said = message(read_labels, labels)
    assert f"line 1: the label {labels[0]!r} looks like a quantity" in said
    assert "--kind regression" in said
    assert len(read_labels(labels, kind="single_label").classes) == len(labels)
    assert "line" in message(read_labels, labels, kind="regression")


@pytest.mark.parametrize(
    "labels", [["5 %", "10 %", "20 %"], ["1st", "2nd"], ["3-5", "6-9"], ["A 1.5", "B 2.5"], ["<18", "18+"]]
)
def test_few_measures_without_a_fraction_may_be_classes(read_labels: Reader, labels: list[str]) -> None:
    assert set(read_labels(labels).classes) == set(labels)


def test_many_measures_are_asked_about(read_labels: Reader) -> None:
    assert "looks like a quantity" in message(read_labels, [f"{i} \u20ac" for i in range(30)])


# What cannot be seen.


@pytest.mark.parametrize(
    "blank", ["\u200b", "\ufeff", "\u00ad\u200d", "\x00\x1f", "\u2028 ", "\u3164", "\ufe0f", "\u2060\t"]
)
def test_a_text_of_which_nothing_can_be_seen_is_empty(write_rows: WriteRows, blank: str) -> None:
    rows = [{"text": "x", "label": "a"}, {"text": blank, "label": "b"}, {"text": "y", "label": "b"}]
    path = write_rows("a.jsonl", rows)
    with pytest.raises(InputError, match=r"1 with an empty text \(line 2\)"):
        read(path)
    assert len(read(path, skip_bad_rows=True, validation_share=0).train) == 2
    labels = [{"text": "x", "label": "a"}, {"text": "z", "label": blank}, {"text": "y", "label": "b"}]
    with pytest.raises(InputError, match=r"1 with no label \(line 2\)"):
        read(write_rows("b.jsonl", labels))


@pytest.mark.parametrize("text", ["\U0001f600", "\u0e01", "\u05d0", "\u0645\u200c\u0646", "a\u200b", ".", "\u0301"])
def test_a_text_of_which_something_can_be_seen_is_none_of_these(write_rows: WriteRows, text: str) -> None:
    path = write_rows("a.jsonl", [{"text": text, "label": "a"}, {"text": "y", "label": "b"}])
    assert read(path, validation_share=0).train.texts == ([text, "y"],)


def test_classes_that_differ_in_what_cannot_be_seen_are_noted(read_labels: Reader) -> None:
    (note,) = read_labels(["good", "good\u200b", "bad"]).notes
    assert "differ only in how they are written" in note
