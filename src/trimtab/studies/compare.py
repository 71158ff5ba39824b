"""Methods x tasks x seeds as independent cells, each one small file; results/comparison.py says what they come to together."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..changes.contract import Method
from ..changes.method_text import method_identity, method_of, method_text, methods_of
from ..encoders.encoder import Encoder, encoder_of
from ..engine import resolved
from ..errors import InputError, suggestion
from ..files import write_json
from ..pages.comparison_page import markdown, write_page
from ..results.comparison import Cell, Comparison, summarised
from ..results.recipe import Settings, settings_from
from ..results.statistics import usable
from ..tasks.metrics import given_answers
from ..tasks.read import tasks_of
from ..tasks.task import Task
from ..training.fit import fit
from ..training.ranks import device, started
from ..training.run import Run
from .progress import StudyDisplay

_OF_TOKENIZER = ("vocabulary_sha256", "tokens", "cut")  # of `Encoder.behaviour`
_FORMAT = 2  # of a cell's file; cells of another one are computed again


class Study(Comparison):
    """A Comparison that writes its own page: what `compare` returns."""

    def markdown(self) -> str:
        """The tables as Markdown."""
        return markdown(self)

    def report(self, to: str | Path) -> Path:
        """Writes the self-contained page to `to`; a path that ends in .md gets the tables as Markdown instead."""
        return write_page(self, to)


def compare(
    encoder: Encoder | str | Path, tasks: Any, methods: Sequence[Method | str] | Method | str,
    seeds: int | Sequence[int] = 3,
    *, out: str | Path | None = None, reference: Method | str | None = None, progress: bool = False, **settings: object,
) -> Study:  # fmt: skip
    """Fits every method on every task with every seed, and compares them to `reference` (by default the first method).

    Encoder, tasks and methods may be given by name or text, and a lone task or method without a list: `compare("minilm",
    "reviews.csv", ["full", "layer_norms"])`.

    With `out`, each cell is one JSON file there, written whole, so that a study that was stopped or killed goes on and a finished
    one costs nothing; a cell counts for the very encoder, rows, method, seed and settings it was made with. `settings`
    are the fields of Settings, the same for all methods; rates and epochs are each method's own where they are not given. A
    method that refuses the encoder or a task marks its cells, which are tried again by the next study, and the study goes
    on. Raises InputError for an empty or repeated choice of methods, tasks or seeds, and for methods without a lasting
    name where there is `out`.
    """
    # What is wrong with the study as a whole is refused before the first fit.
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    methods = methods_of(methods)
    reference = None if reference is None else method_of(reference)
    names = [method_text(method) for method in methods]
    base = _settings(settings)
    tasks = tasks_of(tasks)
    _check(names, [task.name for task in tasks], numbers)
    if started() > 1:  # each rank would decide for itself which cells are there, and wait for others that are elsewhere
        raise InputError(
            "a study runs its cells one by one in one process: start it without torchrun (several processes that are given "
            "different methods or tasks can share one folder of cells)"
        )
    # Methods are compared as texts: a value of a method and its text on the command line are the same one.
    chosen = names[0] if reference is None else method_text(reference)
    if chosen not in names:
        raise InputError(
            f"the reference {chosen} is not among the methods{suggestion(chosen, names)}: {', '.join(names)}"
        )
    for task in tasks:
        if not usable(task.metric):
            raise InputError(f"methods cannot be compared by {task.metric}: choose another main metric (--metric)")
    encoder = encoder_of(encoder)
    folder = None if out is None else Path(out)
    # Without a folder nothing outlives this process, so any name will do.
    if folder is not None:
        _check_identities(methods)
    # One seed of everything before the next: a study that is stopped early can be read already.
    todo = [(seed, task, method) for seed in numbers for task in tasks for method in methods]
    cells: dict[int, Cell] = {}
    with StudyDisplay(progress, [method_text(method) for _, _, method in todo]) as display:
        there = 0 if folder is None else sum(
            _read(*_place(folder, encoder, task, method, replace(base, seed=seed))) is not None
            for seed, task, method in todo
        )  # fmt: skip
        display.announce(len(methods), len(tasks), len(numbers), there)
        # What another process is computing is left to it, and waited for when all else is done.
        for waits in (False, True):
            for number, (seed, task, method) in enumerate(todo):
                if number in cells:
                    continue
                found = _cell(folder, encoder, task, method, replace(base, seed=seed), display, waits=waits)
                if found is not None:
                    cells[number] = found[0]
                    display.finished(*found, task.positive)
    found = summarised(encoder.name, list(tasks), names, numbers, chosen, [cells[n] for n in range(len(todo))])
    return Study(**vars(found))


def finished_cells(
    folder: str | Path,
    encoder: Encoder,
    task: Task,
    methods: Sequence[Method],
    seeds: Sequence[int],
    **settings: object,
) -> list[Cell]:
    """The cells of a study that are in `folder` already, refused ones never being there; nothing is computed.

    `settings` must be those of the study. Raises InputError for methods without a lasting name.
    """
    _check_identities(methods)
    base, found = _settings(settings), []
    for seed in seeds:
        for method in methods:
            path, identity = _place(Path(folder), encoder, task, method, replace(base, seed=seed))
            cell = _read(path, identity)
            if cell is not None:
                found.append(cell)
    return found


def _settings(given: dict[str, object]) -> Settings:
    """The Settings of all cells; raises InputError for a seed, of which each cell has its own."""
    if "seed" in given:
        raise InputError(f"a study has several seeds: seeds=[{given['seed']}], and not seed={given['seed']}")
    return settings_from(given)


def _cell(
    folder: Path | None, encoder: Encoder, task: Task, method: Method, settings: Settings, display: StudyDisplay,
    *, waits: bool,
) -> tuple[Cell, bool] | None:  # fmt: skip
    """The cell, and whether it was there already; None where another process is computing it, unless it `waits` for that."""
    # Without a folder no cell is looked for, and its identity, a hash of all texts, is not formed.
    if folder is None:
        return _fitted(encoder, task, method, settings, display), False
    path, identity = _place(folder, encoder, task, method, settings)
    found = _read(path, identity)
    if found is not None:
        return found, True
    folder.mkdir(parents=True, exist_ok=True)
    # The system lets go of it when its process ends, in whatever way.
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=-1 if waits else 0)
    except Timeout:
        return None
    try:
        found = _read(path, identity)  # while this process waited
        if found is not None:
            return found, True
        cell = _fitted(encoder, task, method, settings, display)
        # A refused one is not written: what stood in the way may be gone next time (peft is installed, a file is there).
        if not cell.refused:
            write_json(path, {"format": _FORMAT, "identity": identity} | asdict(cell))
        return cell, False
    finally:
        path.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def _fitted(encoder: Encoder, task: Task, method: Method, settings: Settings, display: StudyDisplay) -> Cell:
    """The cell of a new fit; a refused one where the method refuses the encoder or the task."""
    name, seed = method_text(method), settings.seed
    display.starts(task.name, name, seed)
    try:
        _warm_up(encoder, task)
        # No run folder: a cell is its scores and answers, and models of hundreds of cells would fill a disk.
        run = fit(encoder, task, method, out=None, **asdict(settings))
        cell = _finished(run, task, name, seed)
        # Ctrl-C ends the study; the half-trained cell is not kept.
        if run.stopped == "interrupted":
            raise KeyboardInterrupt
    except InputError as error:
        return Cell(task.name, name, seed, task.metric, refused=str(error))
    return cell


_WARM: set[str] = set()  # hashes of the encoders that this process has loaded once


def _warm_up(encoder: Encoder, task: Task) -> None:
    """Loads what the first fit of a process loads, and measures the arithmetic, which are no part of any cell's seconds."""
    if encoder.sha256 not in _WARM:
        encoder.with_head(task)
        resolved("auto", device())
        _WARM.add(encoder.sha256)


