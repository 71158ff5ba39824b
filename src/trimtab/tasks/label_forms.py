"""Labels in the forms of other libraries, made lists of class names: vectors of 0 and 1, lists written as text."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from .label_parsing import LIST_AS_TEXT
from .raw_rows import FLAGS, RawRows, is_missing


def lists_of_texts(raw: RawRows, classes: Collection[str]) -> RawRows:
    """The rows with true lists where pandas has written lists into cells ("['a', 'b']"); as they are where any cell is none.

    `classes` are the names known beforehand, which may have brackets.
    """
    texts = {i: label.strip() for i, label in enumerate(raw.labels) if isinstance(label, str) and not is_missing(label)}
    read = {
        i: _list_in(text) if LIST_AS_TEXT.fullmatch(text) and text not in classes else None for i, text in texts.items()
    }
    if not read or None in read.values():
        return raw
    return replace(raw, labels=[read.get(i, label) for i, label in enumerate(raw.labels)])


def _list_in(text: str) -> list[Any] | None:
    """The list that a text writes out, of words and numbers alone; None where it is none."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(item, str | int | float) for item in found) else None


def named_positions(raw: RawRows, classes: Sequence[str]) -> tuple[RawRows, list[str]]:
    """The rows with the classes of each vector of 0 and 1, and a note; as they are where the labels are no vectors.

    Vectors are lists of one length, of nothing but 0 and 1: as lists of class numbers every row would have the same ones, or one
    of them twice. The names are those of `classes`, where there is one for each position, or else the positions from 0 on.
    """
    labels = [label for label in raw.labels if not is_missing(label)]
    lengths = {len(label) if isinstance(label, list) else 0 for label in labels}
    if len(lengths) != 1 or (n := lengths.pop()) < 2:
        return raw, []
    if not all(str(item).lower() in FLAGS for label in labels for item in label):
        return raw, []
    names = tuple(classes) if len(classes) == n else tuple(map(str, range(n)))
    if len(classes) not in (0, n) and all(_is_set(label) for label in labels):  # numbers of some of the classes
        return raw, []
    found = [
        [name for name, item in zip(names, label, strict=True) if FLAGS[str(item).lower()]]
        if isinstance(label, list)
        else label
        for label in raw.labels
    ]
    note = (
        f"{raw.table.place}: each label is a list of {n} zeros and ones, taken for a class per position, {names[0]} to "
        f"{names[-1]}; columns of 0 and 1 have names (--label red,blue)"
    )
    return replace(raw, labels=found), [note]


def _is_set(label: Sequence[Any]) -> bool:
    """Whether no item is there twice."""
    return len({str(item).lower() for item in label}) == len(label)
