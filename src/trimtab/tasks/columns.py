"""Which columns of a table hold the texts and the label.

A column that is named must exist; without names the usual ones are looked for. Every refusal lists what the table has,
since the reason is nearly always a typing error or a file without a header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, shortened, suggestion
from .table import Table
from .tables import has_column

TEXT_COLUMNS = (
    ("text",),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("sentence",),
)
"""Looked for in this order when no text column is named: our own names, then those of the GLUE data sets."""

LABEL_COLUMNS = ("label", "labels")
"""Looked for in this order; hub data sets with several classes per row often use the plural."""


@dataclass(frozen=True)
class Columns:
    """The names of one or two text columns, and of the label column or of several columns of 0 and 1."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]  # several are the classes of a multi_label task, by name

    @property
    def label(self) -> str:
        """The label columns as one string, as the user may write them."""
        return ",".join(self.labels)


def choose_columns(table: Table, text: str | Sequence[str] | None, label: str | Sequence[str] | None) -> Columns:
    """The columns asked for, or the usual ones; raises InputError when the table has no such column, or for one as both."""
    texts, labels = choose_text_columns(table, text), _choose_label_columns(table, label)
    # One column as both would be learned perfectly, and mean nothing.
    if both := [name for name in texts if name in labels]:
        raise InputError(
            f"{table.place}: column {both[0]!r} is named as text and as label. Name another text column (--text) or "
            "another label column (--label)."
        )
    return Columns(texts, labels)


def columns_like(table: Table, text: str | Sequence[str], label: str | Sequence[str]) -> Columns:
    """What `choose_columns` gives, of a table that may lack labels: without any of `label` or a usual one, none is missed."""
    labels = _split_names(table, label)
    # Where one of several label columns is there, the lack of the others is an error.
    if any(has_column(table, name) for name in {*labels, *LABEL_COLUMNS}):
        return choose_columns(table, text, label)
    return Columns(choose_text_columns(table, text), labels)


def choose_text_columns(
    table: Table, text: str | Sequence[str] | None, *, preferred: Sequence[str] = (), option: str = "--text"
) -> tuple[str, ...]:
    """The one or two text columns asked for; without any the `preferred` ones, or else as many of the usual ones.

    Raises InputError when the table lacks them; `option` is what names text columns on the command line.
    """
    if text is None:
        # Who prefers one text has no use for a pair, nor the other way round.
        usual = [names for names in TEXT_COLUMNS if not preferred or len(names) == len(preferred)]
        wanted = [tuple(preferred), *usual] if preferred else usual
        found = next((names for names in wanted if set(names) <= set(table.columns)), None)
        if found is None:
            # The choice that goes before the others is the one to be missed.
            missed = next(name for name in wanted[0] if name not in table.columns)
            raise missing_column(table, missed, f"the text column ({option}), or two of them for pairs ({option} a,b)")
        _refuse_repeated(table, found)
        return found
    names = _split_names(table, text)
    if len(names) not in (1, 2):
        raise InputError(f"a text is one column or a pair of two, but {len(names)} were named: {', '.join(names)}")
    require_columns(table, names, f"the text column ({option})")
    return names


def _choose_label_columns(table: Table, label: str | Sequence[str] | None) -> tuple[str, ...]:
    """The label columns asked for, or the usual one; raises InputError when the table lacks one."""
    if label is None:
        # where neither exists, the first is the one to be missed
        names = next(((name,) for name in LABEL_COLUMNS if name in table.columns), LABEL_COLUMNS[:1])
    else:
        names = _split_names(table, label)
    require_columns(table, names, "the label column (--label)")
    return names


def _split_names(table: Table, names: str | Sequence[str]) -> tuple[str, ...]:
    """Column names from "a,b" or a sequence of them; a name that is itself a column may hold commas.

    Raises InputError for no names, or one that is given twice.
    """
    if isinstance(names, str):
        names = _split(table, names)
    # A pair of one column would be a text beside itself.
    if not names or len(set(names)) < len(names):
        raise InputError(f"column names must be given once each, not {', '.join(names) or 'none'}")
    return tuple(names)


def _split(table: Table, text: str) -> tuple[str, ...]:
    """The names in "a,b": as long as columns of such names go, and what is no column piece by piece."""
    if text in table.columns:
        return (text,)
    pieces, names = text.split(","), []
    while pieces:
        joined = [",".join(pieces[:end]).strip() for end in range(len(pieces), 0, -1)]
        name = next((name for name in joined if name in table.columns), joined[-1])
        names.append(name)
        pieces = pieces[len(joined) - joined.index(name) :]
    return tuple(names)


def require_columns(table: Table, names: Sequence[str], wanted: str) -> None:
    """Raises InputError for the first of `names` that is no column of the table, or the name of several."""
    for name in names:
        if not has_column(table, name):
            raise missing_column(table, name, wanted)
    _refuse_repeated(table, names)


def _refuse_repeated(table: Table, names: Sequence[str]) -> None:
    """Raises InputError for a column that is wanted and whose name several have; what nobody asks for does no harm."""
    for name in names:
        if name in table.repeated:
            raise InputError(f"{table.place}: several columns are named {name!r}. Give each column its own name.")


def missing_column(table: Table, name: str, wanted: str) -> InputError:
    """The InputError for a column the table lacks: what it has, the closest name, and how to choose."""
    guess = suggestion(name, table.columns, shown=repr)
    has = shortened([repr(column[:40]) for column in table.columns], limit=20)
    header = (
        " (from its first line, which must name the columns; --no-header if it does not)" if table.has_header else ""
    )
    return InputError(f"{table.place} has no column {name!r}{guess}; it has {has}{header}. Name {wanted}.")
