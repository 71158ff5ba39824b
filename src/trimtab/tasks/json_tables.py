"""JSON to rows: JSON Lines, one object a line, in bounded memory; and documents, which are read whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError, shortened
from .reading import AS_WRITTEN, Reading
from .table import BadRow, NumberedRow, Row, Table, repeated_names
from .text_files import read_lines, read_text

_ONE_OBJECT = 'Each line must hold one object, such as {"text": "...", "label": "..."}.'
_DOCUMENT = 'Write a list of objects, [{"text": "...", "label": "..."}, ...], or one object a line.'


def open_json_lines(path: Path, reading: Reading = AS_WRITTEN) -> Table:
    """The table in a JSON Lines file; its columns are the names in its first objects, in order of appearance."""

    def walk() -> Iterator[NumberedRow]:
        return _rows(path, reading.encoding)

    first = [row for _, row in islice(walk(), 100)]  # an optional column may be absent from the first rows
    if not first:
        raise InputError(f"{path} is empty: there are no rows to read.")
    columns = tuple(dict.fromkeys(name for row in first for name in row))
    if not columns and isinstance(first[0], BadRow):  # hardly a file of this kind
        raise first[0].error
    return Table(str(path), "line", columns, walk, open_ended=True)


def open_json(path: Path, reading: Reading = AS_WRITTEN) -> Table:
    """The table in a JSON file: a list of objects, an object of columns, or objects one a line whatever the file is called.

    A document is read whole. Raises InputError for one of another shape.
    """
    if _begins_with_a_row(path, reading.encoding):
        return open_json_lines(path, reading)
    text = read_text(path, reading.encoding)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: JSON that cannot be read ({error}). {_DOCUMENT}") from None
    rows = _rows_of_document(found, path)
    if not rows:
        raise InputError(f"{path} is empty: there are no rows to read.")
    if "\\ud" in text.lower():
        for number, row in enumerate(rows, start=1):
            _refuse_lone_surrogates(row, f"{path}, row {number}")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), "row", columns, lambda: enumerate(rows, start=1))


def _begins_with_a_row(path: Path, encoding: str | None) -> bool:
    """Whether the first line that is not blank is an object by itself, with another line behind it."""
    lines = (line for _, line in read_lines(path, encoding) if not line.isspace())
    first, second = next(lines, ""), next(lines, None)
    try:
        return isinstance(json.loads(first), dict) and second is not None
    except (ValueError, RecursionError):
        return False


def _rows_of_document(found: Any, path: Path) -> list[Row]:
    """The rows of a JSON document: its list of objects, its columns, or the one list of objects that it holds."""
    if isinstance(found, dict):
        lists = {name: value for name, value in found.items() if isinstance(value, list)}
        objects = {name: value for name, value in lists.items() if value and isinstance(value[0], dict)}
        if len(objects) == 1 and len(lists) == 1:  # {"version": 1, "data": [...]}
            (found,) = objects.values()
        elif found and len(lists) == len(found) and not objects and len({*map(len, lists.values())}) == 1:
            return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]
        elif found and all(isinstance(value, dict) for value in found.values()):  # as pandas writes its columns
            keys = dict.fromkeys(key for column in found.values() for key in column)
            return [{name: column.get(key) for name, column in found.items()} for key in keys]
        elif not lists:  # a single row, or nothing
            found = [found] if found else []
    if not isinstance(found, list):
        raise InputError(f"{path}: this document is no table. {_DOCUMENT}")
    wrong = next((i for i, row in enumerate(found, start=1) if not isinstance(row, dict)), None)
    if wrong is not None:
        kind = type(found[wrong - 1]).__name__
        raise InputError(f"{path}, item {wrong} of the list: a JSON {kind}, not an object. {_DOCUMENT}")
    return found


def _rows(path: Path, encoding: str | None) -> Iterator[NumberedRow]:
    """The object on each line of the file, or a BadRow without cells; blank lines are left out, but counted."""
    for number, line in read_lines(path, encoding):
        if line.isspace():
            continue
        try:
            yield number, _json_object(line, f"{path}, line {number}")
        except InputError as error:
            yield number, BadRow({}, "no readable JSON object", error)


def _json_object(line: str, place: str) -> Row:
    """The object on one line; raises InputError when the line holds anything else."""
    names: list[str] = []  # of the object that was read last, which is the one around all others

    def noted(pairs: list[tuple[str, Any]]) -> Row:
        nonlocal names
        names = [name for name, _ in pairs]
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=noted)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg}, column {error.colno}). {_ONE_OBJECT}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists nested thousands deep
        raise InputError(f"{place}: JSON that cannot be read ({error}). {_ONE_OBJECT}") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: a JSON {type(row).__name__}, not an object. {_ONE_OBJECT}")
    if repeated := repeated_names(names):
        raise InputError(f"{place}: several values are named {shortened(repeated)}. Give each its own name.")
    if "\\ud" in line.lower():  # only an escape can bring in half of a surrogate pair, which no tokenizer takes
        _refuse_lone_surrogates(row, place)
    return row


def _refuse_lone_surrogates(row: Row, place: str) -> None:
    """Raises InputError for a string that cannot be encoded: tokenizers would fail on it, without saying where."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = str(error.object)[error.start]
        raise InputError(
            f"{place}: \\u{ord(half):04x} is one half of a character (a lone surrogate). "
            "Write the file again as UTF-8, without cutting characters in two."
        ) from None
