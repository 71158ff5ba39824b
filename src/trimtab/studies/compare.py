"""Methods x tasks x seeds as independent cells, each one small file, and what they say together."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..changes.methods import Method
from ..changes.notation import method_identity, method_text
from ..encoders.encoder import Encoder
from ..errors import InputError
from ..files import write_json, write_text
from ..tasks.losses import label_tensor
from ..tasks.metrics import METRICS, probabilities
from ..tasks.task import Task
from ..training.fit import fit
from ..training.recipe import Settings, settings_from
from ..training.run import Run
from .progress import StudyDisplay
from .statistics import Difference, difference, holm, over_tasks, usable

_FORMAT = 1
ALPHA = 0.05  # the most false alarms among all comparisons of a study


@dataclass(frozen=True)
class Cell:
    """One method on one task with one seed: what came of it, or why it could not be."""

    task: str
    method: str
    seed: int
    metric: str
    scores: Mapping[str, float] = field(default_factory=dict)  # validation, at the best step
    baseline: Mapping[str, float] = field(default_factory=dict)
    elements: Mapping[str, int] = field(default_factory=dict)  # body and head
    share: float = 0.0  # of the body
    seconds: float = 0.0  # the whole fit
    examples_per_second: float = 0.0
    peak_memory_bytes: int = 0  # of the process during the fit
    delta_bytes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list, repr=False)  # to each validation row
    refused: str | None = None  # why the method cannot be used here

    @property
    def score(self) -> float:
        """The task's main score."""
        return self.scores[self.metric]

    def as_json(self) -> dict[str, Any]:
        """All but the answers."""
        return {name: value for name, value in asdict(self).items() if name != "answers"}


@dataclass(frozen=True)
class Summary:
    """One method on one task, over its seeds."""

    method: str
    mean: float  # of the main score
    spread: float | None  # its standard deviation over seeds; None for one seed
    rank: int  # among the methods of the task, 1 is best
    elements: int  # of the body
    seconds: float
    delta_bytes: int
    difference: Difference | None = None  # from the reference method; None for itself
    p: float | None = None  # of the difference, corrected for all comparisons of the study

    @property
    def verdict(self) -> str:
        """better, worse or not told apart (from the reference); "" for the reference itself."""
        if self.difference is None or self.p is None:
            return ""
        return "not told apart" if self.p >= ALPHA else "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all cells of a study say: read `by_task` and `overall`, or have `report` and `markdown` say it."""

    encoder: str
    tasks: list[Task]
    methods: list[str]
    seeds: list[int]
    reference: str  # the method the others are compared to
    cells: list[Cell]
    by_task: Mapping[str, list[Summary]]  # in the order of the methods; refused ones are left out
    overall: list[Summary]  # means over tasks, of the methods that did all of them; `rank` is by mean score

    @property
    def refused(self) -> dict[str, str]:
        """method -> why, of those that could not be used on some task."""
        return {cell.method: cell.refused for cell in self.cells if cell.refused}

    @property
    def best_first(self) -> list[Summary]:
        """`overall` by rank."""
        return sorted(self.overall, key=lambda summary: summary.rank)

    def front(self, cost: str) -> list[str]:
        """The methods that no other beats in mean score at the same or a lower `cost` (elements, seconds, delta_bytes)."""
        found, best = [], -np.inf
        for summary in sorted(self.overall, key=lambda s: (getattr(s, cost), -s.mean)):
            if summary.mean > best:
                found.append(summary.method)
                best = summary.mean
        return found

    def as_json(self) -> dict[str, Any]:
        """Cells and summaries, for other programs."""
        return {
            "encoder": self.encoder, "reference": self.reference, "seeds": self.seeds,
            "cells": [cell.as_json() for cell in self.cells],
            "by_task": {task: [_summary_json(s) for s in found] for task, found in self.by_task.items()},
            "overall": [_summary_json(s) for s in self.overall],
            "refused": self.refused,
        }  # fmt: skip

    def markdown(self) -> str:
        """The tables as Markdown."""
        from .comparison_page import markdown

        return markdown(self)

    def report(self, to: str | Path) -> Path:
        """Writes the self-contained page to `to`; a path that ends in .md gets the tables as Markdown instead."""
        from .comparison_page import page

        target = Path(to)
        write_text(target, self.markdown() if target.suffix == ".md" else page(self))
        return target


