"""Reading and Origin: how the rows of a task are read, and all that is needed to read it again, each as one value.

Their fields are options of subcommands: commands/options.py makes them of the names, defaults and help texts here.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from ..errors import InputError, suggestion

_COMMON = ("utf-8", "utf-16", "latin-1", "cp1252", "gb18030", "shift_jis", "euc_kr")  # encodings of text files


TOGETHER, APART = "together", "apart"  # what becomes of near twins where rows are held out
HELD_OUT = 0.1  # of the training rows where nothing is said

_FITS = (
    "fit",
    "fisher",
    "compare",
    "curve",
    "recommend",
    "check",
    "forgetting",
)  # subcommands that read rows to train on
_SCORES = (*_FITS, "evaluate")  # that read labels
_READS = (*_SCORES, "predict")


def option_field(
    default: Any, help_text: str = "", verbs: Sequence[str] = (), *, kind: Any = None, convert: Callable | None = None,
    names: str | None = None, metavar: str | None = None,
) -> Any:  # fmt: skip
    """A field of a dataclass that is an option of the subcommands `verbs`.

    `kind` is the type of the option where it is not that of the field, `convert` makes the field's value of it, and `names` are
    what it is called where that is not the field's own name; a bool that has them is a flag that undoes the default.
    """
    found = {"help": help_text, "verbs": tuple(verbs), "kind": kind, "convert": convert, "names": names}
    return field(default=default, metadata=found | {"metavar": metavar})


@dataclass(frozen=True)
class Reading:
    """What a user says of a table because the table does not say it itself."""

    skip_bad_rows: bool = option_field(
        False, "Leave out rows without text or label, or not of the table's form.", _SCORES, names="--skip-bad-rows"
    )
    missing_label: tuple[str, ...] = option_field(  # such rows are left out
        (), "A label that stands for none, such as -100; repeat for more.", _SCORES, kind=list[str], convert=tuple
    )
    label_separator: str | None = option_field(  # None: found, or asked for
        None, "What divides the classes of a cell, such as ','; '': nothing does.", _SCORES
    )
    encoding: str | None = option_field(None, "Of text files; default: UTF-8, or as a byte order mark says.", _READS)
    header: bool = option_field(  # whether the first line of a CSV or TSV file names its columns
        True, "Columns are column_1, column_2, ...", _READS, names="--no-header"
    )
    validation: str | None = option_field(  # a file of such rows, where they are no part of the source
        None, "Validation rows, or the share of rows that are held out.", _FITS, metavar="FILE|SHARE"
    )
    positive: str | None = option_field(  # None: the second
        None, "Of two classes the one whose precision, recall and F1 are told; default: the rarer.", _FITS
    )

    corrections: str | None = option_field(  # a file of labels of training rows
        None, "Corrected labels: what trimtab check --out wrote, with `corrected` filled in.", _FITS, metavar="FILE"
    )
    # Where rows are held out, whether near twins stay on one side; default of reading: they do. What was read before that was a
    # choice says nothing of it, and its rows must not become others.
    twins: str = option_field(
        APART, "together: near twins of held-out rows are held out too (default); apart: drawn one by one.", _FITS
    )

    def __post_init__(self):
        if self.twins not in (TOGETHER, APART):
            raise InputError(
                f"twins={self.twins!r}: {TOGETHER} or {APART}{suggestion(str(self.twins), (TOGETHER, APART))} (--twins)"
            )
        # Frozen: a value from a recipe, a delta or the command line is made one of the same types here, and nowhere else.
        object.__setattr__(self, "missing_label", _words(self.missing_label))
        if self.label_separator is not None:  # a shell hands over a line break as two letters
            object.__setattr__(self, "label_separator", self.label_separator.replace("\\n", "\n").replace("\\t", "\t"))
        # "" is what undoes the file of a recipe
        object.__setattr__(self, "validation", os.fspath(self.validation or "") or None)
        object.__setattr__(self, "corrections", os.fspath(self.corrections or "") or None)
        if self.positive is not None:  # a class may be written as a number
            object.__setattr__(self, "positive", str(self.positive).strip() or None)  # "" undoes that of a recipe
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _checked_encoding(self.encoding))

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values, from which `from_json` makes the same Reading."""
        return asdict(self) | {"missing_label": list(self.missing_label)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The one whose fields are among `values`; what an older file does not have is as it was then, by default."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def of_labels(self) -> Reading:
        """Only what concerns labels, which other files of the same task share; how a file is written is its own affair."""
        return Reading(missing_label=self.missing_label, label_separator=self.label_separator, positive=self.positive)

    def changed(self, **given: Any) -> Self:
        """This one with the values that are not None put in."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Origin(Reading):
    """Where a task comes from and how it is read: all that is needed to read it again, by the names that recipes use."""

    task: str = ""  # what `read` is given: a file, a folder, a hub id or helpdesk; "" for a table in memory
    text: tuple[str, ...] = option_field(  # empty: found by name; one name may stand for two, as "a,b"
        (), "Text column, or two of a pair: a,b.", _SCORES, kind=str
    )
    label: str | None = option_field(None, "Label column, or several 0/1 columns: a,b,c.", _SCORES)
    kind: str | None = option_field(None, "single_label, multi_label or regression.", _FITS)
    metric: str | None = option_field(
        None, "Main metric, by which the best step is chosen.", ("fit", "compare", "curve", "recommend")
    )
    validation_share: float = HELD_OUT  # of the training rows held out where there is no validation split
    split_seed: int = 0  # that they are drawn with, whatever the seed of the run

    @property
    def reading(self) -> Reading:
        """How its rows are read."""
        return Reading.from_json(vars(self))


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
