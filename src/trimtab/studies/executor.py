"""Executors: who computes the cells that a study wants. This process, one by one, or several processes of this machine."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import torch

from ..changes.contract import Method
from ..changes.method_text import method_text
from ..engine import resolved
from ..errors import InputError, first_line
from ..results.cells import Cells
from ..training.ranks import device
from .cell_spec import CellSpec, Outcome, outcome, refusal
from .worker import Job, begun

TRIES = 2  # of a cell whose process ends in the middle of it


class Watcher(Protocol):
    """Who is told what an executor does."""

    def starts(self, spec: CellSpec) -> None:
        """A cell is being computed."""

    def say(self, line: str) -> None:
        """Something that a person should know."""


class Executor(Protocol):
    """Who computes cells; a context, behind which its processes are gone."""

    count: int  # of cells at the same time

    def run(
        self, specs: Iterable[CellSpec], folder: Path | None, watcher: Watcher, *, waits: bool = False
    ) -> Iterator[tuple[CellSpec, Outcome]]:
        """What comes of each, as they finish, in any order; cells are kept in `folder`, and `specs` are asked for one by one.

        What `outcome` raises is raised here, and ends all.
        """
        ...

    def check(self, methods: Iterable[Method]) -> None:
        """Raises InputError for methods that it cannot compute."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


class InProcess:
    """This process computes one cell after the other."""

    count = 1

    def run(
        self, specs: Iterable[CellSpec], folder: Path | None, watcher: Watcher, *, waits: bool = False
    ) -> Iterator[tuple[CellSpec, Outcome]]:
        cells = None if folder is None else Cells(folder)
        for spec in specs:
            yield spec, outcome(spec, cells, waits=waits, starts=lambda spec=spec: watcher.starts(spec))

    def check(self, methods: Iterable[Method]) -> None:
        """Nothing: what is here can be computed here."""

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None: ...


class Processes:
    """So many processes of this machine, each with its part of the threads; they begin with the first cell and stay for more.

    They are started afresh and import trimtab (and what a method of the user's own is defined in, but never the user's script).
    One that ends in the middle of a cell is replaced, and the cell is tried once more; then it is refused, and the study goes on.
    """

    def __init__(self, count: int):
        """Raises InputError for fewer than one."""
        if count < 1:
            raise InputError(f"jobs={count}: at least 1")
        self.count = count
        self._workers: list[_Worker] = []

    def run(
        self, specs: Iterable[CellSpec], folder: Path | None, watcher: Watcher, *, waits: bool = False
    ) -> Iterator[tuple[CellSpec, Outcome]]:
        left, tries = iter(specs), dict[int, int]()
        # Begun together, since each takes seconds to import; no more of them than there are cells.
        ahead = deque(islice(left, self.count))
        while len(self._workers) < len(ahead):
            self._begin()
        try:
            while True:
                for worker in self._idle():
                    spec = ahead.popleft() if ahead else next(left, None)
                    if spec is None:
                        break
                    watcher.starts(spec)
                    worker.begin(spec, folder, waits=waits)
                busy = {worker.connection: worker for worker in self._workers if worker.spec is not None}
                if not busy:
                    return
                for worker in [busy[each] for each in wait(list(busy))]:  # pyright: ignore[reportArgumentType]
                    spec = worker.spec
                    assert spec is not None
                    try:
                        found = worker.outcome()
                    except EOFError:
                        self._workers.remove(worker)
                        why, tries[id(spec)] = worker.ended(), tries.get(id(spec), 0) + 1
                        self._begin()
                        watcher.say(f"{spec.describe()}: {why}")
                        if tries[id(spec)] < TRIES:
                            ahead.append(spec)
                            continue
                        found = Outcome(refusal(spec, f"{why} {TRIES} times: give fewer jobs, or none"), False)
                    yield spec, found
        finally:  # whoever asks for no more, or raises, wants none of what is not finished
            for worker in [each for each in self._workers if each.spec is not None]:
                self._workers.remove(worker)
                worker.end()

    def check(self, methods: Iterable[Method]) -> None:
        """Raises InputError for methods that another process could not read."""
        for method in methods:
            _sent(method)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _begin(self) -> None:
        """One process more."""
        self._workers.append(_Worker(max(1, torch.get_num_threads() // self.count)))

    def _idle(self) -> list[_Worker]:
        """Those without a cell; at least one where there is any cell left, as a new one takes the place of one that has ended."""
        return [worker for worker in self._workers if worker.spec is None]


class _Worker:
    """A process, and the cell that it is computing."""

    def __init__(self, threads: int):
        self._process, self.connection = begun(threads)
        self.spec: CellSpec | None = None
        self._has_reported = False
        self._known: list[Any] = []  # encoders and tasks that it has been sent, by number

    def begin(self, spec: CellSpec, folder: Path | None, *, waits: bool) -> None:
        """Has it compute the cell."""
        self.spec = spec
        encoder, task = spec.encoder, spec.task
        place = (encoder.name, encoder.revision, encoder.folder)
        compute = resolved("auto", device()) if spec.settings.compute == "auto" else "auto"
        job = Job(
            self._number(encoder, lambda: (place, encoder.sha256)), self._number(task, lambda: task), _sent(spec.method),
            spec.settings, folder, waits, self._number(spec.others, lambda: spec.others), compute,
        )  # fmt: skip
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, as its outcome will say
            self.connection.send(job)

    def outcome(self) -> Outcome:
        """What came of it; raises what it raised, and EOFError where the process has ended."""
        try:
            found = self.connection.recv()
        except ConnectionResetError:
            raise EOFError from None
        self._has_reported, self.spec = True, None
        if isinstance(found, Outcome):
            return found
        raise found

    def ended(self) -> str:
        """How the process ended, in words; raises RuntimeError where it could not even begin."""
        code = self._process.wait()
        self.connection.close()
        if code > 0 and not self._has_reported:
            raise RuntimeError(f"a process of the study ended with exit code {code} before it computed anything")
        how = f"was killed by signal {-code}, as where memory runs out" if code < 0 else f"ended with exit code {code}"
        return f"its process {how}"

    def end(self) -> None:
        """Ends it at once, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _number(self, what: Any, sent: Callable[[], Any]) -> tuple[int, Any]:
        """The number of an object, and, the first time, what is sent of it."""
        for number, known in enumerate(self._known):
            if known is what:
                return number, None
        self._known.append(what)
        return len(self._known) - 1, sent()


def executor_of(jobs: int | Executor) -> Executor:
    """This process for 1, so many processes for more, or what was given; raises InputError for a number below 1."""
    if isinstance(jobs, int):
        return InProcess() if jobs == 1 else Processes(jobs)
    return jobs


def _sent(method: Any) -> bytes:
    """The method as another process reads it; raises InputError where none could."""
    try:
        found = pickle.dumps(method)
    except Exception as error:  # whatever a user's own class may raise
        raise _unsendable(method, first_line(error)) from error
    # Read by its name in a module: a script or notebook is another one there.
    if b"__main__" in found:
        raise _unsendable(method, "it is defined in the script or notebook itself")
    return found


def _unsendable(method: Any, why: str) -> InputError:
    return InputError(
        f"the method {method_text(method)} cannot be sent to other processes ({why}): define it in a module that can be "
        "imported, or let this process compute the cells (without jobs)"
    )
