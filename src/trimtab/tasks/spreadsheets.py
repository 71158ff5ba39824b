"""Excel workbooks (.xlsx) to rows: the first sheet, its first row naming the columns, every cell as the text it would be in CSV.

A workbook is a zip archive of XML (ECMA-376, part 1), of which a table needs little: the order of the sheets, the shared texts,
and the cells of one sheet. Formats of numbers are not looked at, so that a date is the number that Excel keeps for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from posixpath import normpath
from typing import IO
from xml.etree.ElementTree import Element, ParseError, iterparse, parse
from zipfile import BadZipFile, ZipFile

from ..errors import InputError, shortened
from .reading import AS_WRITTEN, Reading
from .table import NumberedRow, Table, position_name

_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT_RELATION = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"

_HEXADECIMAL = re.compile(r"_x([0-9A-Fa-f]{4})_")
"""A character that XML cannot hold, such as a carriage return (_x000D_)."""

Cells = dict[int, str]  # position of the column, from 0 -> what its cell holds


def open_spreadsheet(path: Path, reading: Reading = AS_WRITTEN) -> Table:
    """The table in the first sheet; rows go by the number that Excel shows, and those without any cell are passed over.

    Raises InputError for what is no workbook, and for a cell beside the columns that the header names.
    """
    with _opened(path) as archive:
        sheets = _sheets(archive)
        first = next(_rows(archive, sheets[0][1]), None) if sheets else None
    if first is None:
        raise InputError(f"{path} is empty: there are no rows to read.")
    width = max(first[1]) + 1
    written = [first[1].get(i, "").strip() if reading.header else "" for i in range(width)]
    bare = not reading.header or written.count("") > 1
    columns = tuple(position_name(i) if bare and not name else name for i, name in enumerate(written, start=1))
    name, member = sheets[0]

    def walk() -> Iterator[NumberedRow]:
        with _opened(path) as archive:
            for number, cells in islice(_rows(archive, member), 1 if reading.header else 0, None):
                if beyond := [i for i in cells if i >= width and cells[i].strip()]:
                    raise InputError(
                        f"{path}, row {number}: a cell in column {beyond[0] + 1}, but the header names {width}. Name that "
                        "column, or empty it."
                    )
                yield number, {column: cells.get(i, "") for i, column in enumerate(columns)}

    others = [repr(other) for other, _ in sheets[1:]]
    notes = (f"{path}: read the sheet {name!r}, and not {shortened(others)}",) if others else ()
    return Table(str(path), "row", columns, walk, notes, has_header=reading.header)


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    """The archive; what is wrong in it becomes InputError, at opening or on the way."""
    try:
        with ZipFile(path) as archive:
            yield archive
    except (
        BadZipFile,
        KeyError,
        ParseError,
        ValueError,
        IndexError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise InputError(
            f"{path}: cannot be read as an Excel workbook ({error}). Save it again as .xlsx without a password, or as CSV."
        ) from None


def _sheets(archive: ZipFile) -> list[tuple[str, str]]:
    """The name of each sheet and its place in the archive, in the order of the tabs."""
    with archive.open("xl/_rels/workbook.xml.rels") as file:
        targets = {relation.get("Id"): relation.get("Target", "") for relation in parse(file).getroot()}
    with archive.open("xl/workbook.xml") as file:
        found = [element for element in parse(file).getroot().iter() if _tag(element) == "sheet"]
    places = [targets[sheet.get(_RELATION) or sheet.get(_STRICT_RELATION)] for sheet in found]
    # A target is a path from xl/, or from the root of the archive.
    members = [place[1:] if place.startswith("/") else normpath(f"xl/{place}") for place in places]
    return [(sheet.get("name", ""), member) for sheet, member in zip(found, members, strict=True)]


def _rows(archive: ZipFile, member: str) -> Iterator[tuple[int, Cells]]:
    """The number and the cells of each row that has any."""
    shared = _shared_texts(archive)
    number = 0
    with archive.open(member) as file:
        for row in _each(file, "row"):
            number = int(row.get("r") or number + 1)
            cells: Cells = {}
            position = -1
            for cell in row:
                position = _position(cell.get("r")) if cell.get("r") else position + 1
                cells[position] = _text_of(cell, shared)
            if any(text.strip() for text in cells.values()):
                yield number, cells


def _each(file: IO[bytes], tag: str) -> Iterator[Element]:
    """The elements of that name, each emptied when the next is wanted, so that a large sheet is never in memory."""
    for _, element in iterparse(file):
        if _tag(element) == tag:
            yield element
            element.clear()


def _shared_texts(archive: ZipFile) -> list[str]:
    """The texts that cells name by number."""
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    with archive.open("xl/sharedStrings.xml") as file:
        return [_joined(element) for element in _each(file, "si")]


def _joined(element: Element) -> str:
    """The text of an element: its runs, without the phonetic ones that Japanese texts carry."""
    runs = [child for child in element if _tag(child) in ("t", "r")]
    texts = [text.text or "" for run in runs for text in run.iter() if _tag(text) == "t"]
    return _HEXADECIMAL.sub(lambda match: chr(int(match[1], 16)), "".join(texts))


def _text_of(cell: Element, shared: list[str]) -> str:
    """What a cell holds, as a text: "" for nothing and for an error of a formula; numbers without a needless .0."""
    inline = next((child for child in cell if _tag(child) == "is"), None)
    if inline is not None:
        return _joined(inline)
    value = next((child.text or "" for child in cell if _tag(child) == "v"), "")
    kind = cell.get("t", "n")
    if kind == "s":
        return shared[int(value)]
    if kind == "b":
        return "true" if value == "1" else "false"
    if kind == "e" or not value:
        return ""
    if kind != "n":
        return value
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def _position(reference: str | None) -> int:
    """The position of a column, from 0, by a cell's reference: A1 is 0, AA1 is 26."""
    position = 0
    for letter in re.sub(r"[^A-Z]", "", (reference or "").upper()):
        position = position * 26 + ord(letter) - ord("A") + 1
    return position - 1


def _tag(element: Element) -> str:
    """The name of an element without its namespace, of which there are two in use."""
    return element.tag.rpartition("}")[2]