def compare(
    encoder: Encoder, tasks: Sequence[Task], methods: Sequence[Method], seeds: int | Sequence[int] = 3, *,
    out: str | Path | None = None, reference: Method | None = None, progress: bool = False, **settings: object,
) -> Comparison:  # fmt: skip
    """Fits every method on every task with every seed, and compares them to `reference` (by default the first method).

    With `out`, each cell is one JSON file there, written whole, so that a study that was stopped or killed goes on and a finished
    one costs nothing; a cell counts for the very encoder, rows, method, seed and settings it was made with. `settings`
    are the fields of Settings, the same for all methods; rates and epochs are each method's own where they are not given. A
    method that refuses the encoder or a task marks its cells, and the study goes on. Raises InputError for an empty or
    repeated choice of methods, tasks or seeds.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    names = [method_text(method) for method in methods]
    base = settings_from(settings)
    _check(names, [task.name for task in tasks], numbers)
    # Methods are compared as texts: a value of a method and its text on the command line are the same one.
    chosen = names[0] if reference is None else method_text(reference)
    if chosen not in names:
        raise InputError(f"the reference {chosen} is not among the methods: {', '.join(names)}")
    for task in tasks:
        if not usable(task.metric):
            raise InputError(f"methods cannot be compared by {task.metric}: choose another main metric (--metric)")
    folder = None if out is None else Path(out)
    # One seed of everything before the next: a study that is stopped early can be read already.
    todo = [(seed, task, method) for seed in numbers for task in tasks for method in methods]
    cells = []
    with StudyDisplay(progress, len(todo)) as display:
        for seed, task, method in todo:
            cell, was_there = _cell(folder, encoder, task, method, seed, base, settings, display)
            cells.append(cell)
            display.finished(cell, was_there)
    return summarised(encoder.name, list(tasks), names, numbers, chosen, cells)


def finished_cells(
    folder: str | Path,
    encoder: Encoder,
    task: Task,
    methods: Sequence[Method],
    seeds: Sequence[int],
    **settings: object,
) -> list[Cell]:
    """The cells of a study that are in `folder` already; nothing is computed."""
    base, found = settings_from(settings), []
    for seed in seeds:
        for method in methods:
            path, identity = _place(Path(folder), encoder, task, method, replace(base, seed=seed))
            cell = _read(path, identity)
            if cell is not None:
                found.append(cell)
    return found


def summarised(
    encoder: str, tasks: list[Task], methods: list[str], seeds: list[int], reference: str, cells: list[Cell]
) -> Comparison:
    """The Comparison of finished cells."""
    done = {(c.task, c.method, c.seed): c for c in cells if c.refused is None}
    found = {task.name: [m for m in methods if (task.name, m, seeds[0]) in done] for task in tasks}
    differences: dict[tuple[str, str], Difference] = {}
    for task in tasks:
        # Answers to the same rows with the same seeds are paired, which takes most of the noise out of a difference.
        labels = label_tensor(task, task.validation).numpy()
        mine = {m: [np.asarray(done[task.name, m, seed].answers) for seed in seeds] for m in found[task.name]}
        for method in found[task.name]:
            if method != reference and reference in mine:
                differences[task.name, method] = difference(task.metric, labels, mine[method], mine[reference])
    # A mean over tasks is only for methods that did all of them.
    everywhere = [m for m in methods if all(m in found[task.name] for task in tasks)]
    for method in everywhere:
        if len(tasks) > 1 and method != reference and reference in everywhere:
            differences["", method] = over_tasks([differences[task.name, method] for task in tasks])
    # All comparisons at once, those over tasks included: the error rate is that of the whole study.
    corrected = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))

    by_task = {}
    for task in tasks:
        higher = METRICS[task.metric].higher_is_better
        of = {m: [done[task.name, m, seed] for seed in seeds] for m in found[task.name]}
        by_task[task.name] = _ranked([_over_seeds(m, of[m]) for m in of], higher, task.name, differences, corrected)
    overall = [_over_tasks(m, [s for name in by_task for s in by_task[name] if s.method == m]) for m in everywhere]
    key = "" if len(tasks) > 1 else tasks[0].name
    # Mixed directions cannot be averaged in a meaningful way; they are ranked as if higher were better.
    higher = (
        len({METRICS[task.metric].higher_is_better for task in tasks}) > 1 or METRICS[tasks[0].metric].higher_is_better
    )
    return Comparison(
        encoder, tasks, methods, seeds, reference, cells, by_task,
        _ranked(overall, higher, key, differences, corrected),
    )  # fmt: skip


def _cell(
    folder: Path | None, encoder: Encoder, task: Task, method: Method, seed: int, base: Settings,
    settings: Mapping[str, object], display: StudyDisplay,
) -> tuple[Cell, bool]:  # fmt: skip
    """The cell, and whether it was there already."""
    name = method_text(method)
    path, identity = _place(folder or Path(), encoder, task, method, replace(base, seed=seed))
    found = None if folder is None else _read(path, identity)
    if found is not None:
        return found, True
    display.starts(task.name, name, seed)
    try:
        # No run folder: a cell is its scores and answers, and models of hundreds of cells would fill a disk.
        run = fit(encoder, task, method, out=None, **{**settings, "seed": seed})
        cell = _finished(run, task, name, seed)
        # Ctrl-C ends the study; the half-trained cell is not kept.
        if run.stopped == "interrupted":
            raise KeyboardInterrupt
    except InputError as error:
        cell = Cell(task.name, name, seed, task.metric, refused=str(error))
    if folder is not None:
        write_json(path, {"format": _FORMAT, "identity": identity} | asdict(cell))
    return cell, False


def _finished(run: Run, task: Task, method: str, seed: int) -> Cell:
    """The cell of a finished run; its delta is saved once to see how large it is."""
    assert run.logits is not None
    with tempfile.TemporaryDirectory() as folder:
        n_bytes = run.delta.save(folder).stat().st_size
    return Cell(
        task.name, method, seed, task.metric, run.scores, run.baseline, run.details["elements"], run.details["share"],
        run.seconds, run.examples_per_second, run.peak_memory_bytes, n_bytes, run.details["settings"],
        _answers(task, run.logits).tolist(),
    )  # fmt: skip


def _answers(task: Task, logits: Tensor) -> NDArray:
    """Class numbers (N,), classes as 0 and 1 (N, C), or values (N,), from logits (N, C)."""
    likely = probabilities(task.kind, logits).numpy()
    if task.kind == "regression":
        # Five decimals: the file is read by people and by git, and no score sees the sixth.
        return likely[:, 0].round(5).astype(np.float64)
    return likely.argmax(1) if task.kind == "single_label" else (likely >= 0.5).astype(np.int64)


def _place(folder: Path, encoder: Encoder, task: Task, method: Method, settings: Settings) -> tuple[Path, str]:
    """The file of a cell, and the identity that its content must have."""
    identity = _identity(encoder, task, method, settings)
    # For people: what decides is the hash behind it.
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{task.name}-{method_text(method)}").strip("-")[:80]
    return folder / f"{slug}-{settings.seed}-{identity[:10]}.json", identity


def _identity(encoder: Encoder, task: Task, method: Method, settings: Settings) -> str:
    """A hash of all that decides a cell, the method's own rates and epochs included."""
    # Settings that the method's defaults fill are hashed as filled: a new default makes new cells.
    digest, n_rows = hashlib.sha256(), min(len(task.train), settings.train_limit or len(task.train))
    resolved = asdict(settings.for_method(method, n_rows, encoder.config.hidden_size))
    for part in (_FORMAT, encoder.sha256, method_identity(method), task.description(), sorted(resolved.items())):
        digest.update(json.dumps(part, default=str).encode() + b"\0")
    for split in ("train", "validation"):
        rows = task.splits[split]
        digest.update(json.dumps([*rows.texts, rows.labels]).encode() + b"\0")
    return digest.hexdigest()


