"""Labels that are hardly what they seem: gaps written as words, and one class under two spellings.

Among numbers a "n/a" can only be a gap. Among words it may be a class, so there it stays and a note names it.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .label_parsing import NUMBER, QUANTITY, WHOLE, as_whole
from .raw_rows import FLAGS, INVISIBLE, RawRows, is_missing

_UNSEEN = re.compile(f"^{INVISIBLE.pattern}|{INVISIBLE.pattern}$")  # at either end

_LONG = 100  # letters: a longer name of a class may be a text

GAPS = frozenset({"nan", "n/a", "na", "null", "none", "#n/a"})
"""What programs write into an empty cell, in lower case."""

MARKS = frozenset({"-1", "-100", "-999", "-9999"})
"""How programs write "no label" where labels are numbers: -100 is what PyTorch's losses leave out, -1 is GLUE's."""


def without_marked(raw: RawRows, marks: Collection[str]) -> RawRows:
    """The rows without those whose label is one of `marks`, which are counted in `left_out`; of lists the marks are taken out.

    Where all rows are so marked they stay, without labels.
    """
    if not marks:
        return raw
    spelled = {as_whole(mark) for mark in marks}
    labels = [_unmarked(label, spelled) for label in raw.labels]
    gone = [i for i, label in enumerate(labels) if label is None and not is_missing(raw.labels[i])]
    raw = replace(raw, labels=labels)
    if not gone or len(gone) == len(raw):
        return raw
    fault = f"the label {' or '.join(map(repr, marks))}, which stands for none"
    kept = raw.take(sorted({*range(len(raw))} - {*gone}))
    return replace(kept, left_out={**raw.left_out, fault: len(gone)})


def _unmarked(label: Any, marks: Collection[str]) -> Any:
    """The label, or None for a mark; a list without the marks, or None where nothing else was in it."""
    if isinstance(label, list):
        kept = [item for item in label if as_whole(str(item).strip()) not in marks]
        return kept if kept or not label else None
    return None if label is not None and as_whole(str(label).strip()) in marks else label


def is_flag_column(raw: RawRows, classes: Collection[str]) -> bool:
    """Whether the labels, of a multi_label task in one column, are 0 and 1: then the column is its only class."""
    words = {str(label).strip().lower() for label in raw.labels if not is_missing(label)}
    return bool(words) and words <= set(FLAGS) and not words & {name.lower() for name in classes} and len(classes) < 2


def as_flags(raw: RawRows, name: str) -> RawRows:
    """The rows with the class `name` for a label of 1, no class for 0, and other labels as they are."""
    flags: Mapping[str, list[str]] = {word: [name] * on for word, on in FLAGS.items()}
    return replace(raw, labels=[flags.get(str(label).strip().lower(), label) for label in raw.labels])


def exclusive_note(raw: RawRows) -> list[str]:
    """A note where every row of what is taken for a multi_label task has exactly one class."""
    if not all(isinstance(label, list) and len(label) == 1 for label in raw.labels):
        return []
    return [
        f"{raw.table.place}: each of the {len(raw)} rows has exactly one class; if classes exclude each other, "
        'kind="single_label" (--kind single_label) learns them better'
    ]


def mark_notes(raw: RawRows) -> list[str]:
    """A note on a number among the labels that is beside the others, as a mark for a missing one is: -100 beside 0 and 1."""
    items = [item for label in raw.labels for item in (label if isinstance(label, list) else [label])]
    words = {as_whole(word) for word in {str(item).strip() for item in items} if not is_missing(word)}
    marks = sorted(words & MARKS, key=int)
    rest = words - MARKS
    # In front of labels that begin with 0 or above: with -2 or 0.5 beside it, or 1 alone, a -1 is one of them.
    beside = bool(rest) and all(NUMBER.fullmatch(word) and float(word) >= 0 for word in rest)
    if not marks or not beside or (all(WHOLE.fullmatch(word) for word in rest) and len(rest) < 2):
        return []
    return [
        f"{raw.table.place}: the label {' and '.join(marks)} is often a mark for no label; if it is one here, leave its rows out "
        f'with missing_label="{marks[0]}" (--missing-label {marks[0]})'
    ]


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
        f"the class {name!r} looks like a missing label; if it is one, leave its rows out with missing_label={name!r} "
        f"(--missing-label {shlex.quote(name)})"
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
        plain = _UNSEEN.sub("", unicodedata.normalize("NFKC", name).casefold())
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
