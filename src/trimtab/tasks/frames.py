"""Tables that are in memory already: of pandas, polars, pyarrow and `datasets`, lists of dicts, and dicts of lists.

None of these libraries is imported here: whoever holds such a table has done so, and whatever speaks Arrow (polars, pyarrow
and others) is read through that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError, first_line
from .hub import splits_source
from .sources import SPLIT_NAMES, Source
from .table import NumberedRow, Row, Table, check_columns, class_names_of, with_class_names

NAME = "table"  # what a task is called that has no file

_KINDS = "a DataFrame, an Arrow table, a Dataset, a list of dicts or a dict of lists"


def memory_source(found: Any) -> Source:
    """The table `found`, whose rows are all for training, or tables by the names of their splits.

    Raises InputError for anything else, and for rows of unequal shape.
    """
    if _is_of(found, "datasets", "Dataset", "DatasetDict"):
        return splits_source(NAME, "the table", found)
    if isinstance(found, Mapping) and found and not any(_is_column(value) for value in found.values()):
        names = {name: split for split, names in SPLIT_NAMES.items() for name in names}
        if unknown := [name for name in found if name not in names]:
            raise InputError(
                f"{unknown[0]!r} is no split: a dict holds columns (lists), or the tables train, validation, test"
            )
        tables = {names[name]: _table(table, f"the table {name}") for name, table in found.items()}
        if "train" not in tables:
            raise InputError(f"there is no table named train among {', '.join(found)}")
        return Source(NAME, {split: tables[split] for split in SPLIT_NAMES if split in tables})
    return Source(NAME, {"train": _table(found, "the table")})


def _table(found: Any, place: str) -> Table:
    """The one table that `found` is; raises InputError where it is none."""
    if _is_empty(found):
        raise InputError(f"{place} is empty: there are no rows to read")
    if _is_of(found, "pandas", "DataFrame"):
        return _of_columns(
            {str(name): found[name] for name in found.columns}, place, [str(name) for name in found.columns]
        )
    if isinstance(found, Mapping):
        return _of_columns(found, place, list(found))
    if hasattr(found, "__arrow_c_stream__"):
        return _of_arrow(found, place)
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        return _of_rows(found, place)
    raise InputError(f"{type(found).__name__} is no table: give {_KINDS}, or the name of a file")


def _of_columns(columns: Mapping[str, Any], place: str, names: Sequence[str]) -> Table:
    """A table from the values of each column, which must be equally many."""
    table = check_columns(Table(place, "row", tuple(names), lambda: iter(())))
    values = {str(name): _plain_list(column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in values.items()}
    if len({*lengths.values()}) > 1:
        listed = ", ".join(f"{name!r} {n}" for name, n in lengths.items())
        raise InputError(f"{place}: the columns are not equally long: {listed}. Give one value per row and column.")

    def walk() -> Iterator[NumberedRow]:
        for number, cells in enumerate(zip(*values.values(), strict=True), start=1):
            yield number, dict(zip(values, cells, strict=True))

    return Table(place, "row", table.columns, walk)


def _of_rows(rows: Sequence[Any], place: str) -> Table:
    """A table from dicts, one a row; its columns are the names of all of them."""
    wrong = next((i for i, row in enumerate(rows, start=1) if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise InputError(
            f"{place}, row {wrong}: {type(rows[wrong - 1]).__name__} is no row. Give a list of dicts, such as "
            '[{"text": "...", "label": "..."}].'
        )
    plain: list[Row] = [{str(name): _plain(value) for name, value in row.items()} for row in rows]
    columns = tuple(dict.fromkeys(name for row in plain for name in row))
    return Table(place, "row", columns, lambda: enumerate(plain, start=1))


def _of_arrow(found: Any, place: str) -> Table:
    """A table from whatever hands out its columns in Arrow's form, such as polars."""
    import pyarrow as pa

    try:
        table = pa.table(found)
    except (pa.ArrowException, TypeError, ValueError) as error:  # a single column speaks Arrow too
        raise InputError(f"{type(found).__name__} is no table ({first_line(error)}): give {_KINDS}") from None
    names = class_names_of(table.schema)

    def walk() -> Iterator[NumberedRow]:
        rows = (row for batch in table.to_batches(max_chunksize=4096) for row in batch.to_pylist())
        yield from enumerate((with_class_names(row, names) for row in rows), start=1)

    columns = tuple(table.schema.names)
    return check_columns(Table(place, "row", columns, walk, class_names=names, schema=table.schema))


def _plain_list(column: Any) -> list[Any]:
    """The values of a column as Python's own: of a list, an array or a Series."""
    values = column.tolist() if hasattr(column, "tolist") else column
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """The value as Python's own: numpy's numbers and arrays, tuples, and the marks of pandas for what is missing."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_empty(found: Any) -> bool:
    """Whether it is a container of Python's own without anything in it."""
    return isinstance(found, Mapping | list | tuple) and len(found) == 0


def _is_column(value: Any) -> bool:
    """Whether it holds one value per row, and no rows of its own."""
    if isinstance(value, list | tuple):
        return not (value and all(isinstance(row, Mapping) for row in value))
    return hasattr(value, "tolist")  # an array, or a Series


def _is_of(found: Any, module: str, *names: str) -> bool:
    """Whether `found` is of one of these classes of a library; where that is not imported it cannot be."""
    library = sys.modules.get(module)
    return library is not None and isinstance(found, tuple(getattr(library, name) for name in names))
