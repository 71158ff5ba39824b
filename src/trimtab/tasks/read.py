"""A Task from the embedded example, a file, a folder of splits, or the hub, with every row checked.

The way of a row: splits.py finds the tables and reads the chosen columns (tables.py, columns.py, raw_rows.py), labels.py
decides what the labels mean, holdout.py cuts a validation split where there is none.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, suggestion
from .columns import Columns, choose_columns, choose_text_columns, columns_like
from .corrections import corrected
from .holdout import hold_out
from .label_checks import class_notes, exclusive_note, mark_notes
from .label_parsing import in_quotes
from .labels import Coding, Declared, coding_like, decide_kind, learn_coding
from .metrics import check_metric
from .raw_rows import RawRows, is_blank, texts_in
from .reading import AS_WRITTEN, HELD_OUT, TOGETHER, Origin, Reading
from .separators import combination_note, divided, find_separator
from .sources import Source, path_not_found
from .splits import find_source, read_splits
from .table import CellError, Row, Table
from .tables import open_table, with_all_columns
from .task import KINDS, SPLITS, Kind, Rows, Task

# Kind -> the metric a task is judged by where none is asked for.
MAIN_METRICS = {"single_label": "accuracy", "multi_label": "f1_macro", "regression": "pearson"}
GLUE_METRICS = {
    "cola": ("single_label", "matthews"),
    "mrpc": ("single_label", "f1"),
    "qqp": ("single_label", "f1"),
    "stsb": ("regression", "pearson"),
}
"""Of the GLUE tasks that are not judged by accuracy (Wang et al. 2019, arXiv 1804.07461, table 1): kind and metric."""


_RARE = 3  # times as many rows of the other class make a class the one that is looked for


def read(
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    kind: str | None = None,
    metric: str | None = None,
    validation_share: float = HELD_OUT,
    seed: int = 0,
    skip_bad_rows: bool = False,
    missing_label: str | int | Sequence[str] = (),
    label_separator: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    validation: str | Path | None = None,
    positive: str | None = None,
    corrections: str | Path | None = None,
    twins: str = TOGETHER,
) -> Task:
    """The task in `source`: "helpdesk", a file, a folder of splits, the id of a hub data set, or a table in memory.

    `text` names one column, or two as "a,b"; `label` one column, or several of 0 and 1. A table in memory is a DataFrame, an
    Arrow table, a `datasets.Dataset`, a list of dicts, a dict of lists, or a dict of such tables by split. Without a validation
    split, `validation_share` of the training rows is held out, by `seed`, near twins together unless `twins="apart"`;
    `validation` names a file of such rows, `corrections` one of labels. The other options are the fields of a Reading. Raises
    InputError, with file and row, for whatever cannot be learned from.
    """
    wanted = _checked_kind(kind)
    validation_share, seed = _checked_share(validation_share), _checked_seed(seed)
    reading = Reading(
        skip_bad_rows, missing_label, label_separator, encoding, header, validation, positive, corrections, twins  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    if reading.label_separator:
        wanted = _checked_separable(wanted or "multi_label")
    found = find_source(source, reading)
    # Chosen on the training table; the others must have the same, but for the label of a test split.
    columns = choose_columns(found.tables["train"], text, label)
    declared = _declared(found, columns, wanted)
    # Every row is read and judged here; its label stays as written until the coding is known.
    raw, notes = read_splits(found.tables, columns, wanted or declared.kind, reading, classes=declared.classes or ())
    if reading.corrections:
        raw["train"], note = corrected(raw["train"], reading.corrections)
        notes.append(note)
    splits, coding, reading, said = _encoded_splits(raw, wanted, declared, found.declared.kind, reading)
    notes += said
    reading, said = _with_positive(reading, coding, splits["train"])
    notes += said
    if "validation" not in splits and validation_share:
        splits["train"], splits["validation"], note = hold_out(
            splits["train"], coding.kind, validation_share, seed, twins=twins == TOGETHER
        )
        notes.append(note)
    elif "validation" in found.tables and validation_share not in (0, HELD_OUT):
        notes.append(
            f"there is a validation split, so that no share ({validation_share:g}) of the training rows is held out"
        )
    return Task(
        name=found.name,
        kind=coding.kind,
        classes=coding.classes,
        text_columns=columns.texts,
        label_column=columns.label,
        metric=_main_metric(metric, found.name, coding),
        splits={split: splits[split] for split in SPLITS if split in splits},
        source=str(source) if isinstance(source, str | Path) else "",
        reading=reading,
        validation_share=validation_share,
        split_seed=seed,
        notes=(*found.notes, *notes),
    )


def read_again(origin: Origin) -> Task:
    """The task that `origin` says; raises InputError as `read` does."""
    return read(
        origin.task, text=origin.text[0] if len(origin.text) == 1 else origin.text or None, label=origin.label,
        kind=origin.kind, metric=origin.metric, validation_share=origin.validation_share, seed=origin.split_seed,
        **vars(origin.reading),
    )  # fmt: skip


def task_of(given: Any) -> Task:
    """`given`, where it is a Task, or the one that `read` finds in it: a name, or a table in memory."""
    return given if isinstance(given, Task) else read(given)


def tasks_of(given: Any) -> list[Task]:
    """Several Tasks, each of what `task_of` takes; one that is given alone is a list of one."""
    return [task_of(each) for each in (given if isinstance(given, list | tuple) else [given])]


def _encoded_splits(
    raw: dict[str, RawRows], wanted: Kind | None, declared: Declared, said_kind: Kind | None, reading: Reading
) -> tuple[dict[str, Rows], Coding, Reading, list[str]]:
    """The rows of each split with their labels as numbers, how they became that, the Reading, and notes on the labels.

    The Reading has what divides the classes of one cell. `said_kind` is the kind that the source itself declares.
    """
    train, known = raw["train"], declared.classes or ()
    notes = [] if known else mark_notes(train)
    kind = decide_kind(train, wanted, declared)
    if kind == "multi_label":
        notes += exclusive_note(train) if wanted is None and said_kind is None else []
        raw, reading, note = _divided(raw, reading, known)
        notes += note
    elif kind == "single_label" and wanted is None and not known:
        notes += combination_note(train)
    # By the training rows and what is declared alone: any other label in another split is an error there.
    coding = learn_coding(raw["train"], kind, declared)
    if not coding.declared:  # names that the source declares are meant
        notes += class_notes(coding.classes)
    return {split: _encoded(rows, coding) for split, rows in raw.items()}, coding, reading, notes


def _with_positive(reading: Reading, coding: Coding, train: Rows) -> tuple[Reading, list[str]]:
    """The Reading with the positive class, and a note where that is the rarer one of two because nobody has named it.

    Raises InputError for one that is named and is none of two classes.
    """
    is_binary = coding.kind == "single_label" and len(coding.classes) == 2
    if reading.positive is not None:
        if not is_binary or reading.positive not in coding.classes:
            known = in_quotes(coding.classes) or "none: it is a regression"
            guess = suggestion(reading.positive, coding.classes, shown=repr)
            raise InputError(
                f"positive={reading.positive!r}{guess} (--positive) is one of the two classes of a single_label task, and the "
                f"classes of this {coding.kind} task are {known}; an empty one takes that of a recipe away"
            )
        return reading, []
    counts = (
        np.bincount([label for label in train.labels if label is not None] or [0], minlength=2) if is_binary else None
    )
    if counts is None or counts.max() <= _RARE * counts.min() or not counts.min():
        return reading, []
    rarer = coding.classes[int(counts.argmin())]
    note = (
        f"precision, recall and F1 are those of {rarer!r}, the rarer class ({counts.min()} of {counts.sum()} training rows); "
        "positive names another (--positive)"
    )
    return replace(reading, positive=rarer), [note]


def read_like(
    task: Task,
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    **reading: Any,
) -> Task:
    """The task with the rows of `source`, labelled by the task's classes in the task's order: to score a trained model.

    Columns are the task's unless named. Nothing is held out, and a single file becomes the test split, which may have no
    labels. `reading` holds fields of a Reading; how labels are written is the task's, unless said otherwise. Raises InputError
    as `read` does, and for labels that are none of the task's classes.
    """
    how = task.reading.of_labels().changed(**reading)
    if how.label_separator:
        _checked_separable(task.kind)
    # Nothing is trained on these rows, so a lone table, which is called train, is a test split.
    found = find_source(source, how, to_train=False)
    tables = {"test": found.tables["train"]} if set(found.tables) == {"train"} else found.tables
    found = replace(found, tables=tables)
    columns = _columns_like(task, tables, text, label)
    declared = _declared(found, columns, task.kind)
    # A class called "none" is a class here too, and no missing label.
    known = (*task.classes, *(declared.classes or ()))
    raw, notes = read_splits(tables, columns, task.kind, how, classes=tuple(dict.fromkeys(known)))
    if task.kind == "multi_label":
        raw = {split: divided(rows, how.label_separator, known) for split, rows in raw.items()}
    splits = {split: _encoded(rows, coding_like(task, rows, declared)) for split, rows in raw.items()}
    source = str(source) if isinstance(source, str | Path) else ""
    return replace(task, splits=splits, source=source, reading=how, notes=(*found.notes, *notes))


def _divided(
    raw: dict[str, RawRows], reading: Reading, classes: Sequence[str]
) -> tuple[dict[str, RawRows], Reading, list[str]]:
    """The rows with a list of classes for each label, the Reading with what divides them, and a note where that was found."""
    separator, notes = reading.label_separator, []
    if separator is None:
        separator = find_separator(raw["train"], classes)
        if separator is not None:
            notes = [
                f"{raw['train'].table.place}: classes of one cell are divided by {separator!r} (--label-separator)"
            ]
    divided_rows = {split: divided(rows, separator, classes) for split, rows in raw.items()}
    # Noted with the task, so that other files, in which it may be open, are divided likewise.
    return divided_rows, replace(reading, label_separator=separator), notes


class PredictionRows(NamedTuple):
    """The rows of a file that is to be predicted."""

    table: Table  # with the columns of all rows
    n_rows: int
    rows: Iterator[
        tuple[Row, tuple[str, ...], str | None]
    ]  # each with its texts, "" where one is missing, and what is wrong


def read_rows(
    path: str | Path,
    text: str | Sequence[str] | None = None,
    reading: Reading = AS_WRITTEN,
    *,
    preferred: Sequence[str] = (),
    option: str = "--text",
) -> PredictionRows:
    """The rows of a file, each with its text or pair of texts, or with the reason for which it has none.

    Text columns are those named by `text`, or else the `preferred` ones, or else as many of the usual ones; `option` is what
    names them on the command line. The file is read through once before the first row is given, in bounded memory, so that one
    that cannot be read is refused before any work. Raises InputError at once for that, for a missing column, and where no row
    has a text because the column holds something else.
    """
    if not Path(path).is_file():
        raise path_not_found(str(path), Path(path))
    # All columns, because whoever writes the rows again needs every name before the first row.
    table = with_all_columns(open_table(Path(path), reading))
    names = choose_text_columns(table, text, preferred=preferred, option=option)

    def walk() -> Iterator[tuple[Row, tuple[str, ...], str | None]]:
        for number, row in table.walk():
            try:
                texts = texts_in(row, names, table, number, option)
            except CellError as error:
                yield row, ("",) * len(names), error.fault
                continue
            yield row, texts, "empty text" if any(map(is_blank, texts)) else None

    n_rows, n_odd = 0, 0
    for _, _, reason in walk():
        n_rows, n_odd = n_rows + 1, n_odd + (reason not in (None, "empty text"))
    if n_rows and n_odd == n_rows:  # hardly a matter of single rows
        number, row = next(table.walk())
        texts_in(row, names, table, number, option)
    return PredictionRows(table, n_rows, walk())


def _columns_like(
    task: Task, tables: Mapping[str, Table], text: str | Sequence[str] | None, label: str | Sequence[str] | None
) -> Columns:
    """The columns named, or else the task's; raises InputError where they are missing, or not as many texts as the task has."""
    # One table is enough: `read_splits` asks the others for the same columns.
    split, first = next(iter(tables.items()))
    # a label column that the user names must exist; that of the training data may be missing where nothing is labelled
    optional = split == "test" and not label
    choose = columns_like if optional else choose_columns
    columns = choose(first, text or task.text_columns, label or task.label_column)
    if len(columns.texts) != len(task.text_columns):
        raise InputError(
            f"task {task.name!r} takes {len(task.text_columns)} text(s) per row, not {len(columns.texts)}: "
            f"{', '.join(columns.texts)}. Name as many columns (--text)."
        )
    return columns


