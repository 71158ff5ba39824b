"""The rows that scikit-learn hands over, as one list of texts, or two of them for pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, first_line
from ..tasks.raw_rows import is_blank, is_missing

_WANTED = "give a list of texts, an array or a column of them, or two columns for pairs"


class Columns(NamedTuple):
    """Texts by column."""

    texts: tuple[list[str], ...]  # one list, or two of equal length
    names: tuple[str, ...] | None  # of the columns, where they have names


def columns_of(rows: Any, name: str = "X") -> Columns:
    """The texts of `rows`: a sequence of texts or of pairs, an array of one or two columns, a Series or a DataFrame.

    Raises InputError for anything else, for no rows, and for a cell that is no text, or an empty one.
    """
    if isinstance(rows, str | bytes):
        # Gone through it gives its letters, each of which would be a row.
        raise InputError(f"{name} is a single {type(rows).__name__}: {_WANTED}; for one text write [text]")
    found = _of_frame(rows) if _is_frame(rows) else Columns(_of_sequence(rows, name), None)
    if not found.texts or not found.texts[0]:
        raise InputError(f"{name} has no rows (0 samples): {_WANTED}")
    if len(found.texts) > 2:
        raise InputError(f"{name} has {len(found.texts)} columns, and a row is a text or a pair of texts: {_WANTED}")
    return Columns(
        tuple(_checked(column, name, k, len(found.texts)) for k, column in enumerate(found.texts)), found.names
    )


def _is_frame(rows: Any) -> bool:
    """Whether it is a DataFrame (pandas, polars), which has named columns."""
    return hasattr(rows, "columns") and hasattr(rows, "__getitem__") and not isinstance(rows, Mapping)


def _of_frame(frame: Any) -> Columns:
    """The columns of a DataFrame, with their names where all are texts."""
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise InputError(
            f"X has two columns called {next(each for each in names if names.count(each) > 1)!r}: name them apart"
        )
    plain = tuple(str(each) for each in names) if all(isinstance(each, str) for each in names) else None
    return Columns(tuple(list(frame[each]) for each in names), plain)


def _of_sequence(rows: Any, name: str) -> tuple[list[Any], ...]:
    """The columns of an array, a Series or a sequence."""
    if isinstance(rows, Mapping | Set) or hasattr(rows, "toarray"):
        raise InputError(f"{name} is a {type(rows).__name__}: {_WANTED}")
    if not isinstance(rows, list | tuple):
        if not hasattr(rows, "__array__") and not isinstance(rows, Sequence):
            raise InputError(f"{name} is a {type(rows).__name__}: {_WANTED}")
        rows = np.asarray(rows)
        if rows.ndim not in (1, 2):
            raise InputError(f"{name} has {rows.ndim} dimensions: {_WANTED}")
        return (rows.tolist(),) if rows.ndim == 1 else tuple(rows.T.tolist())
    if not rows or not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        return (list(rows),)
    try:
        return tuple(list(column) for column in zip(*rows, strict=True))
    except (ValueError, TypeError) as error:  # of unequal length, or an array of one number
        raise InputError(f"{name}: its rows are not alike ({first_line(error)}): {_WANTED}") from None


def _checked(column: list[Any], name: str, number: int, count: int) -> list[str]:
    """The column, in which every cell is a text with something in it."""
    for i, cell in enumerate(column):
        at = f"{name}[{i}]" if count == 1 else f"{name}[{i}, {number}]"
        if not isinstance(cell, str):
            what = "is missing" if _is_missing(cell) else f"is {cell!r:.40} ({type(cell).__name__}), which is no text"
            raise InputError(f"{at} {what}: {_WANTED}")
        if is_blank(cell):
            raise InputError(f"{at} is an empty text, of which nothing can be learned or said: leave the row out")
        try:
            cell.encode()
        except UnicodeEncodeError:  # half a character
            raise InputError(f"{at} is no valid Unicode: {cell!r:.60}") from None
    return [str(cell) for cell in column]  # numpy's texts are of a class of their own


def _is_missing(cell: Any) -> bool:
    """Whether it is one of the marks for nothing."""
    return type(cell).__name__ in ("NAType", "NaTType") or (np.ndim(cell) == 0 and is_missing(cell))
