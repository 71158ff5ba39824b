"""Labels as written: each one becomes words, and the words of a column are whole numbers, numbers, or just words.

A CSV file knows only strings and JSON has types, but "3" and 3 should mean the same: so types are dropped first, and
what the labels are is read off all of their spellings together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from ..errors import InputError, shortened
from .raw_rows import RawRows
from .task import Kind

Form = Literal["whole numbers", "numbers", "words"]

# At most 18 digits: all such numbers fit int64.
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE
)
"""Neither takes a leading zero ("007" is a code, not a number), nor 19 digits in front of the point, as keys have them."""

QUANTITY = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A number in a regression, where "05" can only be 5."""

DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
"""How most of Europe writes fractions; 1,234 may as well be a whole number, so it is named and not read."""

GROUPS_OF_THREE = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
"""How most of America writes whole numbers."""

FLOAT32_MAX = (2 - 2**-23) * 2.0**127
"""About 3.4e38: labels become float32, and a larger one would become infinity there."""

LIST_AS_TEXT = re.compile(r"\[\s*(?:[\"'].*|[^|;]*)\]", re.DOTALL)
"""What str() or json.dumps() makes of a list; "[a]|[b]" is two classes with brackets in their names."""

USUAL_SEPARATORS = re.compile(r"[|;]")
"""What divides the classes of one cell where nothing is said: marks that hardly occur in names, unlike the comma."""

POSSIBLE_SEPARATORS = ("\n", ",", "#", "/")
"""What may divide them and stands in names as well, in the order of trying."""

MEASURED = re.compile(
    r"[^\w\s]?\s*([A-Z]{3}\s*)?[+-]?\s*[0-9]+([.,'\u2019\u00a0\u202f ][0-9]+)*\s*([^\w\s]|[A-Za-z]{1,3})?"
)
"""A number as people write it: with a currency or a unit (20 kg, 5 %), with separators of thousands, with a decimal comma."""
ONE_PREDICTION = "one prediction for all rows"  # what a head that is solved for begins at


def form_of(words: Iterable[str]) -> Form:
    """What all of these words are."""
    # Labels are few and rows are many, so each spelling is matched once.
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


def one_spelling(word: str) -> str:
    """The word without the spaces around it, and true and false in lower case: spreadsheets write TRUE, Python True."""
    word = word.strip()
    return word.lower() if word.lower() in ("true", "false") else word


def split_at(cell: str, separator: str | None = None) -> list[str]:
    """The words of a cell that `separator` divides, or one of the usual ones; none of them is blank."""
    pieces = cell.split(separator) if separator else USUAL_SEPARATORS.split(cell)
    return [piece.strip() for piece in pieces if piece.strip()]


def words_by_row(raw: RawRows, kind: Kind) -> list[list[str]]:
    """The words of each label: one, or for multi_label those of a list.

    Raises InputError with the row for a label of another shape.
    """
    return [_words(label, raw, i, kind) for i, label in enumerate(raw.labels)]


def finite_numbers(raw: RawRows) -> list[float]:
    """The labels as floats; raises InputError listing the rows that hold something else, or what no float32 can hold."""
    words = [word for (word,) in words_by_row(raw, "regression")]
    # The pattern first: float() would also take nan, inf and 1_000.
    wrong = [i for i, word in enumerate(words) if not (QUANTITY.fullmatch(word) and abs(float(word)) <= FLOAT32_MAX)]
    if wrong:
        commas, groups = (all(form.fullmatch(words[i]) for i in wrong) for form in (DECIMAL_COMMA, GROUPS_OF_THREE))
        hint = "Write 0.5 and not 0,5." if commas else "Correct these rows or take them out."
        if not commas and not groups and all(MEASURED.fullmatch(words[i]) for i in wrong):
            hint = "Write plain numbers, such as 1234.5, without a currency, a unit and separators of thousands."
        if groups:  # 16,400 is a whole number in one half of the world and a fraction in the other
            hint = "Write 16400 for 16,400, or 16.4 where the comma divides off a fraction."
        raise InputError(
            f"{raw.at(wrong)}: the label {in_quotes(words[i] for i in wrong)} is not a finite number (at most 3.4e38), as "
            f"a regression task needs. {hint}"
        )
    return [float(word) for word in words]


def in_quotes(words: Iterable[str], limit: int = 5) -> str:
    """The different words, quoted, cut short and joined by commas, for messages."""
    return shortened([repr(word[:40]) for word in dict.fromkeys(words)], limit)


def plainly(name: str) -> str:
    """A class name for a list of them: as it is, or quoted and cut where it is long or would be taken for several."""
    return name if len(name) <= 40 and name.isprintable() and not set(name) & set(",:;") else repr(name[:40])


def _words(label: Any, raw: RawRows, i: int, kind: Kind) -> list[str]:
    """The words of the label of row `i`."""
    if kind == "single_label" and isinstance(label, list):  # one-hot columns, or lists of one class
        if len(label) != 1:
            raise InputError(
                f"{raw.at([i])}: this row has {len(label)} classes ({in_quotes(map(str, label)) or 'none'}), and a single_label "
                'task has one in each row. Correct these rows, or pass kind="multi_label" (--kind multi_label).'
            )
        return [_item(label[0], raw, i)]
    if kind != "multi_label":
        return [_word(label, raw, i)]
    if isinstance(label, str):
        return [one_spelling(word) for word in split_at(label)]
    if not isinstance(label, list):
        raise InputError(
            f"{raw.at([i])}: the label is {label!r:.40}. A multi_label task needs a list of classes, a text such as "
            "'red|blue', or several columns of 0 and 1 (--label red,blue)."
        )
    return [_item(item, raw, i) for item in label]


def _item(item: Any, raw: RawRows, i: int) -> str:
    """One item of the list in row `i` as a word; raises InputError for an empty one, and for a score."""
    # 1.0 may be a class number from a float column; 0.7 can only be a score.
    if isinstance(item, float | Decimal) and not float(item).is_integer():
        raise InputError(
            f"{raw.at([i])}: the list holds {item}, but a list holds the classes of a row, not scores. Write the names of "
            "the classes that are present, or one column of 0 and 1 per class (--label red,blue)."
        )
    word = _word(item, raw, i)
    if not word:
        raise InputError(
            f"{raw.at([i])}: the list holds an empty item. Take it out; a row of no class has an empty list."
        )
    return word


def _word(value: Any, raw: RawRows, i: int) -> str:
    """One label, or item of a list, as a word; booleans are "true" and "false"."""
    if isinstance(value, str):
        return one_spelling(value)
    # In lower case, as `one_spelling` gives the true and false of a text.
    if isinstance(value, bool | int | float | Decimal):  # Parquet has decimals
        return str(value).lower()
    hint = " Lists of classes make a multi_label task (--kind multi_label)." if isinstance(value, list) else ""
    raise InputError(
        f"{raw.at([i])}: the label is {value!r:.40} ({type(value).__name__}); a label is a word or a number.{hint}"
    )
