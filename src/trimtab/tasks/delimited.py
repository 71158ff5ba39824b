"""CSV and TSV to records: which character separates the columns, whether quotes quote, and where each record starts.

How quotes are written is found out of the file too (odd_quotes.py); whatever differs from the usual is read only where the usual
reading fails, or breaks more rows.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, islice
from pathlib import Path

from ..errors import InputError, counted
from .odd_quotes import oddities_in, usual_quotes
from .reading import AS_WRITTEN, Reading
from .table import BadRow, NumberedRow, Row, Table, position_name
from .text_files import MAX_ROW_BYTES, read_lines, too_long

# Delimiter -> its name in messages.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

Record = tuple[int, list[str]]
"""The line a record starts on, and its fields."""

QUOTED = re.compile(r'"[^"]*("|$)')
"""What stands in double quotes on one line; an open quote goes on over the next."""

SEPARATOR_LINE = re.compile(r'"?sep=.?"?', re.IGNORECASE)
"""The first line by which a spreadsheet tells itself what separates the columns."""

DOUBLED_QUOTES = re.compile(r'"[^"]*""(?:[^"]|"")*"')
"""A field in quotes that holds doubled quotes: only a writer that quotes makes one."""

QUOTED_FIELD = re.compile(r'"[^"]*"')
"""A field in quotes without a quote inside."""

_LOOKED_AT = 100  # records by which the separator is found where no line names the columns


@dataclass(frozen=True)
class Dialect:
    """How a delimited file separates its columns, and whether double quotes around a field belong to the text."""

    delimiter: str
    quoted: bool
    usual: bool = True  # whether the file's ending promises this delimiter
    oddities: frozenset[str] = frozenset()  # of odd_quotes.ODDITIES
    encoding: str | None = None

    @property
    def separator(self) -> str:
        """The delimiter in words, for messages."""
        return SEPARATORS[self.delimiter]


def open_delimited(path: Path, reading: Reading = AS_WRITTEN) -> Table:
    """The table in a CSV or TSV file; its first record names the columns, unless it has no header."""
    dialect = dialect_of(path, reading)
    # Read as a record like the others, so that a quoted name may hold a separator.
    first = next(records(path, dialect), None)
    if first is None:
        raise InputError(f"{path} is empty: there are no rows to read.")
    # "text, label" is a header too
    written = [name.strip() for name in first[1]] if reading.header else [""] * len(first[1])
    # A file of one column without a header has one without a name too.
    columns = _column_names(written) if reading.header else tuple(map(position_name, range(1, len(written) + 1)))

    def walk() -> Iterator[NumberedRow]:
        for number, fields in islice(records(path, dialect), 1 if reading.header else 0, None):
            fields = _without_surplus(fields, len(columns))
            # A separator that is not quoted moves all fields behind it into wrong columns.
            if len(fields) != len(columns):
                yield number, _ragged(path, number, fields, columns, dialect, reading.header)
            # In files that were put one behind the other "label" would be a class.
            elif reading.header and len(fields) > 1 and [field.strip() for field in fields] == written:
                yield number, _header_again(path, number, dict(zip(columns, fields, strict=True)))
            else:
                yield number, dict(zip(columns, fields, strict=True))

    # A person should see it where the columns are not separated as the ending promises.
    notes = () if dialect.usual else (f"{path}: columns are separated by {dialect.separator}",)
    repeated = tuple(name for name in dict.fromkeys(written) if name and written.count(name) > 1)
    return Table(str(path), "line", columns, walk, notes, has_header=reading.header, repeated=repeated)


def _column_names(written: Sequence[str]) -> tuple[str, ...]:
    """The names of a header, each once.

    Several without a name, as a spreadsheet writes its empty columns, and all but the first of one name are named by position.
    """
    names = list(written)
    bare = names.count("") > 1  # one alone, as the index of pandas, needs no other name
    return tuple(
        position_name(i) if (bare and not name) or name in names[: i - 1] else name
        for i, name in enumerate(names, start=1)
    )


def _without_surplus(fields: list[str], n_columns: int) -> list[str]:
    """The fields without blank ones behind the last column: a spreadsheet ends its rows in separators that its header lacks."""
    return fields[:n_columns] if not any(map(str.strip, fields[n_columns:])) else fields


def _header_again(path: Path, number: int, cells: Row) -> BadRow:
    """The BadRow of a line that names the columns once more."""
    error = InputError(
        f"{path}, line {number}: the header stands here again, as in files that were put one behind the other. Delete this line, "
        "or leave such rows out with skip_bad_rows (--skip-bad-rows)."
    )
    return BadRow(cells, "the header again", error)


def _ragged(
    path: Path, number: int, fields: list[str], columns: Sequence[str], dialect: Dialect, has_header: bool
) -> BadRow:
    """The BadRow of a record with more or fewer fields than columns; what is too much stays together in the last one."""
    cells: Row = dict.fromkeys(columns)
    kept = [*fields[: len(columns) - 1], dialect.delimiter.join(fields[len(columns) - 1 :])]
    cells.update(zip(columns, fields if len(fields) < len(columns) else kept, strict=False))
    wanted = f"the header names {len(columns)}" if has_header else f"the first line has {len(columns)}"
    error = InputError(
        f"{path}, line {number}: {counted(len(fields), 'field')}, but {wanted}. Put a text that holds {dialect.separator} or "
        "line breaks in double quotes, save the rows as JSON Lines, or leave such rows out with skip_bad_rows (--skip-bad-rows)."
    )
    return BadRow(cells, "another number of fields", error)


def dialect_of(path: Path, reading: Reading = AS_WRITTEN) -> Dialect:
    """The dialect of the file: the separator that cuts its header into most fields; of equals, the one its ending promises.

    Tab-separated files are written both without quoting (GLUE) and with it (spreadsheets); see `_quotes_quote`.
    Raises InputError for a first line that names the separator instead of the columns.
    """
    encoding = reading.encoding
    usual = "\t" if ".tsv" in path.name.lower() else ","
    number, header = next(((n, line) for n, line in read_lines(path, encoding) if line.strip("\r\n")), (1, ""))
    if SEPARATOR_LINE.fullmatch(header.strip("\r\n")):
        raise InputError(
            f"{path}, line {number}: {header.strip()!r} tells a spreadsheet what separates the columns, but the first line "
            "must name them. Delete that line; separators are found without it."
        )
    candidates = (usual, *(mark for mark in SEPARATORS if mark != usual))
    if reading.header:
        # A separator inside quotes is part of a column's name.
        delimiter = max(candidates, key=QUOTED.sub("", header).count)  # the first of equals
    else:
        delimiter = max(candidates, key=lambda mark: _regularity(path, mark, encoding))
    # Quotes always quote in CSV; of tab-separated files it has to be found out.
    quoted = delimiter != "\t" or _quotes_quote(path, encoding)
    dialect = Dialect(delimiter, quoted, delimiter == usual, encoding=encoding)
    return dialect if delimiter == "\t" else _with_oddities(path, dialect)


def records(path: Path, dialect: Dialect) -> Iterator[Record]:
    """The records of the file, blank lines left out; raises InputError for quotes that do not close."""
    if not dialect.quoted:
        return _plain_records(path, dialect.encoding)
    return _quoted_records(path, dialect)


def _plain_records(path: Path, encoding: str | None) -> Iterator[Record]:
    """One record per line, split at tabs; quotes are part of the text."""
    for number, line in read_lines(path, encoding):
        fields = line.rstrip("\r\n").split("\t")
        if fields != [""]:
            yield number, fields


def _quoted_records(path: Path, dialect: Dialect) -> Iterator[Record]:
    """Records whose fields may be quoted and go over lines; raises InputError for bad quotes and too long a row."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # the default, 131,072, cuts long documents off
    start, size = 1, 0  # of the record being read: its first line, and its bytes so far

    def lines() -> Iterator[str]:
        nonlocal size
        for _, line in read_lines(path, dialect.encoding):
            size += len(line.encode())
            if size > MAX_ROW_BYTES:  # an open quote runs on over the following lines
                raise too_long(path, start)
            yield usual_quotes(line, dialect.delimiter, dialect.oddities) if dialect.oddities else line

    # Of spaces in front of a quote, those in front of any field are taken away.
    spaced = "space before" in dialect.oddities
    reader = csv.reader(lines(), delimiter=dialect.delimiter, strict=True, skipinitialspace=spaced)
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
                "field twice, leave nothing between a closing quote and the separator, and end lines with a line feed."
            ) from None
        if fields:
            yield start, fields


