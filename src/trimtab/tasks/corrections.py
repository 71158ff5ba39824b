"""Corrected labels: a CSV as `trimtab check --out` writes it, with what a person has put into its column `corrected`."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, counted
from .raw_rows import RawRows

COLUMNS = ("row", "text", "label", "suggested", "corrected", "why")
_NEEDED = ("row", "text", "corrected")


def corrected(train: RawRows, path: str) -> tuple[RawRows, str]:
    """The training rows with the labels of the file `path`, and a note that says how many.

    A row is meant by its number and must have the text that the file has: else the file is of other rows. An empty `corrected`
    leaves the label as it is. Raises InputError for a file that cannot be read, a number that there is not, and another text.
    """
    place = {number: i for i, number in enumerate(train.numbers)}
    labels, n = list(train.labels), 0
    seen: set[int] = set()
    for line, row in _read(path):
        number = row["row"].strip()
        if not number.isdecimal() or int(number) not in place:
            raise InputError(
                f"{path}, line {line}: {train.table.place} has no training row {number!r:.20}: these are corrections of "
                "other rows"
            )
        i = place[int(number)]
        text = "\n".join(column[i] for column in train.texts)
        if _plain(row["text"]) != _plain(text):
            raise InputError(
                f"{path}, line {line}: row {number} of {train.table.place} has another text ({text!r:.60}): these are "
                "corrections of other rows, or rows have moved since; run trimtab check again"
            )
        if i in seen:
            raise InputError(f"{path}, line {line}: row {number} is there twice: keep one of them")
        seen.add(i)
        if label := row["corrected"].strip():
            if isinstance(train.labels[i], list):
                raise InputError(
                    f"{path}: labels in several columns cannot be corrected so: change them in their own file"
                )
            labels[i], n = label, n + 1
    return replace(train, labels=labels), f"{counted(n, 'label')} of the training rows corrected by {path}"


def _read(path: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of the file, with the lines in which they end."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]!r}: give a file as trimtab check --out writes it, with "
                    f"{', '.join(COLUMNS)}"
                )
            rows = []
            for row in reader:
                if any(row.get(name) is None for name in _NEEDED):
                    raise InputError(f"{path}, line {reader.line_num}: fewer cells than columns")
                rows.append((reader.line_num, row))
            return rows
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror} (--corrections)") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8 ({error}) (--corrections)") from error


def _plain(text: str) -> str:
    """Without what a spreadsheet changes: line ends and space around them."""
    return " ".join(text.split())
