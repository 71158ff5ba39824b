"""Where rows come from: a file, a folder of splits, the embedded task; each becomes one Source.

Tables are opened here, so that a missing or odd file is reported at once, but no row is read yet.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import InputError, shortened, suggestion
from .labels import UNDECLARED, Declared
from .reading import AS_WRITTEN, Reading
from .table import NumberedRow, Table
from .tables import FORMATS, SHARD, format_of, open_parts, open_shards, open_table, parts_in
from .task import KINDS, SPLITS

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "valid", "val", "dev", "eval"),
    "test": ("test", "test_matched"),
}
"""What data sets call the three splits, the preferred name first."""

NO_SPLITS = ("labels.json", "dataset_infos.json", "dataset_info.json")
"""Files that can be read as tables by their ending, and are none."""

PATH_LIKE = re.compile(
    r"^([./~\\]|[A-Za-z]:[/\\])|\.(csv|tsv|jsonl|ndjson|parquet|json|txt|xlsx?|gz|zip)$", re.IGNORECASE
)
"""What can only be meant as a path: an explicit start (./, ../, /, ~, C:\\) or the ending of a data file."""


@dataclass(frozen=True)
class Source:
    """The tables of a task by split, and what is known of its labels before a row is read."""

    name: str  # of the task: a file's or folder's name, or the last part of a hub id
    tables: Mapping[str, Table]  # by split, in the order of SPLITS
    declared: Declared = UNDECLARED  # of the label, whichever column that is
    notes: tuple[str, ...] = ()  # what a person should know of the files, in plain words

    def declared_for(self, label_column: str) -> Declared:
        """What the source says about the labels in this column."""
        # A hub data set names classes column by column, labels.json only those of the label. Those that train declares are the
        # task's; the other splits name theirs in their own rows.
        first = next(iter(self.tables.values()))
        if label_column in first.class_names:
            return Declared(self.declared.kind, self.declared.classes or first.class_names[label_column])
        return self.declared


HELPDESK_CLASSES = ("billing", "bug", "cancellation", "delivery", "login", "refund")  # in index order


def tickets() -> dict[str, list[dict[str, str]]]:
    """The embedded example task: 1,800 synthetic helpdesk tickets, which benchmarks/demo/helpdesk.py has made.

    Its rows by split, each {"text", "label"}; no text occurs twice, in its own split or another.
    """
    splits: dict[str, list[dict[str, str]]] = {}
    written = gzip.decompress(files("trimtab.tasks").joinpath("helpdesk.jsonl.gz").read_bytes())
    for row in map(json.loads, written.splitlines()):
        splits.setdefault(row.pop("split"), []).append(row)
    return splits


def embedded_source() -> Source:
    """The embedded helpdesk task."""

    # A function of its own, so that each table keeps its split; a lambda in the loop would see the last one.
    def open_rows(split: str) -> Callable[[], Iterator[NumberedRow]]:
        return lambda: enumerate(rows[split], start=1)

    rows = tickets()
    tables = {split: Table(f"helpdesk {split}", "row", ("text", "label"), open_rows(split)) for split in SPLITS}
    note = "helpdesk is synthetic: its tickets are generated from templates, and its scores say nothing of real tickets"
    return Source("helpdesk", tables, Declared("single_label", HELPDESK_CLASSES), notes=(note,))


def file_source(path: Path, reading: Reading = AS_WRITTEN) -> Source:
    """One file: all of its rows are for training."""
    table = open_table(path, reading)
    # Both parts of an ending such as .csv.gz are taken off.
    return Source(path.name[: -len(format_of(path) or "")], {"train": table}, notes=table.notes)


def folder_source(path: Path, reading: Reading = AS_WRITTEN, *, to_train: bool = True) -> Source:
    """A folder of split files, with labels.json where there is one; upper and lower case of file names are the same.

    A split may be in several files (train-00000-of-00002.parquet). Raises InputError when there is no training file (any split
    will do where `to_train` is false), or two files for one split.
    """
    files = sorted(file for file in path.iterdir() if file.is_file())
    by_name: dict[str, list[Path]] = {}
    for file in files:
        if format_of(file) and file.name.lower() not in NO_SPLITS:
            by_name.setdefault(_split_of(file), []).append(file)
    tables: dict[str, Table] = {}
    opened: list[Path] = []
    notes: list[str] = []
    # In this order, as reading the later splits takes a look at the labels of train.
    for split, names in SPLIT_NAMES.items():
        name = next((name for name in names if name in by_name), None)
        if name is None:
            continue
        found = by_name[name]
        if len(found) > 1 and not all(SHARD.fullmatch(_stem(file)) for file in found):
            listed = " and ".join(file.name for file in found)
            raise InputError(f"{path} holds {listed}: two files for the split {split!r}. Keep one of them.")
        tables[split] = (
            open_shards(found, reading) if SHARD.fullmatch(_stem(found[0])) else open_table(found[0], reading)
        )
        opened += found
        notes += [f"{path}: {found[0].name} is taken as the {split} split"] if name != split else []
        notes += tables[split].notes
    if not tables:
        tables = _tables_of_parts(path, reading)
        notes += [note for table in tables.values() for note in table.notes]
        opened += parts_in(path)
    data = path / "data"
    if not tables and data.is_dir():  # as the repositories of data sets are laid out
        inner = folder_source(data, reading, to_train=to_train)
        declared = _read_labels_file(path / "labels.json")
        outer = declared if declared != UNDECLARED else inner.declared
        return replace(inner, name=path.resolve().name, tables=_named_by_card(inner.tables, path), declared=outer)
    if "train" not in tables and (to_train or not tables):
        present = shortened(sorted(file.name for file in path.iterdir())) or "nothing"
        wanted = "no training file: expected train" if to_train else f"no split: expected {', '.join(SPLITS)},"
        raise InputError(
            f"{path} has {wanted} with one of {', '.join(FORMATS)}, found {present}. "
            "Rename the file, or give the path of a single file instead of the folder."
        )
    # A validation file that is passed over in silence would be missed only in the scores.
    if missed := [file.name for file in files if file not in opened and _may_be_split(file)]:
        notes.append(
            f"{path}: did not read {shortened(missed)}; splits are {', '.join(SPLITS)} with {', '.join(FORMATS)}"
        )
    declared = _read_labels_file(path / "labels.json")
    return Source(path.resolve().name, _named_by_card(tables, path), declared, notes=tuple(notes))


def _tables_of_parts(path: Path, reading: Reading) -> dict[str, Table]:
    """The table that Spark has written into the folder, which is for training, or those of its folders named like splits."""
    if found := parts_in(path):
        return {"train": open_parts(found, reading)}
    folders = {entry.name.lower().split(".")[0]: entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    named = {
        split: next((folders[name] for name in names if name in folders), None) for split, names in SPLIT_NAMES.items()
    }
    parts = {split: parts_in(folder) for split, folder in named.items() if folder is not None}
    return {split: open_parts(files, reading) for split, files in parts.items() if files}


def _named_by_card(tables: Mapping[str, Table], path: Path) -> dict[str, Table]:
    """The tables with the class names that the card of a data set (README.md in the folder `path`) gives their columns."""
    names = _class_names_of_card(path / "README.md")
    return {split: replace(table, class_names={**names, **table.class_names}) for split, table in tables.items()}


def _class_names_of_card(card: Path) -> dict[str, tuple[str, ...]]:
    """Column -> class names, from the head of a card as `datasets` writes it; nothing of a page that is no such card."""
    if not card.is_file() or "class_label:" not in card.read_text(encoding="utf-8", errors="replace"):
        return {}
    from huggingface_hub.repocard import metadata_load

    found: dict[str, set[tuple[str, ...]]] = {}
    try:
        infos = (metadata_load(card) or {}).get("dataset_info", [])
        # One for each configuration, or one alone.
        for info in infos if isinstance(infos, list) else [infos]:
            for feature in info["features"]:
                kind = feature.get("dtype") or feature.get("list")
                if isinstance(kind, dict) and "class_label" in kind:
                    names = kind["class_label"]["names"]  # index -> name
                    in_order = tuple(str(names[index]).strip() for index in sorted(names, key=int))
                    found.setdefault(feature["name"], set()).add(in_order)
    except (
        Exception
    ):  # of YAML, or of a shape that no version of `datasets` writes: it is somebody's page, and not needed
        return {}
    # Where configurations differ, it is open which of them this is.
    return {column: names.pop() for column, names in found.items() if len(names) == 1}


def path_not_found(source: str, path: Path) -> InputError:
    """The InputError for a path that is no file: it does not exist, or is a folder."""
    if path.is_dir():
        return InputError(f"{source} is a folder, and a file is needed here. Give the path of a file in it.")
    folder = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
    return InputError(f"file not found: {source}{closest_names(path)}{folder}. Check the path.")


def closest_names(path: Path) -> str:
    """The names beside `path`, and the embedded task's, that come closest to it, as `suggestion` gives them."""
    # A folder that does not exist has no entries, and the embedded task is close to a slip such as helpdsk.
    beside = {entry.name: str(path.parent / entry.name) for entry in path.parent.glob("*")} | {"helpdesk": "helpdesk"}
    return suggestion(path.name, beside, n=3, shown=beside.__getitem__)