def _regularity(path: Path, delimiter: str, encoding: str | None) -> tuple[float, float]:
    """Of the first records, the share with the commonest number of fields, and the share of fields without a space in front.

    Both are 0 where nothing is separated. A comma within a sentence has a space behind it, one between columns seldom.
    """
    try:
        # In tab-separated files a quote may be a part of the text, so that it must not be looked at here.
        all_records = (
            _plain_records(path, encoding)
            if delimiter == "\t"
            else _quoted_records(path, Dialect(delimiter, True, encoding=encoding))
        )
        found = [fields for _, fields in islice(all_records, _LOOKED_AT)]
    except InputError:
        return 0.0, 0.0
    widths = Counter(map(len, found))
    width, n = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    joined = [not field.startswith(" ") for fields in found for field in fields]
    return (n / len(found), sum(joined) / len(joined)) if width > 1 else (0.0, 0.0)


def _with_oddities(path: Path, dialect: Dialect) -> Dialect:
    """The dialect with those oddities of its quotes with which the fewest rows are ragged; of equals, with the fewest.

    Spaces in front of quotes are read as such in a tie too: elsewhere a field that begins with a space and a quote is no field.
    """
    # Nearly always there is none, and the file needs no closer look.
    lines = (line for _, line in read_lines(path, dialect.encoding) if '"' in line)
    found = oddities_in(lines, dialect.delimiter)
    if not found:
        return dialect
    several = chain.from_iterable(combinations(found, n) for n in range(len(found) + 1))
    tried = [replace(dialect, oddities=frozenset(some)) for some in several]
    n_ragged = [_count_ragged(path, one) for one in tried]
    fewest = min((n for n in n_ragged if n is not None), default=None)
    if fewest is None:  # whatever is wrong is said of the usual reading
        return dialect
    best = tried[n_ragged.index(fewest)]
    spaced = replace(best, oddities=best.oddities | {"space before"})
    if spaced in tried and n_ragged[tried.index(spaced)] == fewest and _differ(path, best, spaced):
        return spaced
    return best


