"""Reading: how the rows of a task are read, beside which columns: one value, kept with the task, so that it can be read again."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InputError, suggestion

_COMMON = ("utf-8", "utf-16", "latin-1", "cp1252", "gb18030", "shift_jis", "euc_kr")  # encodings of text files


@dataclass(frozen=True)
class Reading:
    """What a user says of a table because the table does not say it itself."""

    skip_bad_rows: bool = False  # leave out rows that cannot be used: without text or label, or not of the table's form
    missing_label: tuple[str, ...] = ()  # labels that stand for none, such as "-100"; such rows are left out
    label_separator: str | None = None  # between the classes of one cell; "": none is there; None: found, or asked for
    encoding: str | None = None  # of text files; None: UTF-8, or what a byte order mark says
    header: bool = True  # whether the first line of a CSV or TSV file names its columns
    validation: str | None = None  # a file of validation rows, where they are no part of the source
    positive: str | None = None  # of two classes the one whose precision, recall and F1 are told; None: the second

    def __post_init__(self):
        # Frozen: a value from a recipe, a delta or the command line is made one of the same types here, and nowhere else.
        object.__setattr__(self, "missing_label", _words(self.missing_label))
        if self.label_separator is not None:  # a shell hands over a line break as two letters
            object.__setattr__(self, "label_separator", self.label_separator.replace("\\n", "\n").replace("\\t", "\t"))
        # "" is what undoes the file of a recipe
        object.__setattr__(self, "validation", os.fspath(self.validation or "") or None)
        if self.positive is not None:  # a class may be written as a number
            object.__setattr__(self, "positive", str(self.positive).strip() or None)  # "" undoes that of a recipe
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _checked_encoding(self.encoding))

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values, from which `from_json` makes the same Reading."""
        return asdict(self) | {"missing_label": list(self.missing_label)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reading:
        """The Reading whose fields are among `values`; what an older file does not have is as it was then, by default."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def of_labels(self) -> Reading:
        """Only what concerns labels, which other files of the same task share; how a file is written is its own affair."""
        return Reading(missing_label=self.missing_label, label_separator=self.label_separator, positive=self.positive)

    def changed(self, **given: Any) -> Reading:
        """This Reading with the values that are not None put in."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _words(labels: Any) -> tuple[str, ...]:
    """One label or several, as words."""
    several = labels if isinstance(labels, Sequence) and not isinstance(labels, str) else (labels,)
    return tuple(str(label).strip() for label in several if label is not None)


def _checked_encoding(name: str) -> str:
    """`name`, where Python knows such an encoding of text; raises InputError otherwise."""
    try:
        codecs.lookup(name)
        "\n".encode(name)  # "base64" is a codec too, and no encoding of text
    except (LookupError, ValueError):
        raise InputError(
            f"unknown encoding {name!r}{suggestion(name, _COMMON)} (--encoding); common ones are {', '.join(_COMMON)} (cp1252: "
            "Windows)"
        ) from None
    return "utf-8" if codecs.lookup(name).name == "utf-8-sig" else name  # a mark is dropped in any case


AS_WRITTEN = Reading()
"""Nothing said: a table that says everything itself."""
