"""Table: named columns and numbered rows, wherever they come from, and the rows that do not fit it.

A row is a dict of what the source holds: strings from CSV and TSV, whatever JSON, Parquet and tables in memory have types
for otherwise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, shortened

Row = dict[str, Any]  # column name -> cell
NumberedRow = tuple[int, Row]  # the row's number in its source, as the unit of the Table counts


class CellError(InputError):
    """A cell that does not hold what its column is for; `fault` says so in few words, to be counted."""

    def __init__(self, fault: str, message: str):
        super().__init__(message)
        self.fault = fault


class BadRow(dict[str, Any]):
    """What could be read of a row that does not have the form of its table: its cells, and what is wrong with it."""

    def __init__(self, cells: Row, fault: str, error: InputError):
        """`fault` says it in few words, to be counted ("4 with another number of fields"); `error` says it with its place."""
        super().__init__(cells)
        self.fault, self.error = fault, error


@dataclass(frozen=True)
class Table:
    """Named columns and numbered rows that can be walked again and again; of a file, it never holds the rows itself."""

    place: str  # what messages call it: the path as the user gave it
    unit: str  # what its row numbers count: "line" of a text file, or "row"
    columns: tuple[str, ...]
    walk: Callable[[], Iterator[NumberedRow]]  # from the first row at every call; rows may be BadRows
    notes: tuple[str, ...] = ()  # what a person should know of the file, in plain words
    has_header: bool = False  # whether the first line names the columns
    open_ended: bool = False  # whether a later row may bring in columns of its own, as in JSON Lines
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column of classes -> all of their names
    repeated: tuple[str, ...] = ()  # names that several columns have; all but the first of them go by their position
    schema: Any = None  # the Arrow schema of its rows, where it has one

    def __iter__(self) -> Iterator[NumberedRow]:
        """A new walk over all rows; it raises InputError at a row that cannot be read or does not fit."""
        for number, row in self.walk():
            if isinstance(row, BadRow):
                raise row.error
            yield number, row

    def at(self, *numbers: int) -> str:
        """The place of these rows in words: "reviews.csv, lines 3, 5"."""
        return f"{self.place}, {self.numbered(numbers)}"

    def numbered(self, numbers: Sequence[int]) -> str:
        """These rows in words, without the place: "lines 3, 5"."""
        return f"{self.unit}{'s' * (len(numbers) != 1)} {shortened(list(numbers))}"


def check_columns(table: Table) -> Table:
    """`table`; raises InputError for repeated columns: a row is a dict, so one of them would be lost without a word."""
    if repeated := repeated_names(table.columns):
        raise InputError(
            f"{table.place}: several columns are named {shortened(repeated)}. Give each column its own name."
        )
    return table


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, quoted."""
    if len(set(names)) == len(names):  # as nearly always, and asked of every line of JSON
        return []
    return sorted(repr(name) for name, n in Counter(names).items() if n > 1)


def position_name(position: int) -> str:
    """The name of a column that has none, by its position from 1."""
    return f"column_{position}"


def class_names_of(schema: Any) -> dict[str, tuple[str, ...]]:
    """Column -> the names of its classes, as far as `datasets` has written them into the metadata of an Arrow schema."""
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(written or "{}").get("info", {}).get("features", {})
        named = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, AttributeError):  # another program's notes under that key
        return {}
    return {column: names for column, names in named.items() if names}


def _names(feature: Any) -> tuple[str, ...]:
    """The class names of a feature as `datasets` describes it: a ClassLabel, or a list of them."""
    # An older version writes a list of one feature, a newer one {"feature": ...}.
    inner = feature[0] if isinstance(feature, list) and feature else feature
    inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
    names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
    return tuple(str(name).strip() for name in names or ())


def with_class_names(row: Row, names: Mapping[str, tuple[str, ...]]) -> Row:
    """The row with names in the place of class indices, in each column of `names`."""
    return row | {column: class_name(row[column], of_column) for column, of_column in names.items() if column in row}


def class_name(value: Any, names: tuple[str, ...]) -> Any:
    """The class name of an index, or those of a list; None for a missing index and for -1 (unlabelled)."""
    if isinstance(value, list):
        return [class_name(item, names) for item in value]
    if not isinstance(value, int):
        return value  # a column whose indices were replaced by their names, or nothing
    return names[value] if 0 <= value < len(names) else None if value < 0 else str(value)
