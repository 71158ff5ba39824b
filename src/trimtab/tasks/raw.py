"""The wanted columns of a table, held in memory with their row numbers, so that every later message can say where.

This is where rows are judged one by one: is there a text, is there a label. What the labels mean is for labels.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .columns import Columns
from .tables import Row, Table

# pandas writes whole numbers as floats when the column has gaps, and Parquet and JSON hold true booleans
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

MINUS_ONE = frozenset({"-1", "-1.0"})
"""How unlabelled rows are marked in published test splits, such as those of GLUE."""


@dataclass(frozen=True)
class RawRows:
    """Texts and labels as written, one list each, beside the numbers of the rows they come from."""

    table: Table
    label_column: str
    numbers: list[int]
    texts: tuple[list[str], ...]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, indices: Sequence[int]) -> str:
        """The place of these rows in words: "reviews.csv, lines 3, 5"."""
        return self.table.at(*(self.numbers[i] for i in indices))

    @property
    def unlabelled(self) -> bool:
        """Whether no row has a label."""
        return all(label is None for label in self.labels)

    def take(self, indices: Sequence[int]) -> RawRows:
        """The rows at `indices`, in that order."""
        numbers, labels = [self.numbers[i] for i in indices], [self.labels[i] for i in indices]
        return RawRows(
            self.table, self.label_column, numbers, tuple([texts[i] for i in indices] for texts in self.texts), labels
        )


def collect(table: Table, columns: Columns) -> RawRows:
    """The chosen columns of every row; raises InputError for a text that is not a string and for a table without rows.

    Several label columns of 0 and 1 become one list per row: the names of the columns that hold 1.
    """
    numbers: list[int] = []
    texts: tuple[list[str], ...] = tuple([] for _ in columns.texts)
    labels: list[Any] = []
    for number, row in table:
        numbers.append(number)
        for name, column in zip(columns.texts, texts, strict=True):
            column.append(text_in(row, name, table, number))
        labels.append(row.get(columns.label) if len(columns.labels) == 1 else _flagged(row, columns, table, number))
    if not numbers:
        raise InputError(f"{table.place} has a header but no rows: there is nothing to learn from.")
    return RawRows(table, columns.label, numbers, texts, labels)


def text_in(row: Row, name: str, table: Table, number: int, option: str = "--text") -> str:
    """The text in column `name` of `row`, "" where there is none; raises InputError when it is not a string.

    `option` is what names text columns on the command line.
    """
    value = row.get(name)
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    raise InputError(
        f"{table.at(number)}: column {name!r} holds {value!r:.40} ({type(value).__name__}), not a text. "
        f"Name the column that holds the text ({option})."
    )


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: absent, null, NaN or blank."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # noqa: PLR0124 (NaN)


def lacks_labels(raw: RawRows, train: RawRows | None, classes: Collection[str] = (), kind: str | None = None) -> bool:
    """Whether no row has a label: all are empty, or all are the -1 of GLUE's test splits.

    A -1 that occurs in `train` or among the names of `classes` is a label, and so it is in a regression between the labels of
    `train`.
    """
    words = {"" if is_missing(label) else str(label).strip() for label in raw.labels}
    known = {str(label).strip() for label in train.labels if label is not None} if train else set()
    if words == {""} or not words <= MINUS_ONE or MINUS_ONE & known.union(classes):
        return words == {""}
    numbers = [_number(word) for word in known] if kind == "regression" else []
    return not (numbers and all(not math.isnan(n) for n in numbers) and min(numbers) <= -1 <= max(numbers))


def _number(word: str) -> float:
    """The number that it is, or NaN."""
    try:
        return float(word)
    except ValueError:
        return math.nan


def usable(raw: RawRows, *, skip: bool, labelled: bool, blank_label_is_none: bool = False) -> tuple[RawRows, list[str]]:
    """The rows that have a text and, in a `labelled` split, a label; and a note on how many were left out.

    Without `skip` such rows raise InputError, as do splits in which no usable row is left.
    `blank_label_is_none` makes a blank label mean "no class", as in a multi_label column of words.
    """
    faults = {
        i: fault
        for i in range(len(raw))
        if (fault := _fault(raw, i, labelled=labelled, blank_label_is_none=blank_label_is_none))
    }
    if not faults:
        return raw, []
    if not skip or len(faults) == len(raw):
        raise _unusable(raw, faults, skip)
    counts = ", ".join(f"{n} with {fault}" for fault, n in Counter(faults.values()).items())
    note = f"{raw.table.place}: left out {len(faults)} of {len(raw)} rows ({counts})"
    return raw.take([i for i in range(len(raw)) if i not in faults]), [note]


def _fault(raw: RawRows, i: int, *, labelled: bool, blank_label_is_none: bool) -> str | None:
    """What row `i` lacks, if anything."""
    if not all(texts[i].strip() for texts in raw.texts):
        return "an empty text"
    label = raw.labels[i]
    if labelled and is_missing(label) and not (blank_label_is_none and isinstance(label, str)):
        return "NaN for a label" if isinstance(label, float) else "no label"
    return None


def _unusable(raw: RawRows, faults: Mapping[int, str], skip: bool) -> InputError:
    """The InputError that lists the rows of each fault."""
    found = []
    for fault in dict.fromkeys(faults.values()):
        numbers = [raw.numbers[i] for i in faults if faults[i] == fault]
        found.append(f"{len(numbers)} with {fault} ({raw.table.numbered(numbers)})")
    advice = "Fill them in, or leave them out with skip_bad_rows (--skip-bad-rows)."
    listed = "; ".join(found)
    return InputError(
        f"{raw.table.place}: of {len(raw)} rows, {listed}. {'No usable row is left.' if skip else advice}"
    )


def _flagged(row: Row, columns: Columns, table: Table, number: int) -> list[str] | None:
    """The label columns that hold 1 in this row, or None when one of them is empty."""
    if any(is_missing(row.get(name)) for name in columns.labels):
        return None
    for name in columns.labels:
        if str(row[name]).strip().lower() not in FLAGS:
            raise InputError(
                f"{table.at(number)}: column {name!r} holds {row[name]!r:.40}. Several label columns must hold 0 or 1 each."
            )
    return [name for name in columns.labels if FLAGS[str(row[name]).strip().lower()]]
