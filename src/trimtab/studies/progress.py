"""What a person sees while a study runs: a bar over its cells with the time left, and a line per finished cell."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import counted
from ..results.formatting import duration, score
from ..tasks.metrics import named

if TYPE_CHECKING:
    from ..results.cells import Cell
    from .cell_spec import CellSpec


class StudyDisplay:
    """Draws on stderr when `shown`; otherwise does nothing."""

    def __init__(self, shown: bool, methods: Sequence[str], jobs: int = 1):
        """`methods` are those of all cells, one for each; `jobs` cells are computed at the same time."""
        self._console = Console(stderr=True, quiet=not shown, highlight=False)
        self._bar = Progress(
            TextColumn("[bold]{task.completed}/{task.total} cells"), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), TextColumn("{task.description}"),
            # Lines go to a log file as well; a bar, which is drawn over itself, needs a terminal.
            console=self._console, disable=not (shown and sys.stderr.isatty()),
        )  # fmt: skip
        self._row = self._bar.add_task("", total=len(methods), left="")
        self._todo = Counter(methods)  # cells by method
        self._done = 0  # cells
        self._jobs = jobs
        self._started: dict[str, float] = {}  # of the cells that are being computed
        self._seconds: dict[str, list[float]] = {}  # of finished cells by method

    def __enter__(self) -> StudyDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def announce(self, methods: int, tasks: int, seeds: int, there: int) -> None:
        """Says how many fits a study of so many methods, tasks and seeds is, and how many of them are there already."""
        every = methods * tasks * seeds
        counts = f"{counted(methods, 'method')}, {counted(tasks, 'task')}, {counted(seeds, 'seed')}"
        done = f", of which {there} are there already" if there else ""
        self._console.print(f"{counted(every, 'fit')} ({counts}){done}", markup=False, soft_wrap=True)

    def starts(self, spec: CellSpec) -> None:
        """A cell is being computed."""
        key = _named(spec.task.name, spec.text, spec.settings.seed, spec.settings.train_limit)
        self._started[key] = time.perf_counter()
        self._bar.update(self._row, description=key)

    def say(self, line: str) -> None:
        """A line that a person should read."""
        self._console.print(line, markup=False, soft_wrap=True)

    def finished(self, cell: Cell, was_there: bool, positive: str | None = None) -> None:
        """A cell is done, now or in an earlier sitting; `positive` is the class that precision, recall and F1 are of."""
        self._done += 1
        self._todo[cell.method] -= 1
        if not was_there:
            key = _named(cell.task, cell.method, cell.seed, cell.settings.get("train_limit"))
            began = self._started.get(key, time.perf_counter())
            self._seconds.setdefault(cell.method, []).append(time.perf_counter() - began)
            # Before and after, so that a method that learns nothing is seen at once.
            what = f"refused: {cell.refused}" if cell.refused else (
                f"{named(cell.metric, positive)} {score(cell.baseline.get(cell.metric))} -> {score(cell.score)} "
                f"in {duration(cell.seconds)}"
            )  # fmt: skip
            # Not as markup: brackets in a message are brackets.
            left = (
                self._left() if self._done in (1, 2, 5) or self._done % 10 == 0 else ""
            )  # the bar has it all the time
            line = f"{key}: {what}{left and f'; {left}'}"
            self.say(line)
        self._bar.update(self._row, completed=self._done, left=self._left())

    def _left(self) -> str:
        """The time the other cells will take, each being like those of its method so far, or of all where it has none."""
        # Cells that were there already took no time and say nothing of the others.
        every = [seconds for each in self._seconds.values() for seconds in each]
        if not every or not self._todo.total():
            return ""
        seconds = sum(n * mean(self._seconds.get(method, every)) for method, n in self._todo.items())
        return f"about {duration(seconds / self._jobs)} left"


def _named(task: str, method: str, seed: int, limit: int | None) -> str:
    """A cell in words."""
    return f"{task}, {method}, " + ("" if limit is None else f"{limit} rows, ") + f"seed {seed}"
