"""CSV and TSV to records: which character separates the columns, whether quotes quote, and where each record starts."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .lines import MAX_ROW_BYTES, read_lines, too_long

# Delimiter -> its name in messages.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Record = tuple[int, list[str]]
"""The line a record starts on, and its fields."""

QUOTED = re.compile(r'"[^"]*("|$)')
"""What stands in double quotes on one line; an open quote goes on over the next."""

SEPARATOR_LINE = re.compile(r'"?sep=.?"?', re.IGNORECASE)
"""The first line by which a spreadsheet tells itself what separates the columns."""

DOUBLED_QUOTES = re.compile(r'"[^"]*""(?:[^"]|"")*"')
"""A field in quotes that holds doubled quotes: only a writer that quotes makes one."""


@dataclass(frozen=True)
class Dialect:
    """How a delimited file separates its columns, and whether double quotes around a field belong to the text."""

    delimiter: str
    quoted: bool
    usual: bool = True  # whether the file's ending promises this delimiter

    @property
    def separator(self) -> str:
        """The delimiter in words, for messages."""
        return SEPARATORS[self.delimiter]


def dialect_of(path: Path) -> Dialect:
    """The dialect of the file: the separator that cuts its header into most fields; of equals, the one its ending promises.

    Tab-separated files are written both without quoting (GLUE) and with it (spreadsheets); see `_quotes_quote`.
    Raises InputError for a first line that names the separator instead of the columns.
    """
    usual = "\t" if ".tsv" in path.name.lower() else ","
    number, header = next(((n, line) for n, line in read_lines(path) if line.strip("\r\n")), (1, ""))
    if SEPARATOR_LINE.fullmatch(header.strip("\r\n")):
        raise InputError(
            f"{path}, line {number}: {header.strip()!r} tells a spreadsheet what separates the columns, but the first line "
            "must name them. Delete that line; separators are found without it."
        )
    # A separator inside quotes is part of a column's name.
    bare = QUOTED.sub("", header)
    delimiter = max((usual, *SEPARATORS), key=bare.count)  # the first of equals
    # Quotes always quote in CSV; of tab-separated files it has to be found out.
    return Dialect(delimiter, delimiter != "\t" or _quotes_quote(path), delimiter == usual)


def records(path: Path, dialect: Dialect) -> Iterator[Record]:
    """The records of the file, blank lines left out; raises InputError for quotes that do not close."""
    return _quoted_records(path, dialect.delimiter) if dialect.quoted else _plain_records(path)


def _plain_records(path: Path) -> Iterator[Record]:
    """One record per line, split at tabs; quotes are part of the text."""
    for number, line in read_lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if fields != [""]:
            yield number, fields


def _quoted_records(path: Path, delimiter: str) -> Iterator[Record]:
    """Records whose fields may be quoted and go over lines; raises InputError for bad quotes and too long a row."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # the default, 131,072, cuts long documents off
    start, size = 1, 0  # of the record being read: its first line, and its bytes so far

    def lines() -> Iterator[str]:
        nonlocal size
        for _, line in read_lines(path):
            size += len(line.encode())
            if size > MAX_ROW_BYTES:  # an open quote runs on over the following lines
                raise too_long(path, start)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        # The reader has counted the lines of all records before this one.
        start, size = reader.line_num + 1, 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, line {start}: not valid CSV ({error}). Close every double quote, write one inside a quoted "
                "field twice, and end lines with a line feed."
            ) from None
        if fields:
            yield start, fields


def _quotes_quote(path: Path) -> bool:
    """Whether double quotes in a tab-separated file quote fields, or are only part of the text.

    They quote if there is a sign of it (a quoted header, doubled quotes inside a quoted field, lines that split into
    the wrong number of fields) and the whole file can be read that way; GLUE files, with a stray quote here and there,
    cannot.
    """
    return _signs_of_quoting(path) and _reads_quoted(path)


def _signs_of_quoting(path: Path) -> bool:
    """Whether the file, read as if quotes were text, shows one of the signs; reads no further than the first."""
    width = 0  # fields of the header; 0 before it is read
    for _, fields in _plain_records(path):
        if not width and fields[0].startswith('"'):
            return True
        width = width or len(fields)
        if len(fields) != width or any(DOUBLED_QUOTES.fullmatch(field) for field in fields if field[:1] == '"'):
            return True
    return False


def _reads_quoted(path: Path) -> bool:
    """Whether every record, read with quotes, has as many fields as the first."""
    try:
        return len({len(fields) for _, fields in _quoted_records(path, "\t")}) == 1
    except InputError:
        return False
