"""Tables in memory are read as the same rows in a file are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_like

ROWS = [{"text": f"text {i}", "label": "yes" if i % 3 else "no", "n": i} for i in range(12)]


class SpeaksArrow:
    """What polars and others are to us: something that hands out its columns in Arrow's form."""

    def __init__(self, rows: list[dict[str, Any]]):
        self._table = pa.Table.from_pylist(rows)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


FORMS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "list of dicts": list,
    "tuple of dicts": tuple,
    "dict of lists": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "dict of arrays": lambda rows: {name: np.array([row[name] for row in rows]) for name in rows[0]},
    "dict of series": lambda rows: {name: pd.Series([row[name] for row in rows]) for name in rows[0]},
    "pandas": pd.DataFrame,
    "pandas, shuffled index": lambda rows: pd.DataFrame(rows, index=range(len(rows), 0, -1)),
    "pandas, categories": lambda rows: pd.DataFrame(rows).astype({"label": "category"}),
    "pandas, pyarrow types": lambda rows: pd.DataFrame(rows).convert_dtypes(dtype_backend="pyarrow"),
    "pyarrow": pa.Table.from_pylist,
    "record batch": pa.RecordBatch.from_pylist,
    "arrow stream": SpeaksArrow,
    "datasets": datasets.Dataset.from_list,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_memory_is_read_as_a_file_of_its_rows(form: str, write_rows: Callable[..., Path]) -> None:
    task = read(FORMS[form](ROWS))
    of_file = read(write_rows("table.jsonl", ROWS))
    assert (task.name, task.source) == ("table", "")
    assert (task.kind, task.classes, task.splits) == (of_file.kind, of_file.classes, of_file.splits)
    assert task.train.numbers == of_file.train.numbers, "rows are counted from 1"
    assert read(FORMS[form](ROWS), label="n", kind="regression", validation_share=0).train.labels == [
        *map(float, range(12))
    ]


@pytest.mark.parametrize("form", ["list of dicts", "dict of lists", "pandas", "pyarrow", "arrow stream", "datasets"])
def test_rows_in_memory_are_checked_like_those_of_a_file(form: str) -> None:
    rows = [dict(row) for row in ROWS]
    rows[4]["text"], rows[7]["label"] = None, None
    with pytest.raises(
        InputError, match=r"of 12 rows, 1 with an empty text \(row 5\); 1 with (no|NaN for a) label \(row 8\)"
    ):
        read(FORMS[form](rows))
    assert len(read(FORMS[form](rows), skip_bad_rows=True, validation_share=0).train) == 10
    with pytest.raises(InputError, match=r"the table\b.* has no column 'body'; it has 'text', 'label', 'n'"):
        read(FORMS[form](ROWS), text="body")


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, np.nan])
def test_the_marks_of_pandas_for_what_is_missing_are_missing(missing: Any) -> None:
    frame = pd.DataFrame({"text": ["x", "y", "z"], "label": pd.Series(["a", "b", missing], dtype=object)})
    with pytest.raises(InputError, match=r"\(row 3\)"):
        read(frame)
    whole = pd.DataFrame({"text": ["x", "y", "z"], "label": pd.array([1, 0, None], dtype="Int64")})
    assert read(whole, skip_bad_rows=True, validation_share=0).classes == ("0", "1")


def test_numbers_and_lists_of_numpy_are_pythons_own() -> None:
    frame = pd.DataFrame({"text": ["x", "y"], "label": [np.array(["a", "b"]), np.array(["b"])]})
    assert read(frame, validation_share=0).train.labels == [[0, 1], [1]]
    rows = [
        {"text": "x", "label": np.int64(3)},
        {"text": "y", "label": np.int64(10)},
        {"text": "z", "label": (np.int8(3))},
    ]
    assert read(rows, validation_share=0).classes == ("3", "10")
    rows = [{"text": np.str_("x"), "label": ("a", "b")}, {"text": "y", "label": ("a",)}]
    assert read(rows, validation_share=0).train.labels == [[0, 1], [0]]


@pytest.mark.parametrize("form", ["list of dicts", "pandas", "pyarrow", "datasets"])
def test_tables_by_split_are_splits(form: str) -> None:
    make = FORMS[form]
    splits: Any = {"train": make(ROWS), "dev": make(ROWS[:3]), "test": make([{"text": "x"}, {"text": "y"}])}
    if form == "datasets":
        splits = datasets.DatasetDict(splits)
    task = read(splits)
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 12, "validation": 3, "test": 2}
    assert any("has no labels" in note for note in task.notes)


def test_classes_of_a_data_set_keep_their_names() -> None:
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["z", "a", "m"]))
    found = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
    assert read(found, validation_share=0).classes == ("z", "a", "m")
    assert read(found.data.table, validation_share=0).classes == ("z", "a", "m"), "an Arrow table carries them too"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"text": ["x", "y"], "label": ["a"]}, "the columns are not equally long: 'text' 2, 'label' 1"),
        ([("x", "a")], "row 1: tuple is no row"),
        (3, "int is no table"),
        ({"train": ROWS, "more": ROWS}, "'more' is no split"),
        ({"test": ROWS}, "there is no table named train"),
        ([], "the table is empty"),
        ({}, "the table is empty"),
        (pd.Series(["x", "y"]), "Series is no table"),
        (pa.chunked_array([["x"], ["y"]]), "ChunkedArray is no table"),
        (np.array(["x", "y"]), "ndarray is no table"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "IterableDataset is no table"),
        (pd.DataFrame([["x", "y", "a"]], columns=["text", "text", "label"]), "several columns are named 'text'"),
        (iter(ROWS), "is no table"),
    ],
)
def test_what_is_no_table_is_refused(found: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(found)


def test_a_table_in_memory_can_be_scored(write_rows: Callable[..., Path]) -> None:
    task = read(write_rows("a.jsonl", ROWS))
    scored = read_like(task, pd.DataFrame(ROWS[:4]))
    assert scored.test.labels == [0, 1, 1, 0]
    assert json.dumps(scored.description())
