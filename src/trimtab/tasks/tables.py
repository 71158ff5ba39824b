"""File formats to raw rows: CSV, TSV, JSON Lines, JSON (each also gzipped), Parquet and Excel, and files that are parts of one.

Text files number rows by the line a row starts on, which is what an editor shows; others number rows from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, counted, shortened
from .delimited import open_delimited
from .json_tables import open_json, open_json_lines
from .parquet import open_parquet
from .reading import AS_WRITTEN, Reading
from .spreadsheets import open_spreadsheet
from .table import BadRow, NumberedRow, Table, check_columns

_OPENERS = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".jsonl": open_json_lines,
    ".ndjson": open_json_lines,
    ".json": open_json,
}
FORMATS = (*(name for ending in _OPENERS for name in (ending, f"{ending}.gz")), ".parquet", ".xlsx")
"""Endings of file names, in lower case."""

PART = re.compile(r"part-(?:[mr]-)?(\d{5})(?:[-.].*)?", re.IGNORECASE)
"""A part of a table as Spark and Hadoop write it into a folder: part-00000-1f3c-c000.snappy.parquet."""

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{8,})?")
"""A part of a data set that was written in several files; numbers count from 0, and older ones end in a hash."""


def format_of(path: Path) -> str | None:
    """The ending of `path` that names its format, or None when it is not one of FORMATS."""
    fitting = [ending for ending in FORMATS if path.name.lower().endswith(ending)]
    return max(fitting, key=len, default=None)


def open_table(path: Path, reading: Reading = AS_WRITTEN) -> Table:
    """The table in the file at `path`; raises InputError for an unknown format, an empty file or repeated columns."""
    ending = format_of(path)
    if ending is None:
        raise InputError(
            f"{path}: unknown file format {path.suffix or '(no ending)'!r}. Save it as one of: {', '.join(FORMATS)}."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: there are no rows to read.")
    if ending == ".parquet":
        return check_columns(open_parquet(path))
    if ending == ".xlsx":
        return check_columns(open_spreadsheet(path, reading))
    return check_columns(_OPENERS[ending.removesuffix(".gz")](path, reading))


def open_shards(paths: Sequence[Path], reading: Reading = AS_WRITTEN) -> Table:
    """The files, which are the parts of one table, one after the other; their rows are counted through.

    Raises InputError where a part is missing, or has other columns than the first.
    """
    return _joined([open_table(path, reading) for path in _all_parts(paths)])


def open_parts(paths: Sequence[Path], reading: Reading = AS_WRITTEN) -> Table:
    """The files that Spark has written into one folder, in the order of their numbers; an empty part is a part without rows."""
    return _joined(
        [open_table(path, reading) for path in sorted(paths) if path.stat().st_size] or [open_table(paths[0], reading)]
    )


def parts_in(folder: Path) -> list[Path]:
    """The files of the folder that are parts of one table by their names; none where there are other tables among them."""
    files = [
        path for path in folder.iterdir() if path.is_file() and format_of(path) and not path.name.startswith((".", "_"))
    ]
    return files if all(PART.fullmatch(path.name) for path in files) else []


def _joined(tables: Sequence[Table]) -> Table:
    """The tables as one; raises InputError where one has other columns than the first."""
    first, *others = tables
    for other in others:
        if set(other.columns) != set(first.columns) and not (first.open_ended or other.open_ended):
            raise InputError(
                f"{other.place} has the columns {shortened(list(other.columns))}, but {first.place}, a part of the same table, "
                f"has {shortened(list(first.columns))}. Write the parts again with the same columns."
            )
    if not others:
        return first

    def walk() -> Iterator[NumberedRow]:
        number = 0
        for table in (first, *others):
            for _, row in table.walk():
                number += 1
                yield number, row

    place = f"{first.place} and {counted(len(others), 'more part')}"
    return replace(first, place=place, unit="row", walk=walk)


def _all_parts(paths: Sequence[Path]) -> list[Path]:
    """The paths in the order of their numbers; raises InputError where the last number says that there are others."""
    found: dict[int, Path] = {}
    total = 0
    for path in paths:
        match = SHARD.fullmatch(path.name[: -len(format_of(path) or "")])
        assert match is not None  # whoever calls has asked
        found[int(match[2])], total = path, max(total, int(match[3]))
    missing = [number for number in range(total) if number not in found]
    if missing or len(found) != len(paths):
        lacks = (
            f"part {shortened([f'{number:05d}' for number in missing])} is missing"
            if missing
            else "parts are there twice"
        )
        raise InputError(
            f"{paths[0].parent}: of the {total} parts of {paths[0].name}, {lacks}. Copy the folder again, or name one file."
        )
    return [found[number] for number in sorted(found)]


def with_all_columns(table: Table) -> Table:
    """The table with the columns of all of its rows: JSON Lines may bring in a new name on any line, so they are read once."""
    # All other formats name their columns in one place, and there is nothing to add.
    if not table.open_ended:
        return table
    rows = (row for _, row in table.walk() if not isinstance(row, BadRow))
    return replace(table, columns=tuple(dict.fromkeys(name for row in rows for name in row)))


def has_column(table: Table, name: str) -> bool:
    """Whether any of its rows has the column: of JSON Lines all are asked where the first ones do not."""
    return name in table.columns or name in with_all_columns(table).columns
