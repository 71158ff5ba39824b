"""The runs that a server has: some by name, and all that lie in a folder, which is the truth about its tasks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ..changes.delta_header import TENSORS
from ..errors import InputError, counted
from .pool import Pool
from .settings import is_task_name

_log = logging.getLogger(__name__)
Signature = tuple[int, ...]  # of a file: what changes when it is written


class WatchedRuns:
    """Keeps the tasks of a pool as the runs in a folder are: added, replaced and removed with them."""

    def __init__(
        self, pool: Pool, named: Mapping[str, Path], folder: Path | None = None, *, every_seconds: float = 1.0,
        count: Callable[[str, str], None] = lambda name, result: None,
    ):  # fmt: skip
        """`named` are runs beside the folder, which are read again only when `read` says so. `count` is told of each task that
        was "added", "replaced", "removed", or "failed"."""
        self._pool, self._named, self._folder, self._every_seconds = pool, dict(named), folder, every_seconds
        self._count = count
        self._seen: dict[
            str, Signature
        ] = {}  # of each run in the folder, as it was read last, whether it could be or not
        self._place: Signature = ()  # device and number of the folder
        self._lock = threading.Lock()  # one change at a time
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Has a thread look at the folder from now on."""
        if self._folder is not None:
            self._end.clear()
            self._thread = threading.Thread(target=self._run, name="runs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(10)

    def scan(self) -> None:
        """Makes the pool's tasks those of the folder; what cannot be read is logged, once, and the rest goes on."""
        with self._lock:
            found = self._look()
            if found is None:
                return
            for name in [name for name in self._seen if name not in found]:
                del self._seen[name]
                self._remove(name)
            for name, signature in found.items():
                if self._seen.get(name) != signature:
                    self._seen[name] = signature
                    try:
                        self._take(name, self._path(name))
                    except InputError as error:
                        self._failed(name, error)

    def read(self, name: str) -> str:
        """Reads the run of that name again, and returns its version.

        Raises KeyError where there is none, and InputError where it cannot be used; a task that was served stays.
        """
        with self._lock:
            if name not in self._named:
                found = self._look() or {}
                if name not in found:
                    raise KeyError(name)
                self._seen[name] = found[name]
            try:
                return self._take(name, self._path(name))
            except InputError:
                self._count(name, "failed")
                raise

    def unload(self, name: str) -> None:
        """Forgets a task until its run changes, or is read by `read`; raises KeyError where there is none."""
        with self._lock:
            if not self._remove(name):
                raise KeyError(name)

    def _run(self) -> None:
        while not self._end.wait(self._every_seconds):
            try:
                self.scan()
            except Exception:  # whatever it is, the folder must be looked at again
                _log.exception("the folder of runs could not be looked at")

    def _path(self, name: str) -> Path:
        if name in self._named:
            return self._named[name]
        assert self._folder is not None
        return self._folder / name

    def _look(self) -> dict[str, Signature] | None:
        """The runs in the folder; None where it cannot be read, or is an empty place where another folder was."""
        if self._folder is None:
            return None
        try:
            place = os.stat(self._folder)
            names = sorted(entry for entry in os.listdir(self._folder) if is_task_name(entry))
        except OSError as error:
            return self._away(str(error.strerror))
        found: dict[str, Signature] = {}
        for name in names:
            if name in self._named:
                continue
            try:
                of = os.stat(self._folder / name / TENSORS)
            except (FileNotFoundError, NotADirectoryError):
                continue  # no run, or none yet
            except OSError:  # it may come back
                found[name] = self._seen.get(name, ())
                continue
            found[name] = (of.st_size, of.st_mtime_ns, of.st_ino, of.st_dev)
        known = (place.st_dev, place.st_ino)
        if not found and self._seen and self._place not in ((), known):
            return self._away("nothing is mounted there")
        self._place = known
        return found

    def _away(self, why: str) -> None:
        """Says, once, that the folder is not there: what it held is served on."""
        if self._place != (-1,):
            served = counted(len(self._seen), "task")
            _log.error("the folder of runs cannot be read (%s): %s of it served as before", why, served)
            self._place = (-1,)

    def _take(self, name: str, path: Path) -> str:
        """Adds or replaces a task."""
        known = name in self._pool
        version = (self._pool.replace if known else self._pool.add)(name, path)
        self._count(name, "replaced" if known else "added")
        _log.info("task %s: %s version %s", name, "replaced by" if known else "added,", version)
        return version

    def _remove(self, name: str) -> bool:
        """Removes a task, where there is one."""
        if name not in self._pool:
            return False
        self._pool.remove(name)
        self._count(name, "removed")
        _log.info("task %s: removed", name)
        return True

    def _failed(self, name: str, error: InputError) -> None:
        self._count(name, "failed")
        served = "its last version is served on" if name in self._pool else "it is not served"
        _log.error("task %s: %s (%s)", name, error, served)
