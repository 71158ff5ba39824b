"""The lines of a text file, plain or gzipped, read one at a time in bounded memory.

Lines are split at line feeds only, before decoding: Python's own text mode would also split at a lone carriage return,
and `str.splitlines` at a dozen characters that occur inside texts.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path

from ..errors import InputError

MAX_ROW_BYTES = 10 * 2**20
"""A longer row is a mistake (an unclosed quote, a file that is one line), and must not be read into memory."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what some programs write in front of UTF-8

OTHER_FORMATS = {
    b"\x1f\x8b": "The file is gzipped: add .gz to its name.",
    b"PK": "The file is a spreadsheet or a zip archive: save it as CSV, or unpack it.",
}
"""What to do about a file whose first bytes show that it is no text at all."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number (from 1) and the text, line end included, of each line; a UTF-8 byte order mark is dropped.

    Raises InputError with the line for bytes that are not UTF-8, a line over 10 MiB, or damaged gzip.
    """
    position = 0  # bytes before this line, after decompression
    with _opened(path) as file:
        for number in count(1):
            line = _bounded_line(file, path, number)
            if not line:
                return
            kept = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            # Positions are those in the file, where a byte order mark counts.
            yield number, _decoded(kept, path, number, position + len(line) - len(kept))
            position += len(line)


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


def _decoded(line: bytes, path: Path, number: int, position: int) -> str:
    """The line as text; `position` is that of its first byte in the file, for the message."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        advice = "Save the file again as UTF-8 (it may be Windows-1252, Latin-1 or UTF-16 now)."
        # Only the first bytes of a file say what it is instead.
        if number == 1:
            advice = next((what for start, what in OTHER_FORMATS.items() if line.startswith(start)), advice)
        raise InputError(
            f"{path}, line {number}: byte {line[error.start]:#04x} at position {position + error.start} is not UTF-8. "
            f"{advice}"
        ) from None
