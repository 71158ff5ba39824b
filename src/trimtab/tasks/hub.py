"""Data sets of the Hugging Face hub, by id, through `datasets`.

Only data files are loaded: `datasets` from version 4 on runs no code of a repository. It is imported when a hub id is
read, and not before, as it is slow to import and no file needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line, shortened
from .sources import SPLIT_NAMES, Source, closest_names
from .table import NumberedRow, Table, with_class_names

PATIENCE_SECONDS = 10.0  # for the hub to answer at all

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+){0,2}")  # one to three names, joined by slashes


def hub_source(source: str) -> Source:
    """The data set `source`: "owner/name", "owner/name/config" or "glue/task".

    Raises InputError when it is no such id, or cannot be fetched.
    """
    if not HUB_ID.fullmatch(source):
        raise InputError(
            f"there is no file or folder {source!r}, and it is not the id of a data set (owner/name or owner/name/config)."
        )
    parts = source.split("/")
    # the hub keeps GLUE under its makers' name, and every task of it as a configuration
    if parts[0] == "glue" and len(parts) == 2:
        return data_set_source(source, "nyu-mll/glue", parts[1])
    return data_set_source(source, "/".join(parts[:2]), parts[2] if len(parts) == 3 else None)


def data_set_source(source: str, path: str, config: str | None) -> Source:
    """The data set at `path` (an id, or a local folder that holds one) as the source named `source`."""
    return splits_source(source.rsplit("/", maxsplit=1)[-1], source, _load(source, path, config))


def saved_source(path: Path, *, to_train: bool) -> Source:
    """What `datasets` has saved in the folder at `path`: a DatasetDict, or a Dataset, whose rows are for training."""
    from datasets import load_from_disk

    try:
        found = load_from_disk(str(path))
    except Exception as error:  # of whatever file in it
        raise InputError(f"{path}: cannot be read as a saved data set ({first_line(error)}). Save it again.") from None
    return splits_source(path.resolve().name, str(path), found, to_train=to_train)


def splits_source(name: str, place: str, splits: Any, *, to_train: bool = True) -> Source:
    """A Dataset, or a DatasetDict by its names of splits, as the source `name`; raises InputError without training rows."""
    if not isinstance(splits, dict):
        splits = {"train": splits}
    # Of each split, the first of its names that the data set has.
    chosen = {split: next((name for name in names if name in splits), None) for split, names in SPLIT_NAMES.items()}
    if chosen["train"] is None and (to_train or not any(chosen.values())):
        raise InputError(f"data set {place} has no split named train; it has {shortened(sorted(splits))}.")
    tables = {split: _table(splits[own], f"{place} {own}".strip()) for split, own in chosen.items() if own}
    ignored = sorted(set(splits) - set(chosen.values()))
    notes = [f"{place or name}: did not read the splits {shortened(ignored)}"] if ignored else []
    notes += [
        f"{place or name}: {own} is taken as the {split} split"
        for split, own in chosen.items()
        if own not in (None, split)
    ]
    return Source(name, tables, notes=tuple(notes))


def _load(source: str, path: str, config: str | None) -> Any:
    """The splits by name; whatever goes wrong becomes one InputError with the first line of its reason.

    Where the hub cannot be reached, what `datasets` keeps of an earlier visit is used.
    """
    out_of_reach = None if Path(path).exists() else _out_of_reach(path)
    try:
        import datasets.config

        with _offline(datasets.config, out_of_reach is not None):
            return datasets.load_dataset(path, config)
    except Exception as error:  # the network, the hub, the id or the files: whichever it is, no rows can be had
        reason = f"the hub cannot be reached ({first_line(out_of_reach)})" if out_of_reach else first_line(error)
        raise InputError(
            f"there is no file or folder {source!r}{closest_names(Path(source))}, and loading it as a hub data set failed: "
            f"{reason}. Check the spelling and the network, or give the path of a local copy."
        ) from error


def _out_of_reach(path: str) -> Exception | None:
    """Why the hub cannot be asked about the data set at `path`; None where it answers, whatever it says."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(path, timeout=PATIENCE_SECONDS, expand=["sha"])
    except (HfHubHTTPError, HFValidationError):  # an answer, or no id; `datasets` says it better
        return None
    except Exception as error:  # of the network, whose classes differ by version
        return error
    return None


@contextmanager
def _offline(config: Any, is_so: bool) -> Iterator[None]:
    """Has `datasets` look at what it keeps and not at the hub, which it would ask six times, for half a minute."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or is_so
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _table(rows: Any, place: str) -> Table:
    """A split as a table; class indices are given as class names, and -1 (unlabelled) as None."""
    named = {name: names for name in rows.features if (names := _class_names(rows.features[name]))}

    def walk() -> Iterator[NumberedRow]:
        for number, row in enumerate(rows, start=1):
            yield number, with_class_names(row, named)

    return Table(place, "row", tuple(rows.column_names), walk, class_names=named)


def _class_names(feature: Any) -> tuple[str, ...]:
    """The class names of a column of class indices, or of lists of them; empty for any other column."""
    inner = getattr(feature, "feature", feature)
    return tuple(name.strip() for name in getattr(inner, "names", None) or ())
