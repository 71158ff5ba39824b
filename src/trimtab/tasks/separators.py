"""What divides the classes of one cell, as in "rude, urgent": said by the user, or found where it can only be that.

A name may hold a comma or a slash itself. A mark divides where its pieces occur elsewhere too, in other company; where that
is not so, the user is asked, since combinations that are taken for classes would be trained without a complaint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .label_checks import is_gap
from .label_parsing import LIST_AS_TEXT, POSSIBLE_SEPARATORS, USUAL_SEPARATORS, one_spelling, split_at
from .raw_rows import RawRows


def find_separator(raw: RawRows, classes: Collection[str]) -> str | None:
    """The mark that divides the cells of `raw` into classes; None where it is one of the usual ones, or there is none.

    `classes` are the names known beforehand, which are never divided. Raises InputError where a mark may divide, or be a part
    of names.
    """
    cells = [cell for cell in _cells(raw) if cell not in classes]
    if any(map(USUAL_SEPARATORS.search, cells)):
        return None
    open_ones = {mark: _judged(mark, cells, classes) for mark in POSSIBLE_SEPARATORS}
    found = [mark for mark, divides in open_ones.items() if divides]
    if len(found) == 1:
        return found[0]
    if doubtful := [mark for mark, divides in open_ones.items() if divides is not None]:
        mark = doubtful[0]
        i = next(i for i, label in enumerate(raw.labels) if isinstance(label, str) and len(split_at(label, mark)) > 1)
        raise InputError(
            f"{raw.at([i])}: the label {raw.labels[i]!r:.60} may be several classes, or one with {mark!r} in its name. Say what "
            f"divides the classes of a cell with label_separator={mark!r} (--label-separator {mark!r}), or with '' that nothing "
            "does."
        )
    return None


def combination_note(raw: RawRows) -> list[str]:
    """A note where the labels of what is taken for a single_label task look like several classes in one cell."""
    cells = _cells(raw)
    mark = next((mark for mark in ("|", ";", *POSSIBLE_SEPARATORS) if _judged(mark, cells, ())), None)
    if mark is None:
        return []
    cell = next(cell for cell in cells if len(split_at(cell, mark)) > 1)
    return [
        f"{raw.table.place}: labels such as {cell[:60]!r} may be several classes, which are divided by {mark!r}; if so, pass "
        'kind="multi_label" (--kind multi_label)'
    ]


def _cells(raw: RawRows) -> list[str]:
    """The different labels that are texts, but for marks of a gap and lists that are written as texts."""
    words = dict.fromkeys(label.strip() for label in raw.labels if isinstance(label, str) and not is_gap(label))
    return [word for word in words if not LIST_AS_TEXT.fullmatch(word)]


def _judged(mark: str, cells: Sequence[str], classes: Collection[str]) -> bool | None:
    """Whether `mark` divides cells: False where that is open, None where none of them has it between two words."""
    divided = {cell: {one_spelling(piece) for piece in split_at(cell, mark)} for cell in cells}
    several = [pieces for pieces in divided.values() if len(pieces) > 1]
    if not several:
        return None
    if classes:
        return all(pieces <= set(classes) for pieces in several)
    # In how many different cells each piece occurs: a piece that always has the same company may be half of a name.
    counts = Counter(piece for pieces in divided.values() for piece in pieces)
    elsewhere = [[counts[piece] > 1 for piece in pieces] for pieces in several]
    return any(map(all, elsewhere)) and all(map(any, elsewhere))


def divided(raw: RawRows, separator: str | None, classes: Collection[str]) -> RawRows:
    """The rows with a list of classes for each label that is a text; `separator` as in a Reading.

    Raises InputError with the row for a list that is written as text.
    """
    return replace(raw, labels=[_divided(label, raw, i, separator, classes) for i, label in enumerate(raw.labels)])


def _divided(label: Any, raw: RawRows, i: int, separator: str | None, classes: Collection[str]) -> Any:
    """The classes in one label, where it is a text; whatever else it is, as it is."""
    if not isinstance(label, str):
        return label
    if label.strip() in classes or separator == "":
        return [label] if label.strip() else []
    if LIST_AS_TEXT.fullmatch(label.strip()) and not separator:
        raise InputError(
            f"{raw.at([i])}: the label {label!r:.40} looks like a list written as text. Write its classes as a|b, or "
            'save the rows as JSON Lines with true lists (["a", "b"]).'
        )
    return split_at(label, separator)
