"""Labels that are hardly what they seem: gaps written as words, and one class under two spellings.

Among numbers a "n/a" can only be a gap. Among words it may be a class, so there it stays and a note names it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .raw import RawRows, is_missing
from .words import NUMBER, QUANTITY

_LONG = 100  # letters: a longer name of a class may be a text

GAPS = frozenset({"nan", "n/a", "na", "null", "none", "#n/a"})
"""What programs write into an empty cell, in lower case."""


def without_gaps(raw: RawRows, train: RawRows | None, classes: Collection[str]) -> RawRows:
    """The rows with None for each label that is a gap, where all others here and in `train` are numbers.

    A name among `classes` is no gap. Where no other label is left, `classes` tell whether labels are numbers.
    """
    gaps = {i for i, label in enumerate(raw.labels) if is_gap(label) and label.strip() not in classes}
    if not gaps:
        return raw
    # The labels of train count too: a small split may hold little but gaps.
    own = [label for i, label in enumerate(raw.labels) if i not in gaps and not is_missing(label)]
    others = [*own, *(train.labels if train else ())] or list(classes)
    # Among words a gap may be a class, so nothing is changed.
    if not others or not all(_is_number(label) for label in others):
        return raw
    return replace(raw, labels=[None if i in gaps else label for i, label in enumerate(raw.labels)])


def is_gap(label: Any) -> bool:
    """Whether the label is a text that stands for an empty cell in many programs."""
    return isinstance(label, str) and label.strip().lower() in GAPS


def class_notes(classes: Sequence[str]) -> list[str]:
    """Notes on class names that look like missing values, and on names that differ only in how they are written."""
    notes = [
        f"the class {name!r} looks like a missing label; if it is one, empty those cells and leave the rows out with "
        "skip_bad_rows (--skip-bad-rows)"
        for name in classes
        if is_gap(name)
    ]
    # A column of texts taken for the label.
    long = [name for name in classes if len(name) > _LONG]
    if long:
        notes.append(
            f"{len(long)} of {len(classes)} class names have more than {_LONG} letters, such as {long[0][:40]!r}...; is that "
            "the column of the label (--label)?"
        )
    # One key for all spellings of a name: NFKC joins full-width and composed letters, numbers go by their value.
    alike: dict[str, list[str]] = {}
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold().strip()
        alike.setdefault(str(float(plain)) if NUMBER.fullmatch(plain) else plain, []).append(repr(name))
    return notes + [
        f"the classes {' and '.join(names)} differ only in how they are written; if they are one class, write it in one way"
        for names in alike.values()
        if len(names) > 1
    ]


def _is_number(label: Any) -> bool:
    """Whether the label is a number, typed or written as text; booleans are words."""
    if isinstance(label, str):
        return QUANTITY.fullmatch(label.strip()) is not None
    return isinstance(label, int | float | Decimal) and not isinstance(label, bool)
