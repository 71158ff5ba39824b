"""Rows to a file of rows, one at a time in bounded memory: CSV, TSV and JSON Lines (each also gzipped), and Parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from gzip import GzipFile
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files import without_nan
from ..tasks.table import Row, Table

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""Of the files that can be written; the first three also with .gz behind them."""

_GROUP_ROWS = 4096  # of a Parquet file's row groups, which are held in memory until they are whole
_SCALARS = {bool: "bool", int: "int64", float: "double", str: "string"}  # Python's type -> Arrow's, by name

Writer = Callable[[Row], Any]  # writes one row; what it returns means nothing


def check_ending(to: Path) -> None:
    """Raises InputError for a file that is named like none that can be written."""
    if _ending(to) not in ENDINGS or to.name.lower().endswith(".parquet.gz"):
        raise InputError(
            f"cannot write {to}: its name must end in {', '.join(ENDINGS)}, or in one of the first three and .gz"
        )


@contextmanager
def row_writer(temporary: Path, to: Path, table: Table, added: Mapping[str, str]) -> Iterator[Writer]:
    """A function that writes a row of `table` with the `added` columns (name -> Arrow's type) to `temporary`, a file like `to`.

    Where a format has no word for a value (a list in CSV, a date in JSON), it is written as JSON, or else as text.
    """
    names = [*table.columns, *added]
    with ExitStack() as stack:
        if _ending(to) == ".parquet":
            yield stack.enter_context(_parquet(temporary, table, added))
            return
        binary = stack.enter_context(temporary.open("wb"))
        if to.suffix.lower() == ".gz":  # then the name of what is in it is in the file
            binary = stack.enter_context(GzipFile(to.name[:-3], "wb", fileobj=binary))
        file = stack.enter_context(TextIOWrapper(binary, encoding="utf-8", newline=""))
        yield (
            _json_lines(file)
            if _ending(to) == ".jsonl"
            else _cells(file, names, "," if _ending(to) == ".csv" else "\t")
        )


def _ending(to: Path) -> str:
    """The ending that names the format."""
    return Path(to.name.lower().removesuffix(".gz")).suffix


def _cells(file: IO[str], names: list[str], delimiter: str) -> Writer:
    """Lines of cells, quoted where they must be."""
    writer = csv.DictWriter(_LineFeeds(file), names, delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    return lambda row: writer.writerow(
        {name: _as_json(cell) if isinstance(cell, list | dict) else cell for name, cell in row.items()}
    )


class _LineFeeds:
    """A file that ends rows with a line feed; csv quotes a lone carriage return only where it ends its rows with one too."""

    def __init__(self, file: IO[str]):
        self._file = file

    def write(self, row: str) -> int:
        """Writes one whole row, as csv hands it over."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _json_lines(file: IO[str]) -> Writer:
    """One JSON object per row; dates and decimals become text, and what is no number null."""
    return lambda row: print(_as_json(row), file=file)


def _as_json(value: Any) -> str:
    """`value` on one line; what JSON has no word for is written as text."""
    return json.dumps(without_nan(value), ensure_ascii=False, default=str)


@contextmanager
def _parquet(path: Path, table: Table, added: Mapping[str, str]) -> Iterator[Writer]:
    """Row groups of _GROUP_ROWS rows, with the types of the table's own columns where it has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = _types_of(table) | {name: _arrow_type(name_of_type) for name, name_of_type in added.items()}
    schema = pa.schema(list(types.items()))
    texts = [name for name, of_column in types.items() if pa.types.is_string(of_column)]
    waiting: list[Row] = []

    def write(row: Row) -> None:
        waiting.append(row | {name: _text(row.get(name)) for name in texts})
        if len(waiting) == _GROUP_ROWS:
            flush()

    def flush() -> None:
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

    with pq.ParquetWriter(path, schema) as writer:
        yield write
        flush()


def _text(cell: Any) -> str | None:
    """A cell of a column of texts: whatever else is in it, as JSON."""
    return cell if cell is None or isinstance(cell, str) else _as_json(cell)


def _arrow_type(name: str) -> Any:
    """The Arrow type of that name; "strings" is a list of texts."""
    import pyarrow as pa

    return pa.list_(pa.string()) if name == "strings" else pa.type_for_alias(name)


def _types_of(table: Table) -> dict[str, Any]:
    """The Arrow type of each column: that of the file, or the one that all of its cells have, or else text.

    A table without types is read through for it.
    """
    if table.schema is not None:
        return {
            name: _arrow_type("string") if name in table.class_names else table.schema.field(name).type
            for name in table.columns
        }
    found: dict[str, set[type]] = {name: set() for name in table.columns}
    for _, row in table.walk():
        for name, cell in row.items():
            if cell is not None:
                found[name].add(
                    int if type(cell) is int and abs(cell) < 2**63 else type(cell) if type(cell) is not int else str
                )
    return {name: _arrow_type(_type_of(types)) for name, types in found.items()}


def _type_of(types: set[type]) -> str:
    """Arrow's type for cells of these types."""
    if types == {int, float}:
        return "double"
    return _SCALARS.get(next(iter(types)), "string") if len(types) == 1 else "string"
