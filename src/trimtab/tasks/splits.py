"""From what the user named to the usable rows of each split, labels as written.

A name is looked for on this disk first and on the hub last, so that reading a file never touches the network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, first_line
from ..files import check_name
from .columns import Columns, require_columns
from .doubts import without_gaps
from .hub import hub_source
from .raw import RawRows, collect, lacks_labels, usable
from .sources import PATH_LIKE, Source, embedded_source, file_source, folder_source, path_not_found
from .tables import Table, has_column
from .task import Kind


def find_source(source: str, *, to_train: bool = True) -> Source:
    """What `source` names; a file or folder that exists goes before a hub data set of the same name.

    A folder must have a training split, unless `to_train` says that it is only to be scored.
    """
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
        if path.is_dir():
            return folder_source(path, to_train=to_train)
        if path.exists():
            return file_source(path)
    except OSError as error:  # no permission, or a name that no file can have
        raise InputError(f"cannot read {source:.200}: {error.strerror or error}") from None
    if PATH_LIKE.search(source):
        raise path_not_found(source, path)
    return hub_source(source)


def read_splits(
    tables: Mapping[str, Table], columns: Columns, kind: Kind | None, *, skip: bool, classes: Collection[str] = ()
) -> tuple[dict[str, RawRows], list[str]]:
    """The usable rows of each split, and notes on what was left out; a test split may have no labels at all.

    `classes` are the class names known beforehand: none of them is taken for a missing label.
    """
    splits: dict[str, RawRows] = {}
    notes: list[str] = []
    for split, table in tables.items():
        _require_columns(table, columns, label_optional=split == "test")
        rows = without_gaps(collect(table, columns), splits.get("train"), classes)
        # test splits are often published without labels; in the others a missing label is a mistake
        unlabelled = split == "test" and lacks_labels(rows, splits.get("train"), classes, kind)
        if unlabelled:
            rows = replace(rows, labels=[None] * len(rows))
            there = any(has_column(table, name) for name in columns.labels)
            lack = "" if there else f" (no column {columns.label!r})"
            notes.append(f"{table.place}: has no labels{lack}, so its rows cannot be scored")
        splits[split], left_out = usable(
            rows, skip=skip, labelled=not unlabelled, blank_label_is_none=kind == "multi_label"
        )
        notes += left_out
    return splits, notes


def _require_columns(table: Table, columns: Columns, label_optional: bool) -> None:
    """Raises InputError unless this split, too, has the columns chosen on the first one."""
    require_columns(table, columns.texts, "the text column (--text)")
    if not label_optional or any(has_column(table, name) for name in columns.labels):
        require_columns(table, columns.labels, "the label column (--label)")
