"""File formats to raw rows: CSV, TSV, JSON Lines (each also gzipped) and Parquet, one row at a time.

A row is a dict of what the file holds: strings from CSV and TSV, whatever JSON and Parquet have types for otherwise.
Text files number rows by the line a row starts on, which is what an editor shows; Parquet numbers rows from 1.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line, shortened
from .delimited import dialect_of, records
from .lines import read_lines

Row = dict[str, Any]  # column name -> cell
NumberedRow = tuple[int, Row]  # the row's number in its source, as the unit of the Table counts

# Endings of file names, in lower case.
FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class Table:
    """Named columns and numbered rows that can be walked again and again; never holds the rows itself."""

    place: str  # what messages call it: the path as the user gave it
    unit: str  # what its row numbers count: "line" of a text file, or "row"
    columns: tuple[str, ...]
    open_rows: Callable[[], Iterator[NumberedRow]]  # a new walk from the first row at every call
    notes: tuple[str, ...] = ()  # what a person should know of the file, in plain words
    has_header: bool = False  # whether the first line names the columns

    def __iter__(self) -> Iterator[NumberedRow]:
        """A new walk over all rows; of a file, it raises InputError at a row that cannot be read."""
        return self.open_rows()

    def at(self, *numbers: int) -> str:
        """The place of these rows in words: "reviews.csv, lines 3, 5"."""
        return f"{self.place}, {self.numbered(numbers)}"

    def numbered(self, numbers: Sequence[int]) -> str:
        """These rows in words, without the place: "lines 3, 5"."""
        return f"{self.unit}{'s' * (len(numbers) != 1)} {shortened(list(numbers))}"


def format_of(path: Path) -> str | None:
    """The ending of `path` that names its format, or None when it is not one of FORMATS."""
    fitting = [ending for ending in FORMATS if path.name.lower().endswith(ending)]
    return max(fitting, key=len, default=None)


def open_table(path: Path) -> Table:
    """The table in the file at `path`; raises InputError for an unknown format, an empty file or repeated columns."""
    ending = format_of(path)
    if ending is None:
        raise InputError(
            f"{path}: unknown file format {path.suffix or '(no ending)'!r}. Save it as one of: {', '.join(FORMATS)}."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: there are no rows to read.")
    opener = _open_parquet if ending == ".parquet" else _open_json if "jsonl" in ending else _open_delimited
    table = opener(path)
    # A row is a dict, so of two columns of one name one would be lost without a word.
    if repeated := _repeated(table.columns):
        raise InputError(f"{path}: several columns are named {shortened(repeated)}. Give each column its own name.")
    return table


def _repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, quoted."""
    if len(set(names)) == len(names):  # as nearly always, and asked of every line of JSON
        return []
    return sorted(repr(name) for name, n in Counter(names).items() if n > 1)


def with_all_columns(table: Table) -> Table:
    """The table with the columns of all of its rows: JSON Lines may bring in a new name on any line, so they are read once."""
    # All other formats name their columns in one place, and there is nothing to add.
    if "jsonl" not in (format_of(Path(table.place)) or ""):
        return table
    return replace(table, columns=tuple(dict.fromkeys(name for _, row in table for name in row)))


def has_column(table: Table, name: str) -> bool:
    """Whether any of its rows has the column: of JSON Lines all are asked where the first ones do not."""
    return name in table.columns or name in with_all_columns(table).columns


def _open_delimited(path: Path) -> Table:
    """The table in a CSV or TSV file; its first record names the columns."""
    dialect = dialect_of(path)
    # Read as a record like the others, so that a quoted name may hold a separator.
    header = next(records(path, dialect), None)
    if header is None:
        raise InputError(f"{path} is empty: there are no rows to read.")
    columns = tuple(name.strip() for name in header[1])  # "text, label" is a header too

    def rows() -> Iterator[NumberedRow]:
        for number, fields in islice(records(path, dialect), 1, None):
            # A separator that is not quoted moves all fields behind it into wrong columns.
            if len(fields) != len(columns):
                raise InputError(
                    f"{path}, line {number}: {len(fields)} fields, but the header names {len(columns)}. Put a text that "
                    f"holds {dialect.separator} or line breaks in double quotes, or save the rows as JSON Lines."
                )
            yield number, dict(zip(columns, fields, strict=True))

    # A person should see it where the columns are not separated as the ending promises.
    notes = () if dialect.usual else (f"{path}: columns are separated by {dialect.separator}",)
    return Table(str(path), "line", columns, rows, notes, has_header=True)


def _open_json(path: Path) -> Table:
    """The table in a JSON Lines file; its columns are the names in its first objects, in order of appearance."""
    first = islice(_json_rows(path), 100)  # an optional column may be absent from the first rows
    columns = tuple(dict.fromkeys(name for _, row in first for name in row))
    if not columns:
        raise InputError(f"{path} is empty: there are no rows to read.")
    return Table(str(path), "line", columns, lambda: _json_rows(path))


def _json_rows(path: Path) -> Iterator[NumberedRow]:
    """The object on each line of the file; blank lines are left out, but counted."""
    for number, line in read_lines(path):
        if not line.isspace():
            yield number, _json_object(line, path, number)


def _json_object(line: str, path: Path, number: int) -> Row:
    """The object on one line; raises InputError when the line holds anything else."""
    advice = 'Each line must hold one object, such as {"text": "...", "label": "..."}.'
    names: list[str] = []  # of the object that was read last, which is the one around all others

    def noted(pairs: list[tuple[str, Any]]) -> Row:
        nonlocal names
        names = [name for name, _ in pairs]
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=noted)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}). {advice}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists nested thousands deep
        raise InputError(f"{path}, line {number}: JSON that cannot be read ({error}). {advice}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: a JSON {type(row).__name__}, not an object. {advice}")
    if repeated := _repeated(names):
        raise InputError(
            f"{path}, line {number}: several values are named {shortened(repeated)}. Give each its own name."
        )
    if "\\ud" in line.lower():  # only an escape can bring in half of a surrogate pair, which no tokenizer takes
        _refuse_lone_surrogates(row, path, number)
    return row


def _refuse_lone_surrogates(row: Row, path: Path, number: int) -> None:
    """Raises InputError for a string that cannot be encoded: tokenizers would fail on it, without saying where."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = str(error.object)[error.start]
        raise InputError(
            f"{path}, line {number}: \\u{ord(half):04x} is one half of a character (a lone surrogate). "
            "Write the file again as UTF-8, without cutting characters in two."
        ) from None


def _open_parquet(path: Path) -> Table:
    """The table in a Parquet file, from its schema."""
    # Here and not above: no other format needs it.
    import pyarrow.parquet as pq

    with _parquet_errors(path), pq.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)
    return Table(str(path), "row", columns, lambda: _parquet_rows(path))


def _parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """The rows in the order of the file, numbered from 1, with Python's own types."""
    import pyarrow.parquet as pq

    with _parquet_errors(path), pq.ParquetFile(path) as file:
        # 256 rows in memory at a time, however many there are in the file's row groups
        batches = file.iter_batches(batch_size=256)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises on damaged files, at opening or on the way, into InputError."""
    import pyarrow as pa

    try:
        yield
    # An overflow is a date that Python has not; a plain ValueError two fields of one name within a column.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: cannot be read as Parquet ({first_line(error)}). Write or copy the file again."
        ) from None