def _read(path: Path, identity: str) -> Cell | None:
    """The cell in a file; None where there is none, or a damaged one, which is computed again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT or found.pop("identity") != identity:
            return None
        return Cell(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _check(methods: list[str], tasks: list[str], seeds: list[int]) -> None:
    """Raises InputError where one of the lists is empty or names something twice: cells would overwrite each other."""
    for what, chosen in (("method", methods), ("task", tasks), ("seed", list(map(str, seeds)))):
        if not chosen:
            raise InputError(f"a comparison needs at least one {what}")
        repeated = sorted({each for each in chosen if chosen.count(each) > 1})
        if repeated:
            raise InputError(f"the {what} {', '.join(repeated)} is there more than once: name each {what} once")


def _over_seeds(method: str, cells: list[Cell]) -> Summary:
    """Mean and sample standard deviation (over n - 1); rank and difference are filled in by `_ranked`."""
    scores = [cell.score for cell in cells]
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    seconds = float(np.mean([cell.seconds for cell in cells]))
    return Summary(method, float(np.mean(scores)), spread, 0, cells[0].elements["body"], seconds, cells[0].delta_bytes)


def _over_tasks(method: str, summaries: list[Summary]) -> Summary:
    """Means over tasks; the spread is that of the mean over seeds, tasks being independent."""
    n = len(summaries)
    spreads = [s.spread for s in summaries if s.spread is not None]
    spread = float(np.sqrt(np.square(spreads).sum()) / n) if spreads else None
    mean, seconds = (float(np.mean([getattr(s, name) for s in summaries])) for name in ("mean", "seconds"))
    elements, size = (round(np.mean([getattr(s, name) for s in summaries])) for name in ("elements", "delta_bytes"))
    return Summary(method, mean, spread, 0, elements, seconds, size)


def _ranked(
    summaries: list[Summary], higher: bool, task: str, differences: Mapping[tuple[str, str], Difference],
    corrected: Mapping[tuple[str, str], float],
) -> list[Summary]:  # fmt: skip
    """The summaries with their ranks and their differences from the reference."""
    order = sorted((s.mean for s in summaries), reverse=higher)
    return [
        Summary(
            s.method, s.mean, s.spread, 1 + order.index(s.mean), s.elements, s.seconds, s.delta_bytes,
            differences.get((task, s.method)), corrected.get((task, s.method)),
        )
        for s in summaries
    ]  # fmt: skip


def _summary_json(summary: Summary) -> dict[str, Any]:
    """The summary with the bounds of its difference, which only the object can compute."""
    found = {
        name: getattr(summary, name)
        for name in ("method", "mean", "spread", "rank", "elements", "seconds", "delta_bytes")
    }
    if summary.difference is not None:
        low, high = summary.difference.interval()
        found |= {
            "difference": summary.difference.mean,
            "interval": [low, high],
            "p": summary.p,
            "verdict": summary.verdict,
        }
    return found
