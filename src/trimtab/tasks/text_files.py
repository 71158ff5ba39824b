"""The lines of a text file, plain or gzipped, read one at a time in bounded memory.

Lines are split at line feeds only, before decoding: Python's own text mode would also split at a lone carriage return,
and `str.splitlines` at a dozen characters that occur inside texts. Only a file without any line feed is split at carriage
returns, as Excel on a Mac writes them.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from itertools import count
from pathlib import Path

from ..errors import InputError

MAX_ROW_BYTES = 10 * 2**20
"""A longer row is a mistake (an unclosed quote, a file that is one line), and must not be read into memory."""

BYTE_ORDER_MARK = codecs.BOM_UTF8  # what some programs write in front of UTF-8

WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""The first bytes of files in encodings of two or four bytes a letter; the longer marks first, as one begins with another."""

OTHER_FORMATS = {
    b"\x1f\x8b": "The file is gzipped: add .gz to its name.",
    b"PK": "The file is a spreadsheet or a zip archive: save it as CSV, or unpack it.",
}
"""What to do about a file whose first bytes show that it is no text at all."""


def read_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """The number (from 1) and the text, line end included, of each line; a byte order mark is dropped.

    Without an `encoding` it is UTF-8, or UTF-16 where the file begins with its mark. Raises InputError with the line for bytes
    that are not of the encoding, a line over 10 MiB, or damaged gzip.
    """
    encoding = encoding or _marked_encoding(path) or "utf-8"
    # Where a line feed is one byte, lines are found before they are decoded, so that a wrong byte has a place.
    line_end = "\r" if _ends_in_returns(path, encoding) else "\n"
    if line_end == "\r" or "\n".encode(encoding) != b"\n":
        yield from _text_lines(path, encoding, line_end)
        return
    position = 0  # bytes before this line, after decompression
    with _opened(path) as file:
        for number in count(1):
            line = _bounded_line(file, path, number)
            if not line:
                return
            kept = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if number == 1 and _looks_wide(kept):
                raise InputError(
                    f"{path}, line 1: every other byte is zero, as in UTF-16. Name the encoding (--encoding utf-16-le, or "
                    "utf-16-be), or save the file again as UTF-8."
                )
            # Positions are those in the file, where a byte order mark counts.
            yield number, _decoded(kept, path, number, position + len(line) - len(kept), encoding)
            position += len(line)


def read_text(path: Path, encoding: str | None = None) -> str:
    """The whole text of a file, in memory; raises InputError as `read_lines` does."""
    return "".join(line for _, line in read_lines(path, encoding))


def too_long(path: Path, number: int) -> InputError:
    """The InputError for a row that starts at line `number` and goes on for more than 10 MiB."""
    return InputError(
        f"{path}, line {number}: this row is longer than {MAX_ROW_BYTES // 2**20} MiB. Check for a double quote that is "
        "never closed (CSV), or a file that is one JSON document instead of JSON Lines (one object per line)."
    )


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """The file, open for reading decompressed bytes."""
    try:
        return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _marked_encoding(path: Path) -> str | None:
    """The encoding that a byte order mark of two or four bytes names; None without such a mark."""
    with _opened(path) as file:
        try:
            start = file.read(4)
        except (EOFError, zlib.error, OSError):  # said when the lines are read, with their place
            return None
    return next((name for mark, name in WIDE_MARKS.items() if start.startswith(mark)), None)


def _looks_wide(line: bytes) -> bool:
    """Whether a first line is Latin text in UTF-16 without a mark: half of its bytes are zero."""
    return len(line) > 3 and line.count(0) >= (len(line) - 1) // 2


def _ends_in_returns(path: Path, encoding: str) -> bool:
    """Whether the file, as far as a first look goes, has carriage returns and no line feed."""
    with _opened(path) as file:
        try:
            start = file.read(2**16).decode(encoding, errors="ignore")
        except (EOFError, zlib.error, OSError):  # said when the lines are read, with their place
            return False
    return "\r" in start and "\n" not in start


def _text_lines(path: Path, encoding: str, line_end: str) -> Iterator[tuple[int, str]]:
    """What `read_lines` gives, of other line ends, and of encodings whose line feed is more than one byte, or another one."""
    with _opened(path) as file, TextIOWrapper(file, encoding=encoding, newline=line_end) as text:
        for number in count(1):
            try:
                line = text.readline(MAX_ROW_BYTES + 1)
            except UnicodeError as error:
                raise InputError(
                    f"{path}, at line {number} or soon after it: not {encoding} ({error}). {_OTHER_ENCODING}"
                ) from None
            except (EOFError, zlib.error, OSError) as error:
                raise InputError(f"cannot read {path} at line {number}: {error}. Copy the file again.") from None
            if not line:
                return
            if len(line) > MAX_ROW_BYTES:
                raise too_long(path, number)
            yield number, line.removeprefix("\ufeff") if number == 1 else line


def _bounded_line(file: gzip.GzipFile | BufferedReader, path: Path, number: int) -> bytes:
    """The next line, or b"" at the end of the file."""
    # One byte more than allowed, to tell a line that is too long from one that just fits.
    try:
        line = file.readline(MAX_ROW_BYTES + 1)
    # BadGzipFile is an OSError too, so it has to be caught first.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}, line {number}: the gzip data is truncated or corrupt ({error}). Copy or compress the file again."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path} at line {number}: {error.strerror or error}") from None
    if len(line) > MAX_ROW_BYTES:
        raise too_long(path, number)
    return line


_OTHER_ENCODING = "Name the encoding (--encoding cp1252, latin-1, utf-16, ...), or save the file again as UTF-8."


def _decoded(line: bytes, path: Path, number: int, position: int, encoding: str) -> str:
    """The line as text; `position` is that of its first byte in the file, for the message."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        named = "UTF-8" if encoding == "utf-8" else encoding
        advice = f"It may be Windows-1252 or Latin-1. {_OTHER_ENCODING}" if encoding == "utf-8" else _OTHER_ENCODING
        # Only the first bytes of a file say what it is instead.
        if number == 1:
            advice = next((what for start, what in OTHER_FORMATS.items() if line.startswith(start)), advice)
        raise InputError(
            f"{path}, line {number}: byte {line[error.start]:#04x} at position {position + error.start} is not {named}. "
            f"{advice}"
        ) from None