def _stem(file: Path) -> str:
    """The name of the file without the ending of its format."""
    return file.name[: -len(format_of(file) or "")]


def _split_of(file: Path) -> str:
    """What the file calls its split: its name in lower case, without the ending and without the number of a part."""
    part = SHARD.fullmatch(_stem(file))
    return (part[1] if part else _stem(file)).lower()


def _may_be_split(file: Path) -> bool:
    """Whether the file can be read as a table, or is named like a split, whatever its ending."""
    names = {name for names in SPLIT_NAMES.values() for name in names}
    return file.name.lower() not in NO_SPLITS and (
        format_of(file) is not None or file.name.lower().split(".")[0] in names
    )


def _read_labels_file(path: Path) -> Declared:
    """What labels.json declares: a list of class names, or {"type": kind} with or without "classes"."""
    if not path.is_file():
        return UNDECLARED
    try:
        # With -sig a byte order mark, which some editors write, is dropped.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # not UTF-8 or not JSON
        raise InputError(f"{path} cannot be read as JSON ({error}). Correct it or take it away.") from None
    # Either form must say something: an object without a kind needs class names.
    kind, classes = (content.get("type"), content.get("classes")) if isinstance(content, dict) else (None, content)
    if not (kind in KINDS or (kind is None and classes is not None)) or not _is_class_list(classes):
        raise InputError(
            f'{path} must hold a list of different class names, such as ["no", "yes"], or '
            f'{{"type": "regression"}}; the types are {", ".join(KINDS)}.'
        )
    return Declared(kind, None if classes is None else tuple(name.strip() for name in classes))


def _is_class_list(classes: Any) -> bool:
    """Whether labels.json names no classes, or at least one and none twice."""
    if classes is None:
        return True
    # Compared without the spaces around them, as labels are.
    return (
        isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and len({name.strip() for name in classes}) == len(classes) > 0
    )
