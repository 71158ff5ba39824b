"""Labels as written to kind, class names and codes; every label that leaves a doubt is refused with its row."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_like
from trimtab.tasks.task import Task

WriteRows = Callable[[str, list[dict[str, Any]]], Path]
Write = Callable[[str, str], Path]


@pytest.fixture
def read_labels(write_rows: WriteRows) -> Callable[..., Task]:
    """A function from labels, one a row of JSON Lines, to the task; nothing is held out."""

    def read_labels(labels: list[Any], **options: Any) -> Task:
        rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
        return read(write_rows("rows.jsonl", rows), **{"validation_share": 0.0, **options})

    return read_labels


@pytest.fixture
def read_cells(write: Write) -> Callable[..., Task]:
    """A function from labels, one a row of CSV, to the task; nothing is held out."""

    def read_cells(labels: list[str], **options: Any) -> Task:
        lines = [f'text {i},"{label}"' for i, label in enumerate(labels)]
        path = write("rows.csv", "\n".join(["text,label", *lines]))
        return read(path, **{"validation_share": 0.0, **options})

    return read_cells


Reader = Callable[..., Task]


def refused(read: Reader, labels: list[Any], *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(labels, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        (["spam", "ham", "spam"], ("ham", "spam"), [1, 0, 1]),
        ([3, 10, 1], ("1", "3", "10"), [1, 2, 0]),
        ([-1, 1, -1], ("-1", "1"), [0, 1, 0]),
        (["3", "10", "1"], ("1", "3", "10"), [1, 2, 0]),
        ([True, False], ("false", "true"), [1, 0]),
        (["1", 2, "two"], ("1", "2", "two"), [0, 1, 2]),
        (["007", "7", "07"], ("007", "07", "7"), [0, 2, 1]),
        (["1234567890123456789", "1234567890123456788"], ("1234567890123456788", "1234567890123456789"), [1, 0]),
    ],
)
def test_words_and_whole_numbers_are_classes(
    read_labels: Reader, labels: list[Any], classes: tuple[str, ...], codes: list[int]
) -> None:
    task = read_labels(labels)
    assert (task.kind, task.metric, task.classes) == ("single_label", "accuracy", classes)
    assert task.train.labels == codes


@pytest.mark.parametrize("labels", [["True", "FALSE", "true", " false"], [True, "False", "TRUE", False]])
def test_true_and_false_are_one_label_in_any_case(read_labels: Reader, labels: list[Any]) -> None:
    task = read_labels(labels)
    assert (task.classes, task.train.labels) == (("false", "true"), [1, 0, 1, 0])
    assert read_labels([[label] for label in labels]).classes == ("false", "true")


def test_declared_true_and_false_are_found_in_any_case(write: Write) -> None:
    write("task/labels.json", '["True", "False"]')
    task = read(write("task/train.csv", "text,label\nx,true\ny,FALSE\n").parent, validation_share=0)
    assert (task.classes, task.train.labels) == (("True", "False"), [0, 1])
    scored = read_like(task, write("new.jsonl", '{"text": "x", "label": false}\n'))
    assert (scored.classes, scored.test.labels) == (("True", "False"), [1])


def test_whole_numbers_in_a_csv_are_sorted_as_numbers(read_cells: Reader) -> None:
    task = read_cells(["3", " 10", "1 "])
    assert (task.classes, task.train.labels) == (("1", "3", "10"), [1, 2, 0])


def test_floats_that_are_whole_are_classes_when_the_kind_says_so(read_cells: Reader) -> None:
    task = read_cells(["0.0", "1.0", "1"], kind="single_label")
    assert (task.classes, task.train.labels) == (("0", "1"), [0, 1, 1])


@pytest.mark.parametrize("labels", [["0.0", "1.0"], ["1", "2.5", "3"], ["1e3", "2"], ["inf", "1"]])
def test_floats_without_a_kind_are_refused(read_cells: Reader, labels: list[str]) -> None:
    refused(read_cells, labels, "written as a float", "--kind regression", 'kind="regression"', "--kind single_label")


def test_a_float_among_classes_is_refused_with_its_rows(read_labels: Reader) -> None:
    words = ("rows.jsonl, lines 2, 4", "0.5", "float in a classification task", "--kind regression")
    refused(read_labels, [1, 0.5, 0, 0.25], *words, kind="single_label")


def test_regression_takes_any_finite_number(read_labels: Reader) -> None:
    task = read_labels([1, 2.5, "-3e-1", ".5", "05", "-00.5", 1e15], kind="regression")
    assert (task.kind, task.metric, task.classes, task.n_outputs) == ("regression", "pearson", (), 1)
    assert task.train.labels == [1.0, 2.5, -0.3, 0.5, 5.0, -0.5, 1e15]
    assert all(isinstance(label, float) for label in task.train.labels)


def test_thousands_are_told_from_decimal_commas(read_cells: Reader) -> None:
    refused(read_cells, ["16,400", "3,200"], "Write 16400 for 16,400, or 16.4", kind="regression")
    refused(read_cells, ["1,5", "3,25"], "Write 0.5 and not 0,5", kind="regression")


def test_the_label_that_is_named_as_a_float_is_one(read_cells: Reader) -> None:
    refused(read_cells, ["0", "1", "1.0"], "line 4", "the label '1.0' is written as a float")


@pytest.mark.parametrize("odd", ["inf", "-Infinity", "1e999", "3.5e38", "-1e39", "great", "1,5"])
def test_regression_refuses_what_is_no_finite_number(read_cells: Reader, odd: str) -> None:
    refused(read_cells, ["1.5", odd, "2"], "rows.csv, line 3", odd, "not a finite number", kind="regression")


@pytest.mark.parametrize("far", [1.7e9, -1e8])
def test_a_regression_far_from_0_is_refused(read_labels: Reader, far: float) -> None:
    """float32 steps by 128 at 1.7e9: what a model answered there would be a constant, and the scores wrong."""
    refused(
        read_labels, [far + i for i in range(9)], "float32 hardly distinguishes", "Subtract a number", kind="regression"
    )
    read_labels([far + 3e6 * i for i in range(9)], kind="regression")


def test_decimal_commas_are_named(read_cells: Reader) -> None:
    refused(read_cells, ["1,5", "2,25"], "rows.csv, lines 2, 3", "0.5 and not 0,5", kind="regression")


@pytest.mark.parametrize("form", [int, str])
def test_very_many_different_labels_are_ambiguous(read_labels: Reader, form: type) -> None:
    refused(read_labels, [form(i) for i in range(101)], "101 different values", "ambiguous", "--kind single_label")
    assert len(read_labels([form(i) for i in range(101)], kind="single_label").classes) == 101
    assert len(read_labels([form(i % 101) for i in range(2100)]).classes) == 101, "at most one row in twenty is new"


@pytest.mark.parametrize("form", [int, str, lambda i: f"id {i}"])
def test_more_than_a_few_labels_of_few_rows_each_are_ambiguous(read_labels: Reader, form: Any) -> None:
    refused(read_labels, [form(i % 21) for i in range(104)], "21 different values in 104 rows", "--kind single_label")
    assert len(read_labels([form(i % 21) for i in range(104)], kind="single_label").classes) == 21
    assert len(read_labels([form(i % 21) for i in range(105)]).classes) == 21, "five rows of each"
    assert len(read_labels([form(i) for i in range(20)], kind=None).classes) == 20, "few classes may be rare"


def test_lists_are_sets_of_classes(read_labels: Reader) -> None:
    task = read_labels([["red", "blue"], [], ["green"]])
    assert (task.kind, task.metric, task.classes) == ("multi_label", "f1_macro", ("blue", "green", "red"))
    assert task.train.labels == [[0, 2], [], [1]]


def test_lists_of_very_many_different_items_are_ambiguous(read_labels: Reader) -> None:
    items = [[i % 25, (i + 1) % 25] for i in range(62)]
    refused(read_labels, items, "25 different items in 62 rows", "--kind multi_label", "--label")
    assert len(read_labels(items, kind="multi_label").classes) == 25
    assert len(read_labels([*items, [0]]).classes) == 25, "five occurrences of each"


@pytest.mark.parametrize("options", [{}, {"kind": "multi_label"}])
@pytest.mark.parametrize("scores", [[0.1, 0.9], ["joy", 0.9], [float("nan")]])
def test_lists_of_scores_are_refused(read_labels: Reader, scores: list[Any], options: dict[str, Any]) -> None:
    refused(read_labels, [["joy"], scores], "line 2", "holds the classes of a row, not scores", **options)


def test_texts_of_scores_are_refused(read_cells: Reader) -> None:
    refused(read_cells, ["1|2", "0.5|1"], "line 3", "0.5", "float in a classification task", kind="multi_label")
    assert read_cells(["1.0|2", "1"], kind="multi_label").train.labels == [[0, 1], [0]]


def test_items_of_lists_are_stripped_and_not_empty(read_labels: Reader) -> None:
    task = read_labels([["red ", "blue"], [" red"], [2.0]])
    assert (task.classes, task.train.labels) == (("2.0", "blue", "red"), [[1, 2], [2], [0]])
    refused(read_labels, [["red"], ["blue", "  "]], "line 2", "empty item")


@pytest.mark.parametrize("label", ["['a', 'b']", '["a"]', "[]", "[1, 2]", "[a, b]", " ['a|b'] "])
def test_a_list_written_as_text_is_refused(read_labels: Reader, label: str) -> None:
    refused(read_labels, ["a|b", label], "line 2", "list written as text", "a|b", "JSON Lines", kind="multi_label")


def test_brackets_may_be_in_class_names(read_labels: Reader) -> None:
    assert read_labels(["[a]|[b]", "[a];b"], kind="multi_label").classes == ("[a]", "[b]", "b")


def test_lists_of_whole_numbers_are_sorted_as_numbers(read_labels: Reader) -> None:
    task = read_labels([[10, 2], [], [2]])
    assert (task.classes, task.train.labels) == (("2", "10"), [[0, 1], [], [0]])


def test_texts_are_divided_into_classes_when_the_kind_says_so(read_cells: Reader) -> None:
    task = read_cells(["red|blue", "", "green ; red", "blue"], kind="multi_label")
    assert (task.classes, task.train.labels) == (("blue", "green", "red"), [[0, 2], [], [1, 2], [0]])


def test_columns_of_0_and_1_are_classes_in_their_order(write: Write) -> None:
    path = write("rows.csv", "text,b,a\nx,1,0\ny,0,0\nz,1.0,true\n")
    task = read(path, label="b,a", validation_share=0)
    assert (task.kind, task.classes, task.label_column) == ("multi_label", ("b", "a"), "b,a")
    assert task.train.labels == [[0], [], [0, 1]]
    assert read(path, label=("b", "a"), validation_share=0) == task


def test_columns_of_0_and_1_hold_nothing_else(write: Write) -> None:
    path = write("rows.csv", "text,a,b\nx,1,0\ny,2,0\n")
    with pytest.raises(InputError, match=r"rows.csv, line 3: column 'a' holds '2'.*0 or 1"):
        read(path, label="a,b")
    with pytest.raises(InputError, match="multi_label task, not regression"):
        read(path, label="a,b", kind="regression")


def test_a_list_that_names_a_class_twice_is_refused(read_labels: Reader) -> None:
    refused(read_labels, [[0, 1], [2, 2], [0, 0]], "lines 2, 3", "names a class twice", "one column per class")


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (["a", "a"], {}, ["every row has the label 'a'", "--label"]),
        ([2.5, 2.5], {"kind": "regression"}, ["every row has the label 2.5"]),
        ([[], []], {}, ["every row has the label []"]),
        ([["a"], "b|c", 3], {}, ["line 3", "3", "multi_label", "list of classes"]),
        (["a", ["b", "c"]], {"kind": "single_label"}, ["line 2", "2 classes", "--kind multi_label"]),
        (["a", {"b": 1}], {}, ["line 2", "(dict)", "word or a number"]),
        (["a", "b"], {"kind": "binary"}, ["unknown kind 'binary'", "single_label, multi_label, regression"]),
        (["a", "b"], {"metric": "f2"}, ["'f2'", "accuracy"]),
        (["a", "b"], {"metric": "pearson"}, ["'pearson'", "single_label", "accuracy"]),
        (["a", "b"], {"validation_share": 1.0}, ["validation share", "below 1"]),
    ],
)
def test_labels_without_a_meaning_are_refused(
    read_labels: Reader, labels: list[Any], options: dict[str, Any], words: list[str]
) -> None:
    refused(read_labels, labels, *words, **options)


def test_the_metric_can_be_chosen(read_labels: Reader) -> None:
    assert read_labels(["a", "b"], metric="f1_macro").metric == "f1_macro"


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan")])
def test_missing_labels_are_refused_or_left_out(read_labels: Reader, empty: Any) -> None:
    labels = ["a", empty, "b", empty]
    lack = "NaN for a label" if isinstance(empty, float) else "no label"
    refused(read_labels, labels, f"of 4 rows, 2 with {lack} (lines 2, 4)", "--skip-bad-rows")
    task = read_labels(labels, skip_bad_rows=True)
    assert [row["text"] for row in task.train] == ["text 0", "text 2"]
    assert any(f"left out 2 of 4 rows (2 with {lack})" in note for note in task.notes)


@pytest.mark.parametrize("gap", ["nan", "NaN", "n/a", "NA", "null", "None", " #N/A "])
@pytest.mark.parametrize("kind", [None, "regression"])
def test_a_word_for_a_gap_among_numbers_is_a_missing_label(read_cells: Reader, gap: str, kind: str | None) -> None:
    refused(
        read_cells, ["1", gap, "02" if kind else "2", gap], "2 with no label (lines 3, 5)", "--skip-bad-rows", kind=kind
    )
    task = read_cells(["1", gap, "2", gap], kind=kind, skip_bad_rows=True)
    assert task.train.labels == ([1.0, 2.0] if kind else [0, 1])
    assert any("left out 2 of 4 rows (2 with no label)" in note for note in task.notes)


def test_a_word_for_a_gap_in_another_split_is_judged_by_training_too(write: Write) -> None:
    write("task/train.csv", "text,label\nx,1\ny,2\n")
    task = read(write("task/test.csv", "text,label\nx,nan\ny,NaN\n").parent, validation_share=0)
    assert task.test.labels == [None, None]
    write("task/train.csv", "text,label\nx,1\ny,two\nz,none\n")
    task = read(write("task/test.csv", "text,label\nx,none\ny,1\n").parent, validation_share=0)
    assert task.test.labels == [1, 0]


def test_a_word_for_a_gap_among_words_is_a_class_with_a_note(read_cells: Reader) -> None:
    task = read_cells(["yes", "None", "no"])
    assert task.classes == ("None", "no", "yes")
    assert "class 'None' looks like a missing label" in task.notes[0]
    assert len(task.notes) == 1


def test_a_declared_name_is_no_gap(write: Write) -> None:
    write("task/labels.json", '["1", "none"]')
    task = read(write("task/train.csv", "text,label\nx,1\ny,none\n").parent, validation_share=0)
    assert (task.train.labels, task.notes) == ([0, 1], ())


def test_classes_that_look_the_same_are_noted(read_cells: Reader) -> None:
    task = read_cells(["Yes", "yes", "no", "\uff39\uff25\uff33"])
    assert len(task.classes) == 4
    (note,) = task.notes
    assert "'Yes' and 'yes' and '\uff39\uff25\uff33' differ only in how they are written" in note
    assert read_cells(["yes", "no"]).notes == ()


def test_rows_cannot_all_be_left_out(read_labels: Reader) -> None:
    refused(read_labels, [None, None], "2 with no label", "No usable row is left", skip_bad_rows=True)


def test_labels_json_names_the_classes_of_indices(write: Write) -> None:
    write("task/labels.json", json.dumps(["bad", "good"]))
    task = read(write("task/train.csv", "text,label\nx,1\ny,0\n").parent, validation_share=0)
    assert (task.name, task.classes, task.train.labels) == ("task", ("bad", "good"), [1, 0])


@pytest.mark.parametrize(
    ("declared", "label", "words"),
    [
        (["bad", "good"], "2", ["train.csv, line 4", "'2'", "none of the classes"]),
        (["bad", "good"], "fine", ["train.csv, lines 2, 3, 4", "none of the classes", "'bad', 'good'"]),
        (["bad", "good"], "0.5", ["train.csv, line 4", "0.5", "float in a classification task"]),
        ({"type": "single_label"}, "0.5", ["train.csv, line 4", "0.5", "float in a classification task"]),
    ],
)
def test_labels_that_labels_json_does_not_name_are_refused(
    write: Write, declared: Any, label: str, words: list[str]
) -> None:
    write("task/train.csv", f"text,label\nx,1\ny,0\nz,{label}\n")
    folder = write("task/labels.json", json.dumps(declared)).parent
    with pytest.raises(InputError) as caught:
        read(folder)
    for word in words:
        assert word in str(caught.value)


def test_labels_json_names_may_be_the_labels_themselves(write: Write) -> None:
    write("task/train.jsonl", '{"text": "x", "label": "good"}\n{"text": "y", "label": "bad"}\n')
    task = read(write("task/labels.json", '["good", "bad", "ugly"]').parent, validation_share=0)
    assert (task.classes, task.train.labels) == (("good", "bad", "ugly"), [0, 1])


def test_labels_json_can_declare_a_regression_of_whole_numbers(write: Write) -> None:
    write("task/train.csv", "text,label\nx,1\ny,0\n")
    task = read(write("task/labels.json", '{"type": "regression", "min": 0, "max": 1}').parent, validation_share=0)
    assert (task.kind, task.train.labels) == ("regression", [1.0, 0.0])


def test_labels_json_names_that_are_numbers_are_never_indices(write: Write) -> None:
    write("task/labels.json", '["3", "1", "2"]')
    write("task/validation.csv", "text,label\nx,2\ny,+3\n")
    task = read(write("task/train.csv", "text,label\nx,1.0\ny,2.0\nz,3.0\n").parent)
    assert (task.classes, task.train.labels) == (("3", "1", "2"), [1, 2, 0])
    assert task.validation.labels == [2, 0]
    write("task/train.csv", "text,label\nx,1\ny,0\n")
    with pytest.raises(InputError, match=r"line 3: '0' is none of the classes '3', '1', '2'"):
        read(write("task/validation.csv", "text,label\nx,2\n").parent)


@pytest.mark.parametrize("names", [["1", "+1"], ["True", "true"]])
def test_declared_names_that_are_one_label_are_refused(write: Write, names: list[str]) -> None:
    write("task/train.csv", f"text,label\nx,{names[0]}\ny,{names[1]}\n")
    with pytest.raises(InputError, match="one label in two spellings"):
        read(write("task/labels.json", json.dumps(names)).parent)


@pytest.mark.parametrize(
    "content", ["{", '"good"', "[]", "[1, 2]", '["a", "a"]', '{"0": "a"}', '{"type": "binary"}', "null", b"\xff"]
)
def test_a_wrong_labels_json_is_refused(write: Callable[[str, Any], Path], content: Any) -> None:
    write("task/train.csv", "text,label\nx,1\ny,0\n")
    with pytest.raises(InputError, match=r"labels\.json"):
        read(write("task/labels.json", content).parent)


def test_parquet_lists_and_nulls_are_labels_too(tmp_path: Path) -> None:
    table = pa.table({"text": ["x", "y", None], "label": [["a", "b"], [], ["a"]]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"1 with an empty text \(row 3\)"):
        read(tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", skip_bad_rows=True, validation_share=0).train.labels == [[0, 1], []]


def test_a_date_that_python_has_not_is_said_plainly(tmp_path: Path) -> None:
    dates = pa.array([2**50, 0], pa.timestamp("ms"))
    pq.write_table(pa.table({"text": ["x", "y"], "label": ["a", "b"], "when": dates}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(tmp_path / "rows.parquet")


def test_parquet_decimals_are_numbers(tmp_path: Path) -> None:
    table = pa.table({"text": ["x", "y"], "label": [Decimal("1.50"), Decimal("-2.00")]})
    pq.write_table(table, tmp_path / "rows.parquet")
    task = read(tmp_path / "rows.parquet", kind="regression", validation_share=0)
    assert task.train.labels == [1.5, -2.0]
    pq.write_table(pa.table({"text": ["x", "y"], "label": [Decimal("1"), Decimal("2")]}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", validation_share=0).classes == ("1", "2")


# Nothing to strip, no number, and nothing that would part it into several classes.
words = st.text(st.characters(codec="utf-8", exclude_characters="|;"), max_size=8).map(lambda text: f"a{text}z")
columns = st.one_of(st.lists(words, min_size=2, max_size=12), st.lists(st.integers(-50, 50), min_size=2, max_size=12))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns.filter(lambda labels: len(set(labels)) > 1))
def test_every_label_keeps_its_name_and_classes_are_sorted(read_labels: Reader, labels: list[Any]) -> None:
    task = read_labels(labels)
    assert [task.classes[code] for code in task.train.labels] == [str(label) for label in labels]
    assert task.classes == tuple(str(label) for label in sorted(set(labels)))
