"""The encoder that a process keeps for all who name it: fits of one after another, in whose pauses nobody holds it."""

from __future__ import annotations

import threading
from pathlib import Path
from weakref import WeakValueDictionary

from .encoder import Encoder, load
from .places import Place, find_place

_LOCK = threading.Lock()  # two threads that load one encoder would keep it twice
_Files = tuple[tuple[str, int, int], ...]  # name, bytes and time of change of each
_ALIVE: WeakValueDictionary[tuple[Place, _Files], Encoder] = WeakValueDictionary()
_FOUND: dict[tuple[str, str | None], Place] = {}  # of the hub, which is asked once in a process
_LAST: list[Encoder] = []  # the one that was asked for last, which stays


def resident(name: str | Path, revision: str | None = None) -> Encoder:
    """The Encoder that `load` finds by that name: the one that this process has, unless its files have changed since.

    The last one that was asked for is kept, others as long as somebody has them. A hub id stands for the same commit as long as
    the process lives. Raises InputError as `load` does.
    """
    with _LOCK:
        place = _place(str(name), revision)
        key = (place, _files(place.folder))
        encoder = _ALIVE.get(key)
        if encoder is None:
            encoder = _ALIVE[key] = load(place)
        _LAST[:] = [encoder]
        return encoder


def _place(name: str, revision: str | None) -> Place:
    """Where it lies."""
    found = _FOUND.get((name, revision))
    if found is None or not found.folder.is_dir():
        found = find_place(name, revision)
        found = found._replace(folder=found.folder.absolute())
        if found.revision is not None:
            _FOUND[name, revision] = found
    return found


def _files(folder: Path) -> _Files:
    """What changes where a file of the encoder is written."""
    return tuple(
        (path.name, found.st_size, found.st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file() and (found := path.stat())
    )
