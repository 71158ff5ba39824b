"""Several processes that serve on one socket: begun, watched, begun again, and ended together. No torch here.

This process binds the socket and hands it on, so that connections wait in one queue: a worker that dies takes with it what it
had accepted, and nothing that waits. (Sockets of each worker's own on one port, SO_REUSEPORT, would lose that too.)
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any, cast

from ..encoders.choices import Compute
from ..errors import InputError
from .served import AT_ONCE, END, LISTENS, Served

_log = logging.getLogger(__name__)
_COMMAND = (sys.executable, "-P", "-m", "trimtab.serving.worker")
_TICK_SECONDS = 0.1
_MOST_FAILED_STARTS = 5  # of a worker, in a row and with no other to serve, until all is given up
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_SOUND_SECONDS = 60.0  # after so long a worker's earlier deaths are forgotten
_SPARE_SECONDS = 8.0  # beyond the time to drain, in which connections are closed


@dataclass
class _Worker:
    """A place for a process, and the one that is in it."""

    number: int  # from 1
    process: subprocess.Popen | None = None
    link: Connection | None = None
    listens_since: float | None = None  # None: it does not take requests yet
    deaths: int = 0  # in a row, soon after each other
    failed_starts: int = 0  # in a row
    due: float = 0.0  # when one may be begun

    @property
    def pause_seconds(self) -> float:
        """How long to wait after so many deaths: after the first not at all."""
        if self.deaths <= 1:
            return 0.0
        return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 2))

    def send(self, message: Any) -> None:
        """Sends it; to one that dies just now, in vain."""
        assert self.link is not None
        with suppress(OSError):
            self.link.send(message)

    def heard(self) -> Iterator[tuple[str, str]]:
        """What it has said since."""
        assert self.link is not None
        try:
            while self.link.poll():
                yield self.link.recv()
        except (EOFError, OSError):
            pass


@dataclass
class Workers:
    """So many processes that serve `served` on `sock`, each with an encoder, a pool and an engine of its own."""

    served: Served
    sock: socket.socket
    count: int
    command: Sequence[str] = _COMMAND
    _told: int = field(default=0, init=False)  # how many times to end
    _passed_on: int = field(default=0, init=False)  # of those
    _until: float = field(default=0.0, init=False)  # when workers that were told to end must have
    _code: int = field(default=0, init=False)
    _were_ready: bool = field(default=False, init=False)  # whether any ever took requests

    def run(self) -> int:
        """Serves until told to end (SIGTERM, SIGINT), and returns the exit code: 0 where every worker has finished what it had.

        A worker that dies is begun again. Raises InputError where the first says that it cannot serve that; returns 1 where
        workers die again and again before they take requests, and none is left.
        """
        self._workers = [_Worker(number) for number in range(1, self.count + 1)]
        with self.sock, self._temporary() as self._folder, self._signals():
            try:
                return self._watch()
            finally:
                for worker in self._workers:
                    if worker.process is not None:
                        worker.process.kill()
                        worker.process.wait()

    def _temporary(self) -> TemporaryDirectory:
        """A folder in which workers count, gone at the end."""
        try:
            return TemporaryDirectory(prefix="trimtab-metrics-")
        except OSError as error:
            raise InputError(f"--workers needs a folder for temporary files ({error}): set TMPDIR") from error

    def _watch(self) -> int:
        while True:
            for worker in self._workers:
                self._look_after(worker)
            if self._told:
                self._end()
                if not any(worker.process for worker in self._workers):
                    return self._code
            elif self._is_hopeless():
                said = "workers die again and again before they take requests: given up; what they said stands above"
                _log.error(said, extra={"fields": {"starts": _MOST_FAILED_STARTS}})
                return 1
            else:
                self._begin()
            time.sleep(_TICK_SECONDS)

    def _begin(self) -> None:
        """Begins what is due. First one alone: what is wrong with all of them is then said once, and fast."""
        for worker in self._workers if self._were_ready else self._workers[:1]:
            if worker.process is None and time.monotonic() >= worker.due:
                self._begin_one(worker)

    def _begin_one(self, worker: _Worker) -> None:
        worker.link, theirs = Pipe()
        # Modules are found where this process finds them.
        path = os.pathsep.join(each or os.getcwd() for each in sys.path)
        numbers = [theirs.fileno(), self.sock.fileno()]
        worker.process = subprocess.Popen(
            [*self.command, *map(str, numbers), str(worker.number)], pass_fds=numbers, stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path, "PROMETHEUS_MULTIPROC_DIR": self._folder},
            process_group=0,  # Ctrl-C reaches this process alone, which ends the others
        )  # fmt: skip
        theirs.close()
        worker.listens_since = None
        _log.info("worker begun", extra={"fields": {"worker": worker.number, "pid": worker.process.pid}})
        worker.send(self.served)

    def _look_after(self, worker: _Worker) -> None:
        """Hears what a worker says, and notices that it has ended."""
        if worker.process is None:
            return
        code = worker.process.poll()  # first, so that its last words are heard
        for what, text in worker.heard():
            if what == LISTENS:
                worker.listens_since, worker.failed_starts, self._were_ready = time.monotonic(), 0, True
                self.served = replace(self.served, compute=cast(Compute, text))  # what "auto" stands for in all of them
            elif not self._were_ready:
                raise InputError(text)
            else:
                _log.error("worker %d cannot serve: %s", worker.number, text)
        if code is not None:
            self._has_ended(worker, code)

    def _has_ended(self, worker: _Worker, code: int) -> None:
        # Imported here: until one dies nobody need wait for it.
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.number, self._folder)  # before another counts under that number
        assert worker.process is not None
        assert worker.link is not None
        fields: dict[str, Any] = {"worker": worker.number, "pid": worker.process.pid, "code": code}
        worker.link.close()
        worker.process = worker.link = None
        now, since = time.monotonic(), worker.listens_since
        if self._told:
            if code != 0 and since is not None:  # with what it had to finish
                self._code = 1
                _log.error("worker died while it ended", extra={"fields": fields})
            return
        if since is None:
            worker.failed_starts += 1
        if code == 0 and since is not None:  # somebody told this one alone to end
            worker.deaths, worker.due = 0, now
            _log.info("worker ended, and is begun again", extra={"fields": fields})
            return
        sound = since is not None and now - since >= _SOUND_SECONDS
        worker.deaths = 1 if sound else worker.deaths + 1
        worker.due = now + worker.pause_seconds
        fields["again_in_seconds"] = worker.pause_seconds
        _log.error("worker died", extra={"fields": fields})

    def _is_hopeless(self) -> bool:
        return any(worker.failed_starts >= _MOST_FAILED_STARTS for worker in self._workers) and not any(
            worker.process is not None and worker.listens_since is not None for worker in self._workers
        )

    def _end(self) -> None:
        """Passes on that workers are to end, and ends those that do not."""
        running = [worker for worker in self._workers if worker.process is not None]
        if not self._passed_on:
            settings = self.served.settings
            self._until = time.monotonic() + settings.drain_delay + settings.drain_seconds + _SPARE_SECONDS
            self.sock.close()  # connections that nobody will accept any more should be refused
        if self._passed_on < self._told:
            for worker in running:
                worker.send(AT_ONCE if self._passed_on or self._told > 1 else END)
            self._passed_on = self._told
        if time.monotonic() > self._until:
            for worker in running:
                assert worker.process is not None
                worker.process.kill()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While inside, signals that tell this process to end are counted."""

        def note(*_: Any) -> None:
            self._told += 1

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
