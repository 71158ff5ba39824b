"""From what the user named to the usable rows of each split, labels as written.

A name is looked for on this disk first and on the hub last, so that reading a file never touches the network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, counted, first_line
from ..files import check_name
from .columns import Columns, require_columns
from .frames import memory_source
from .hub import hub_source, saved_source
from .label_checks import as_flags, is_flag_column, without_gaps, without_marked
from .label_forms import lists_of_texts, named_positions
from .raw_rows import RawRows, collect, is_missing, lacks_labels, usable
from .reading import AS_WRITTEN, Reading
from .sources import PATH_LIKE, Source, embedded_source, file_source, folder_source, path_not_found
from .table import Table
from .tables import has_column, open_table
from .task import SPLITS, Kind


def find_source(source: Any, reading: Reading = AS_WRITTEN, *, to_train: bool = True) -> Source:
    """What `source` names, or a table in memory; a file or folder that exists goes before a hub data set of the same name.

    A folder must have a training split, unless `to_train` says that it is only to be scored. Where the reading names a file
    of validation rows, that is the validation split.
    """
    found = _named(str(source), reading, to_train) if isinstance(source, str | Path) else memory_source(source)
    if reading.validation is None or not to_train:
        return found
    path = Path(reading.validation).expanduser()
    if not path.is_file():
        raise path_not_found(reading.validation, path)
    table = open_table(path, reading)
    tables = {**found.tables, "validation": table}
    replaced = (
        [f"{path}: takes the place of the validation split of {found.name}"] if "validation" in found.tables else []
    )
    notes = (*found.notes, *table.notes, *replaced)
    return replace(found, tables={split: tables[split] for split in SPLITS if split in tables}, notes=notes)


def _named(source: str, reading: Reading, to_train: bool) -> Source:
    """The Source of that name."""
    if source == "helpdesk":
        return embedded_source()
    if not source.strip():
        raise InputError("no task is named: give a file, a folder, the id of a hub data set, or helpdesk.")
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # "~" and a user who is not there
        raise InputError(f"cannot read {source:.200}: {first_line(error)}") from None
    check_name(path)
    try:
        if path.is_dir() and _is_saved_data_set(path):
            return saved_source(path, to_train=to_train)
        if path.is_dir():
            return folder_source(path, reading, to_train=to_train)
        if path.exists():
            return file_source(path, reading)
    except OSError as error:  # no permission, or a name that no file can have
        raise InputError(f"cannot read {source:.200}: {error.strerror or error}") from None
    if PATH_LIKE.search(source):
        raise path_not_found(source, path)
    return hub_source(source)


def _is_saved_data_set(path: Path) -> bool:
    """Whether `datasets` has saved a DatasetDict or a Dataset in the folder, by the files that it writes."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / f"{name}.json").is_file() for name in ("state", "dataset_info")
    )


def read_splits(
    tables: Mapping[str, Table],
    columns: Columns,
    kind: Kind | None,
    reading: Reading = AS_WRITTEN,
    *,
    classes: Collection[str] = (),
) -> tuple[dict[str, RawRows], list[str]]:
    """The usable rows of each split, and notes on what was left out; a test split may have no labels at all.

    `classes` are the class names known beforehand: none of them is taken for a missing label. A row without a label is a row
    of no class in a multi_label task.
    """
    splits: dict[str, RawRows] = {}
    notes: list[str] = []
    one_column = len(columns.labels) == 1
    has_flags = False
    for split, table in tables.items():
        _require_columns(table, columns, label_optional=split == "test")
        rows = without_marked(collect(table, columns, reading), reading.missing_label)
        train = splits.get("train")
        if one_column and kind != "regression":
            rows = lists_of_texts(rows, classes) if kind == "multi_label" and not reading.label_separator else rows
            rows, note = named_positions(rows, list(classes))
            notes += note
        rows = without_gaps(rows, train, classes)
        # test splits are often published without labels; in the others a missing label is a mistake
        unlabelled = split == "test" and lacks_labels(rows, train, classes, kind)
        if unlabelled:
            rows = replace(rows, labels=[None] * len(rows))
            there = any(has_column(table, name) for name in columns.labels)
            lack = "" if there else f" (no column {columns.label!r})"
            notes.append(f"{table.place}: has no labels{lack}, so its rows cannot be scored")
        elif kind == "multi_label" and one_column and (has_flags or train is None) and is_flag_column(rows, classes):
            has_flags, name = True, next(iter(classes), columns.label)
            rows = as_flags(rows, name)
            notes.append(
                f"{table.place}: column {columns.label!r} holds 0 and 1: {name!r} is the one class of the task"
            )
        elif one_column and _has_lists(rows, train, kind):
            rows, note = _without_tags(rows)
            notes += note
        splits[split], left_out = usable(rows, skip=reading.skip_bad_rows, labelled=not unlabelled)
        notes += left_out
    return splits, notes


def _has_lists(rows: RawRows, train: RawRows | None, kind: Kind | None) -> bool:
    """Whether a row may have any number of classes: the kind says so, or its labels, or those of `train`, are lists."""
    labels = [*rows.labels, *(train.labels if train else ())]
    return kind == "multi_label" or (kind is None and any(isinstance(label, list) for label in labels))


def _without_tags(rows: RawRows) -> tuple[RawRows, list[str]]:
    """The rows with no class where the label is missing, and a note on how many there are."""
    labels = [[] if is_missing(label) else label for label in rows.labels]
    n = sum(map(is_missing, rows.labels))
    note = f"{rows.table.place}: {counted(n, 'row')} without a label {'are rows' if n != 1 else 'is a row'} of no class"
    return replace(rows, labels=labels), [note] if n else []


def _require_columns(table: Table, columns: Columns, label_optional: bool) -> None:
    """Raises InputError unless this split, too, has the columns chosen on the first one."""
    require_columns(table, columns.texts, "the text column (--text)")
    if not label_optional or any(has_column(table, name) for name in columns.labels):
        require_columns(table, columns.labels, "the label column (--label)")