def _count_ragged(path: Path, dialect: Dialect) -> int | None:
    """How many records have another number of fields than the first; None where the file cannot be read that way."""
    try:
        widths = [len(fields) for _, fields in _quoted_records(path, dialect)]
    except InputError:
        return None
    return sum(width != widths[0] for width in widths)


def _differ(path: Path, one: Dialect, other: Dialect) -> bool:
    """Whether the two readings differ in more of any field than the spaces in front of it."""
    both = (_quoted_records(path, dialect) for dialect in (one, other))
    return any(
        [field.lstrip(" ") for field in plain] != [field.lstrip(" ") for field in spaced]
        for (_, plain), (_, spaced) in zip(*both, strict=False)
    )


def _quotes_quote(path: Path, encoding: str | None) -> bool:
    """Whether double quotes in a tab-separated file quote fields, or are only part of the text.

    They quote if there is a sign of it (a quoted header, doubled quotes inside a quoted field, lines that split into
    the wrong number of fields, a column in which every cell is quoted) and the whole file can be read that way; GLUE files,
    with a stray quote here and there, cannot.
    """
    return _signs_of_quoting(path, encoding) and _reads_quoted(path, encoding)


def _signs_of_quoting(path: Path, encoding: str | None) -> bool:
    """Whether the file, read as if quotes were text, shows one of the signs; reads no further than the first."""
    width = 0  # fields of the header; 0 before it is read
    n_rows, quoted = 0, set[int]()  # of the rows below it: how many, and the columns that are quoted in each of them
    for _, fields in _plain_records(path, encoding):
        if not width and fields[0].startswith('"'):
            return True
        if width:
            here = {i for i, field in enumerate(fields) if QUOTED_FIELD.fullmatch(field)}
            n_rows, quoted = n_rows + 1, here if n_rows == 0 else quoted & here
        width = width or len(fields)
        if len(fields) != width or any(DOUBLED_QUOTES.fullmatch(field) for field in fields if field[:1] == '"'):
            return True
    return n_rows > 1 and bool(quoted)


def _reads_quoted(path: Path, encoding: str | None) -> bool:
    """Whether every record, read with quotes, has as many fields as the first."""
    return _count_ragged(path, Dialect("\t", True, encoding=encoding)) == 0