def _checked_kind(kind: str | None) -> Kind | None:
    """`kind`, where it is one; raises InputError otherwise."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}{suggestion(kind, KINDS)} (--kind); known kinds: {', '.join(KINDS)}")
    return kind  # type: ignore[return-value]


def _checked_separable(kind: Kind) -> Kind:
    """`kind`, where a cell may hold several classes; raises InputError for a kind of one class or none."""
    if kind != "multi_label":
        raise InputError(
            f"label_separator divides the classes of a multi_label task, not of {kind} (--label-separator)"
        )
    return kind


def _checked_share(share: float) -> float:
    """`share` as a float; raises InputError unless it is from 0, which holds nothing out, to below 1: all would be held out."""
    # numpy's numbers are numbers too.
    if not isinstance(share, numbers.Real) or not 0 <= share < 1:
        raise InputError(f"the validation share must be a number, at least 0 and below 1, not {share!r}")
    return float(share)


def _checked_seed(seed: int) -> int:
    """`seed` as an int; raises InputError for what is no whole number."""
    try:
        return operator.index(seed)
    except TypeError:
        raise InputError(f"the seed must be a whole number, not {seed!r}") from None


def _declared(found: Source, columns: Columns, kind: Kind | None) -> Declared:
    """What is known of the labels beforehand: several label columns are classes, of one or any number of which a row is."""
    if len(columns.labels) == 1:
        return found.declared_for(columns.label)
    if kind == "regression":
        raise InputError(f"several label columns ({columns.label}) make a multi_label task, not {kind} (--kind).")
    return Declared(kind or "multi_label", columns.labels)


def _encoded(rows: RawRows, coding: Coding) -> Rows:
    """The rows with their labels as numbers, or as None where the split has no labels."""
    return Rows(rows.texts, rows.labels if rows.unlabelled else coding.encode(rows), rows.numbers, rows.table.unit)


def _main_metric(metric: str | None, name: str, coding: Coding) -> str:
    """The metric asked for, or that of the GLUE task of this name, or that of the kind."""
    if metric is not None:
        return check_metric(metric, coding.kind)
    # the name alone is not enough: a file may be called cola and hold something else;
    # these tasks have two classes, or as a regression none
    kind, usual = GLUE_METRICS.get(name.lower().replace("-", ""), (None, ""))
    return usual if kind == coding.kind and len(coding.classes) in (0, 2) else MAIN_METRICS[coding.kind]
