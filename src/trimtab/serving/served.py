"""What is served, as it was asked for; and how a worker and the process that began it talk. Known without torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from ..encoders.choices import Compute
from ..encoders.places import Place
from .settings import ServerSettings

# What is sent to a worker, after the Served; and by it, each with a text.
END, AT_ONCE = "end", "at once"
LISTENS, UNUSABLE = "listens", "unusable"

End = Callable[[bool], None]  # ends a server; True: without finishing what waits


@dataclass(frozen=True)
class Served:
    """All that a process must know to serve."""

    place: Place  # of the encoder
    named: Mapping[str, Path]  # tasks, each with the folder of its run
    runs: Path | None  # a folder of runs, each a task of its name
    compute: Compute
    most_bytes: int | None  # of values of tasks; None: any number
    settings: ServerSettings


class Link:
    """A worker's end of the connection to the process that began it, without which it ends."""

    def __init__(self, connection: Connection, number: int):
        self.number = number
        self._connection = connection
        self._end: End | None = None
        self._lock = threading.Lock()  # of `_end`

    def served(self) -> Served:
        """What to serve, which is sent first; from then on a thread hears when to end."""
        served = self._connection.recv()
        threading.Thread(target=self._hear, name="link", daemon=True).start()
        return served

    def listens(self, compute: Compute, end: End) -> None:
        """Says that requests are taken, and what "auto" came to; `end` is what is called when it is to end."""
        with self._lock:
            self._end = end
        self._say(LISTENS, compute)

    def is_unusable(self, why: str) -> None:
        """Says that this cannot be served, which others need not try."""
        self._say(UNUSABLE, why)

    def _say(self, what: str, text: str) -> None:
        with suppress(OSError):  # nobody listens, which `_hear` notices
            self._connection.send((what, text))

    def _hear(self) -> None:
        while True:
            try:
                said = self._connection.recv()
            except (EOFError, OSError):  # the other process was killed: nobody else would end this one
                return self._told(False)
            self._told(said == AT_ONCE)

    def _told(self, at_once: bool) -> None:
        with self._lock:
            if self._end is None:
                os._exit(0)  # still about to begin, with nothing to finish
            self._end(at_once)
