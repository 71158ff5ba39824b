"""Parquet to rows, with the class names that `datasets` keeps in the file beside the indices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError, first_line
from .table import NumberedRow, Table, class_names_of, with_class_names

ROWS_AT_ONCE = 256  # in memory, however many there are in the file's row groups


def open_parquet(path: Path) -> Table:
    """The table in a Parquet file, from its schema."""
    # Here and not above: no other format needs it.
    import pyarrow.parquet as pq

    with _parquet_errors(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
    names = class_names_of(schema)

    def walk() -> Iterator[NumberedRow]:
        with _parquet_errors(path), pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate((with_class_names(row, names) for row in rows), start=1)

    return Table(str(path), "row", tuple(schema.names), walk, class_names=names, schema=schema)


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
