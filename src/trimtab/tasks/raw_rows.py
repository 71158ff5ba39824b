"""The wanted columns of a table, held in memory with their row numbers, so that every later message can say where.

This is where rows are judged one by one: is there a text, is there a label. What the labels mean is for labels.py.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from ..errors import InputError, counted
from .columns import Columns
from .reading import AS_WRITTEN, Reading
from .table import BadRow, CellError, Row, Table

# pandas writes whole numbers as floats when the column has gaps, and Parquet and JSON hold true booleans
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

MINUS_ONE = frozenset({"-1", "-1.0"})
"""How unlabelled rows are marked in published test splits, such as those of GLUE."""

INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]*"
)
"""Spaces, control characters, and what Unicode (DerivedCoreProperties, Default_Ignorable_Code_Point) leaves without a picture."""


@dataclass(frozen=True)
class RawRows:
    """Texts and labels as written, one list each, beside the numbers of the rows they come from."""

    table: Table
    label_column: str
    numbers: list[int]
    texts: tuple[list[str], ...]
    labels: list[Any]
    left_out: Mapping[str, int] = field(default_factory=dict)  # fault -> how many rows of the table are not here for it

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
        texts = tuple([texts[i] for i in indices] for texts in self.texts)
        return replace(self, numbers=numbers, texts=texts, labels=labels)


def collect(table: Table, columns: Columns, reading: Reading = AS_WRITTEN) -> RawRows:
    """The chosen columns of every row; raises InputError for a row that cannot be read, and for a table without rows.

    Several label columns of 0 and 1 become one list per row: the names of the columns that hold 1. Where bad rows are to be
    skipped, those that cannot be read are counted in `left_out`, as long as any row is left.
    """
    numbers: list[int] = []
    texts: tuple[list[str], ...] = tuple([] for _ in columns.texts)
    labels: list[Any] = []
    left_out: Counter[str] = Counter()
    first_error: InputError | None = None
    for number, row in table.walk():
        try:
            found = texts_in(row, columns.texts, table, number)
            label = _label_in(row, columns, table, number, reading)
        except CellError as error:
            if not reading.skip_bad_rows:
                raise
            left_out[error.fault] += 1
            first_error = first_error or error
            continue
        numbers.append(number)
        labels.append(label)
        for text, column in zip(found, texts, strict=True):
            column.append(text)
    if not numbers:
        raise first_error or InputError(f"{table.place} has a header but no rows: there is nothing to learn from.")
    raw = RawRows(table, columns.label, numbers, texts, labels, left_out)
    return _without_objects(raw, skip=reading.skip_bad_rows)


def _without_objects(raw: RawRows, *, skip: bool) -> RawRows:
    """The rows with class names for objects of flags, where all labels are such; else, to `skip` bad rows, without objects."""
    flags = {i: flagged_names(label) for i, label in enumerate(raw.labels) if isinstance(label, dict)}
    if not flags:
        return raw
    if None not in flags.values() and all(i in flags or is_missing(label) for i, label in enumerate(raw.labels)):
        return replace(raw, labels=[flags.get(i, label) for i, label in enumerate(raw.labels)])
    if not skip or len(flags) == len(raw):
        return raw
    fault = "a label that is neither word nor number"
    kept = raw.take([i for i in range(len(raw)) if i not in flags])
    return replace(kept, left_out=Counter(raw.left_out) + Counter({fault: len(flags)}))


def texts_in(row: Row, names: Sequence[str], table: Table, number: int, option: str = "--text") -> tuple[str, ...]:
    """The text of `row`, or its pair of texts, "" where there is none.

    Raises CellError where one is no text, and where the row has not the form of the table; `option` is what names text columns
    on the command line.
    """
    if isinstance(row, BadRow):
        raise CellError(row.fault, str(row.error))
    return tuple(_text_in(row, name, table, number, option) for name in names)


def _text_in(row: Row, name: str, table: Table, number: int, option: str) -> str:
    """The text in column `name` of `row`, "" where there is none; raises CellError when it is not a string."""
    value = row.get(name)
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    what = "a number" if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else "something else"
    raise CellError(
        f"{what} for a text",
        f"{table.at(number)}: column {name!r} holds {value!r:.40} ({type(value).__name__}), not a text. Name the column that "
        f"holds the text ({option}), write such cells as texts, or leave the rows out (--skip-bad-rows).",
    )


def _label_in(row: Row, columns: Columns, table: Table, number: int, reading: Reading) -> Any:
    """The label as written, or of several label columns the names of those that hold 1."""
    if len(columns.labels) > 1:
        return _flagged(row, columns, table, number, reading.missing_label)
    label = row.get(columns.label)
    if isinstance(label, bytes) and reading.skip_bad_rows:
        raise CellError("a label that is neither word nor number", table.at(number))
    return label


def flagged_names(label: Mapping[str, Any]) -> list[str] | None:
    """The names to which an object as spaCy writes it ({"POSITIVE": 1.0, "NEGATIVE": 0.0}) gives a 1; None where it holds others.

    A name without a value has none: Parquet gives every row the names of all.
    """
    words = {name: str(value).lower() for name, value in label.items() if value is not None}
    return (
        [name for name, word in words.items() if FLAGS[word]]
        if words.keys() and {*words.values()} <= {*FLAGS}
        else None
    )


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be seen: it is empty, or all spaces, control characters and zero-width ones."""
    return INVISIBLE.fullmatch(text) is not None


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: absent, null, NaN or blank."""
    if isinstance(value, str):
        return is_blank(value)
    return value is None or (isinstance(value, float | Decimal) and value != value)  # noqa: PLR0124 (NaN)


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


def usable(raw: RawRows, *, skip: bool, labelled: bool) -> tuple[RawRows, list[str]]:
    """The rows that have a text and, in a `labelled` split, a label; and a note on how many were left out.

    Without `skip` such rows raise InputError, as do splits in which no usable row is left.
    """
    faults = {i: fault for i in range(len(raw)) if (fault := _fault(raw, i, labelled=labelled))}
    if faults and (not skip or len(faults) == len(raw)):
        raise _unusable(raw, faults, skip)
    counts = Counter(raw.left_out) + Counter(faults.values())
    if not counts:
        return raw, []
    listed = ", ".join(f"{n} with {fault}" for fault, n in counts.items())
    note = f"{raw.table.place}: left out {counts.total()} of {len(raw) + sum(raw.left_out.values())} rows ({listed})"
    return raw.take([i for i in range(len(raw)) if i not in faults]), [note]


def _fault(raw: RawRows, i: int, *, labelled: bool) -> str | None:
    """What row `i` lacks, if anything."""
    if any(is_blank(texts[i]) for texts in raw.texts):
        return "an empty text"
    label = raw.labels[i]
    if labelled and is_missing(label):
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
        f"{raw.table.place}: of {counted(len(raw), 'row')}, {listed}. {'No usable row is left.' if skip else advice}"
    )


def _flagged(row: Row, columns: Columns, table: Table, number: int, missing: Sequence[str]) -> list[str] | str | None:
    """The label columns that hold 1 in this row; None when one of them is empty, or the word of `missing` that it holds."""
    words = [str(row.get(name)).strip() for name in columns.labels]
    if marks := [word for word in words if word in missing]:
        return marks[0]
    if any(is_missing(row.get(name)) for name in columns.labels):
        return None
    for name, word in zip(columns.labels, words, strict=True):
        if word.lower() not in FLAGS:
            raise CellError(
                "something else than 0 or 1 for a label",
                f"{table.at(number)}: column {name!r} holds {row[name]!r:.40}. Several label columns must hold 0 or 1 each.",
            )
    return [name for name, word in zip(columns.labels, words, strict=True) if FLAGS[word.lower()]]
