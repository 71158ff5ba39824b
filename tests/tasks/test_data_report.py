"""What the survey counts, and how it says so."""

import json
from typing import Any

from trimtab.tasks.data_report import survey
from trimtab.tasks.task import Rows, Task


def make_task(kind: Any, classes: tuple[str, ...], **splits: Rows) -> Task:
    return Task("demo", kind, classes, ("text",), "label", "accuracy", splits, notes=("a note",))


def test_rows_classes_and_repeated_texts_are_counted() -> None:
    task = make_task(
        "single_label",
        ("no", "yes", "never"),
        train=Rows((["x", "x", "y", "y", "y", "z"],), [0, 0, 0, 1, 1, 1]),
        validation=Rows((["x", "w", "w"],), [0, 1, 1]),
        test=Rows((["y", "z"],), [None, None]),
    )
    found = survey(task)
    assert found.splits["train"].classes == {"no": 3, "yes": 3, "never": 0}
    assert found.repeated == {"train": 3, "validation": 1, "test": 2}
    assert found.contradictory == 1
    assert found.lines() == [
        "demo: single label, judged by accuracy",
        "train: 6 rows: no 3, yes 3, never 0",
        "validation: 3 rows: no 1, yes 2, never 0",
        "test: 2 rows, without labels",
        "train: rows that repeat the text of an earlier row: 3",
        "train: texts that occur with different labels: 1",
        "validation: rows whose text is also in train: 1",
        "test: rows whose text is also in train: 2",
        "train: no row of 'never': what has none cannot be learned",
        "validation: no row of 'never': what has none cannot be judged",
        "validation: 3 rows are few to judge by; scores are rough",
        "a note",
    ]


def test_pairs_repeat_only_when_both_texts_do() -> None:
    train = Rows((["x", "x", "x"], ["y", "z", "y"]), [0, 1, 0])
    found = survey(make_task("single_label", ("a", "b"), train=train))
    assert (found.repeated, found.contradictory) == ({"train": 1}, 0)


def test_one_row_is_no_rows() -> None:
    one = Rows((["x"],), [0])
    lines = survey(make_task("single_label", ("no", "yes", "never"), train=one, validation=one)).lines()
    assert {"train: 1 row: no 1, yes 0, never 0", "validation: 1 row is few to judge by; scores are rough"} <= {*lines}
    assert "1 rows" not in " ".join(lines)


def test_a_row_counts_for_each_of_its_classes() -> None:
    task = make_task("multi_label", ("a", "b"), train=Rows((["x", "y", "z"],), [[0, 1], [1], []]))
    assert survey(task).splits["train"].classes == {"a": 1, "b": 2}
    assert survey(task).lines()[:2] == ["demo: multi label, judged by accuracy", "train: 3 rows: a 1, b 2"]


def test_numbers_are_given_as_a_range() -> None:
    task = make_task("regression", (), train=Rows((["x", "y"],), [0.5, 3.0]), test=Rows((["z"],), [None]))
    assert survey(task).lines()[1:3] == [
        "train: 2 rows: labels from 0.5 to 3, mean 1.75",
        "test: 1 row, without labels",
    ]


def test_many_classes_are_shortened_to_the_extremes() -> None:
    labels = [0] * 5 + list(range(20))
    rows = Rows(([str(i) for i in range(25)],), labels)
    task = make_task("single_label", tuple(f"class {i}" for i in range(20)), train=rows)
    assert survey(task).lines()[1] == "train: 25 rows, 20 classes: from class 0 6 to class 19 1"


def test_a_task_without_rows_has_no_counts() -> None:
    found = survey(make_task("single_label", ("a", "b")))
    assert (found.splits, found.repeated, found.contradictory) == ({}, {"train": 0}, 0)
    assert found.lines() == ["demo: single label, judged by accuracy", "a note"]


def test_the_survey_is_json() -> None:
    task = make_task("single_label", ("a", "b"), train=Rows((["x", "y"],), [0, 1]))
    counts = {"rows": 2, "labelled": 2, "classes": {"a": 1, "b": 1}, "lowest": None, "mean": None, "highest": None}
    assert json.loads(json.dumps(survey(task).as_json())) == {
        "task": "demo",
        "kind": "single_label",
        "metric": "accuracy",
        "splits": {"train": counts},
        "repeated": {"train": 0},
        "contradictory": 0,
        "notes": ["a note"],
        "positive": "b",
    }
