"""A Task from the embedded example, a file, a folder of splits, or the hub, with every row checked.

The way of a row: splits.py finds the tables and reads the chosen columns (tables.py, columns.py, raw.py), labels.py
decides what the labels mean, holdout.py cuts a validation split where there is none.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from .columns import Columns, choose_columns, choose_text_columns, columns_like
from .doubts import class_notes
from .holdout import hold_out
from .labels import Coding, Declared, coding_like, learn_coding
from .metrics import check_metric
from .raw import RawRows, text_in
from .sources import Source, path_not_found
from .splits import find_source, read_splits
from .tables import Row, Table, open_table, with_all_columns
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


def read(
    source: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    kind: str | None = None,
    metric: str | None = None,
    validation_share: float = 0.1,
    seed: int = 0,
    skip_bad_rows: bool = False,
) -> Task:
    """The task in `source`: "helpdesk", a file, a folder of splits, or the id of a hub data set.

    `text` names one column, or two as "a,b"; `label` one column, or several of 0 and 1.
    Without a validation split, `validation_share` of the training rows is held out, by `seed`.
    Raises InputError, with file and row, for whatever cannot be learned from.
    """
    wanted = _checked_kind(kind)
    validation_share, seed = _checked_share(validation_share), _checked_seed(seed)
    found = find_source(str(source))
    # Chosen on the training table; the others must have the same, but for the label of a test split.
    columns = choose_columns(found.tables["train"], text, label)
    declared = _declared(found, columns, wanted)
    # Every row is read and judged here; its label stays as written until the coding is known.
    raw, notes = read_splits(
        found.tables, columns, wanted or declared.kind, skip=skip_bad_rows, classes=declared.classes or ()
    )
    # By the training rows and what is declared alone: any other label in another split is an error there.
    coding = learn_coding(raw["train"], wanted, declared)
    if not coding.declared:  # names that the source declares are meant
        notes += class_notes(coding.classes)
    splits = {split: _encoded(rows, coding) for split, rows in raw.items()}
    if "validation" not in splits and validation_share:
        splits["train"], splits["validation"], note = hold_out(splits["train"], coding.kind, validation_share, seed)
        notes.append(note)
    return Task(
        name=found.name,
        kind=coding.kind,
        classes=coding.classes,
        text_columns=columns.texts,
        label_column=columns.label,
        metric=_main_metric(metric, found.name, coding),
        splits={split: splits[split] for split in SPLITS if split in splits},
        source=str(source),
        skip_bad_rows=skip_bad_rows,
        validation_share=validation_share,
        split_seed=seed,
        notes=(*found.notes, *notes),
    )


def read_like(
    task: Task,
    source: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    skip_bad_rows: bool = False,
) -> Task:
    """The task with the rows of `source`, labelled by the task's classes in the task's order: to score a trained model.

    Columns are the task's unless named. Nothing is held out, and a single file becomes the test split, which may have no
    labels. Raises InputError as `read` does, and for labels that are none of the task's classes.
    """
    # Nothing is trained on these rows, so a lone table, which is called train, is a test split.
    found = find_source(str(source), to_train=False)
    tables = {"test": found.tables["train"]} if set(found.tables) == {"train"} else found.tables
    columns = _columns_like(task, tables, text, label)
    declared = _declared(found, columns, task.kind)
    # A class called "none" is a class here too, and no missing label.
    known = (*task.classes, *(declared.classes or ()))
    raw, notes = read_splits(tables, columns, task.kind, skip=skip_bad_rows, classes=known)
    splits = {split: _encoded(rows, coding_like(task, rows, declared)) for split, rows in raw.items()}
    return replace(task, splits=splits, source=str(source), notes=(*found.notes, *notes))


def read_rows(
    path: str | Path,
    text: str | Sequence[str] | None = None,
    *,
    preferred: Sequence[str] = (),
    option: str = "--text",
) -> tuple[tuple[str, ...], Iterator[tuple[Row, tuple[str, ...]]]]:
    """The column names of a file, and an iterator over its rows, each with its text or pair of texts.

    Text columns are those named by `text`, or else the `preferred` ones, or else as many of the usual ones; `option` is
    what names them on the command line. The rows are read as they are asked for, whatever the size of the file. A missing
    text is "". Raises InputError at once for a missing column, and on the way for a row that cannot be read.
    """
    if not Path(path).is_file():
        raise path_not_found(str(path), Path(path))
    # All of them, because whoever writes the rows again needs every name before the first row.
    table = with_all_columns(open_table(Path(path)))
    names = choose_text_columns(table, text, preferred=preferred, option=option)
    rows = ((row, tuple(text_in(row, name, table, number, option) for name in names)) for number, row in table)
    return table.columns, rows


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
        raise InputError(f"unknown kind {kind!r} (--kind); known kinds: {', '.join(KINDS)}")
    return kind  # type: ignore[return-value]


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
    """What is known of the labels beforehand: several label columns are the classes of a multi_label task."""
    if len(columns.labels) == 1:
        return found.declared_for(columns.label)
    if kind not in (None, "multi_label"):
        raise InputError(f"several label columns ({columns.label}) make a multi_label task, not {kind} (--kind).")
    return Declared("multi_label", columns.labels)


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
