"""Labels as written: each one becomes words, and the words of a column are whole numbers, numbers, or just words.

A CSV file knows only strings and JSON has types, but "3" and 3 should mean the same: so types are dropped first, and
what the labels are is read off all of their spellings together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from ..errors import InputError, shortened
from .raw import RawRows
from .task import Kind

Form = Literal["whole numbers", "numbers", "words"]

WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
"""Neither takes a leading zero: "007" is a code, not a number."""

# not the comma, which occurs in class names
CLASS_SEPARATORS = re.compile(r"[|;]")


def form_of(words: Iterable[str]) -> Form:
    """What all of these words are."""
    different = set(words)
    if all(WHOLE.fullmatch(word) for word in different):
        return "whole numbers"
    return "numbers" if all(NUMBER.fullmatch(word) for word in different) else "words"


@lru_cache(maxsize=1024)  # labels are few and rows are many
def as_whole(word: str) -> str:
    """The plain spelling of a whole number ("+1" and "1.0" are "1"), and any other word as it is."""
    if WHOLE.fullmatch(word):
        return str(int(word))
    return str(int(float(word))) if NUMBER.fullmatch(word) and float(word).is_integer() else word


def words_by_row(raw: RawRows, kind: Kind) -> list[list[str]]:
    """The words of each label: one, or for multi_label those of a list or of a text divided by | or ;.

    Raises InputError with the row for a label of another shape.
    """
    return [_words(label, raw, i, kind) for i, label in enumerate(raw.labels)]


def finite_numbers(raw: RawRows) -> list[float]:
    """The labels as floats; raises InputError listing the rows that hold something else, or NaN or infinity."""
    words = [word for (word,) in words_by_row(raw, "regression")]
    wrong = [i for i, word in enumerate(words) if not (NUMBER.fullmatch(word) and math.isfinite(float(word)))]
    if wrong:
        raise InputError(
            f"{raw.at(wrong)}: the label {in_quotes(words[i] for i in wrong)} is not a finite number, as a regression "
            "task needs. Correct these rows or take them out."
        )
    return [float(word) for word in words]


def in_quotes(words: Iterable[str], limit: int = 5) -> str:
    """The different words, quoted, cut short and joined by commas, for messages."""
    return shortened([repr(word[:40]) for word in dict.fromkeys(words)], limit)


def _words(label: Any, raw: RawRows, i: int, kind: Kind) -> list[str]:
    """The words of the label of row `i`."""
    if kind != "multi_label":
        return [_word(label, raw, i)]
    if isinstance(label, str):
        return [word.strip() for word in CLASS_SEPARATORS.split(label) if word.strip()]
    if not isinstance(label, list):
        raise InputError(
            f"{raw.at([i])}: the label is {label!r:.40}. A multi_label task needs a list of classes, a text such as "
            "'red|blue', or several columns of 0 and 1 (--label red,blue)."
        )
    return [item if isinstance(item, str) else _word(item, raw, i) for item in label]


def _word(value: Any, raw: RawRows, i: int) -> str:
    """One label, or item of a list, as a word; spaces around it mean nothing, and booleans are "true" and "false"."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int | float):
        return str(value).lower()
    hint = " Lists of classes make a multi_label task (--kind multi_label)." if isinstance(value, list) else ""
    raise InputError(
        f"{raw.at([i])}: the label is {value!r:.40} ({type(value).__name__}); a label is a word or a number.{hint}"
    )