def _finished(run: Run, task: Task, method: str, seed: int) -> Cell:
    """The cell of a finished run; its delta is saved once to see how large it is."""
    assert run.logits is not None  # every fit validates
    answers = given_answers(Task.from_description(run.delta.task), run.logits)  # at the run's own threshold
    with tempfile.TemporaryDirectory() as folder:
        n_bytes = run.delta.save(folder).stat().st_size
    return Cell(
        task.name, method, seed, task.metric, run.scores, run.baseline, run.details["elements"], run.details["share"],
        run.seconds + run.details["cached_seconds"], run.examples_per_second, run.peak_memory_bytes, n_bytes,
        run.details["settings"], answers.tolist(), run.details["choosing_seconds"],
    )  # fmt: skip


def _place(folder: Path, encoder: Encoder, task: Task, method: Method, settings: Settings) -> tuple[Path, str]:
    """The file of a cell, and the identity that its content must have."""
    identity = _identity(encoder, task, method, settings)
    # For people: what decides is the hash behind it.
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{task.name}-{method_text(method)}").strip("-")[:80]
    # A part of the hash keeps the name short; the file holds all of it, and `_read` compares that.
    return folder / f"{slug}-{settings.seed}-{identity[:10]}.json", identity


def _identity(encoder: Encoder, task: Task, method: Method, settings: Settings) -> str:
    """A hash of all that decides a cell, the method's own rates and epochs included; rows count, not where they came from."""
    # Settings that the method's defaults fill are hashed as filled: a new default makes new cells.
    n_rows = min(len(task.train), settings.train_limit or len(task.train))
    # Not bounds on memory and disk: a cell counts whatever they were.
    resolved = settings.for_method(method, n_rows, encoder.config.hidden_size).deciding()
    # Names too, which stand in the cell: the same rows under another name are another task.
    parts = (
        _FORMAT, encoder.sha256, encoder.config_sha256, *(encoder.behaviour[name] for name in _OF_TOKENIZER),
        method_identity(method), task.name, task.kind, task.classes, task.metric,
        sorted(resolved.items()), task.train.sha256(), task.validation.sha256(),
    )  # fmt: skip
    # Only where it is the first class and not the second, so that cells of the time before there was a choice count still.
    if task.positive_index == 0:
        parts += (task.positive,)
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _read(path: Path, identity: str) -> Cell | None:
    """The cell in a file; None where there is none, or one that is damaged or was refused, which is computed again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT or found.pop("identity") != identity:
            return None
        cell = Cell(**found)
        return None if cell.refused else cell
    # No file, no JSON, no object, or other fields than a Cell has.
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


def _check_identities(methods: Sequence[Method]) -> None:
    """Raises InputError for a method known by its address in memory, which the next process may give to another one."""
    for method in methods:
        text = method_identity(method)
        # As in Python's own repr of an object, here of an attribute of the method.
        if " at 0x" in text:
            raise InputError(
                f"the method {text} has no lasting name, so its cells cannot be kept: make it a frozen dataclass whose fields "
                "print as their values, or leave out the folder of cells (out)"
            )
