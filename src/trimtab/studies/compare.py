"""Methods x tasks x seeds as independent cells; results/comparison.py says what they come to together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..changes.contract import Method
from ..changes.method_text import method_of, method_text, methods_of
from ..encoders.encoder import Encoder, encoder_of
from ..errors import InputError, counted, suggestion
from ..pages.comparison_page import markdown, write_page
from ..results.cells import Cell, Cells
from ..results.comparison import Comparison, baselines_of, lacks_probabilities, scored_by, summarised
from ..results.formatting import plain
from ..results.recipe import FEW_VALIDATION_ROWS, Settings, settings_from
from ..results.resampled_scores import usable
from ..tasks.metrics import check_metric, metric_names
from ..tasks.read import tasks_of
from ..tasks.task import Task
from ..training.baselines import BASELINES, Baseline
from ..training.ranks import started
from .cell_spec import CellSpec, check_identities, wanted
from .executor import Executor, executor_of
from .other_texts import texts_beside
from .progress import StudyDisplay


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
    *, out: str | Path | None = None, reference: Method | str | None = None, metric: str | None = None, jobs: int | Executor = 1,
    progress: bool = False, baselines: bool = False, forgetting: Any = None, **settings: object,
) -> Study:  # fmt: skip
    """Fits every method on every task with every seed, and compares them to `reference` (by default the first method).

    Encoder, tasks and methods may be given by name or text, and a lone task or method without a list: `compare("minilm",
    "reviews.csv", ["full", "layer_norms"])`.

    With `out`, cells are kept in one file there, a line each, so that a study that was stopped or killed goes on and a finished
    one costs nothing; a cell counts for the very encoder, rows, method, seed and settings it was made with. `metric` takes the
    place of the tasks' main one. Cells keep probabilities, so by another metric than before nothing is fitted again: the best
    steps stay those that were chosen by the earlier one, and so are those of cells that are new, to be fair.
    `forgetting` are texts, as `trimtab.forgetting` takes them, on which each cell says what was kept of the encoder; its probe is
    another of the tasks, else helpdesk. Such cells are others than those without.
    `jobs` cells are computed at the same time, each by a process with its part of the threads. `settings`
    are the fields of Settings, the same for all methods; rates and epochs are each method's own where they are not given. A
    method that refuses the encoder or a task marks its cells, which are tried again by the next study, and the study goes
    on. Raises InputError for an empty or repeated choice of methods, tasks or seeds, for methods without a lasting
    name where there is `out`, for methods that cannot be sent to a process, and for a metric of probabilities where cells there
    are of before these were kept.

    With `baselines` tables begin with the largest class, a bag of words (with scikit-learn) and frozen vectors: cells in seconds,
    of their own kind, which no method is tested against.
    """
    # What is wrong with the study as a whole is refused before the first fit.
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    methods = methods_of(methods)
    base, tasks = settings_of_cells(settings), tasks_to_compare(tasks, metric)
    names = [method_text(method) for method in methods]
    check_choice(names, [task.name for task in tasks], numbers)
    chosen = _reference(reference, names)
    encoder = encoder_of(encoder)
    cells = None if out is None else Cells(Path(out))
    # Without a folder nothing outlives this process, so any name will do.
    if cells is not None:
        check_identities(methods)
    others = None if forgetting is None else [texts_beside(forgetting, task, tasks) for task in tasks]
    first = _baselines(encoder, tasks, numbers, base) if baselines else []
    specs = first + wanted(encoder, tasks, methods, numbers, base, others)
    with ExitStack() as stack:
        executor = stack.enter_context(executor_of(jobs)) if isinstance(jobs, int) else jobs
        executor.check(methods)
        there = {} if cells is None else finished(specs, cells)
        display = stack.enter_context(StudyDisplay(progress, [spec.text for spec in specs], executor.count))
        display.announce(len(methods), len(tasks), len(numbers), sum(n >= len(first) for n in there))
        for cell in there.values():
            display.finished(cell, True)
        found = there | computed(specs, there, cells, executor, display)
    scored = [scored_by(spec.task, found[number]) for number, spec in enumerate(specs)]
    beside, scored = scored[: len(first)], scored[len(first) :]
    summary = summarised(encoder.name, tasks, names, numbers, chosen, scored)
    left_out = dict.fromkeys(f"{each.method} is left out: {each.refused}" for each in beside if each.refused)
    notes = (*_notes(tasks, scored), *left_out)
    return Study(**vars(replace(summary, notes=notes, baselines=baselines_of(tasks, beside))))


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
    check_identities(methods)
    cells, specs = Cells(Path(folder)), wanted(encoder, [task], methods, seeds, settings_of_cells(settings))
    return [scored_by(task, cell) for cell in finished(specs, cells).values()]


def _baselines(encoder: Encoder, tasks: Sequence[Task], seeds: Sequence[int], base: Settings) -> list[CellSpec]:
    """The cells of baselines; where all training rows are taken seeds are alike, and one is enough."""
    return [
        CellSpec(encoder, task, each, replace(base, seed=seed))
        for task in tasks
        for each in BASELINES
        for seed in (seeds if (base.train_limit or len(task.train)) < len(task.train) else seeds[:1])
    ]


def finished(specs: Sequence[CellSpec], cells: Cells) -> dict[int, Cell]:
    """The cells that are there, by the number of their spec; the metric of each is the one that its fit was given.

    Raises InputError where the metric of their task is of probabilities and they have none.
    """
    found = {number: cell for number, spec in enumerate(specs) if (cell := spec.found(cells)) is not None}
    without = Counter(specs[n].task.name for n, cell in found.items() if lacks_probabilities(specs[n].task, cell))
    for name, n_cells in without.items():
        raise InputError(
            f"{counted(n_cells, 'cell')} of task {name!r} in {cells.folder} were made by an older version, which kept no "
            "probabilities, and cannot be compared by this metric: choose one of labels, such as accuracy (--metric), or another "
            "folder (--out)"
        )
    return found


def computed(
    specs: Sequence[CellSpec], there: dict[int, Cell], cells: Cells | None, executor: Executor, display: StudyDisplay
) -> dict[int, Cell]:
    """The cells that are not there, by the number of their spec."""
    found: dict[int, Cell] = {}
    numbers = _to_fit(specs, there)
    # What another process is computing is left to it, and waited for when all else is done.
    for waits in (False, True):
        todo = [spec for spec, n in numbers.items() if n not in found]
        for spec, (cell, was_there) in executor.run(todo, cells and cells.folder, display, waits=waits):
            if cell is not None:
                found[numbers[spec]] = cell
                display.finished(scored_by(specs[numbers[spec]].task, cell), was_there, spec.task.positive)
    return found


def _to_fit(specs: Sequence[CellSpec], there: dict[int, Cell]) -> dict[CellSpec, int]:
    """The specs of the cells that are not there, with their numbers.

    Each with the metric that the fits of its task's finished cells were given, where all were given other ones: else a method
    that is added to a study that is looked at by another metric would be the only one whose steps are chosen by it.
    """
    tasks: dict[int, Task] = {}  # one of each, whose rows are hashed and sent to processes once
    for task in {id(spec.task): spec.task for spec in specs}.values():
        given = Counter(
            cell.metric
            for n, cell in there.items()
            if specs[n].task is task and not isinstance(specs[n].method, Baseline)
        )
        asked = task.metric in given or not given
        tasks[id(task)] = task if asked else task.judged_by(given.most_common(1)[0][0])
    return {replace(spec, task=tasks[id(spec.task)]): n for n, spec in enumerate(specs) if n not in there}


def _notes(tasks: Sequence[Task], cells: Sequence[Cell]) -> Iterator[str]:
    """What is to be said of cells that another study, or an older version, has made."""
    for task in tasks:
        fits = [cell for cell in cells if cell.task == task.name and not cell.refused]
        few = len(task.validation) < FEW_VALIDATION_ROWS  # by their loss, whatever the metric
        others = Counter(c.judged_by or "" for c in fits if c.judged_by not in (task.metric, "loss" if few else None))
        for judge, n in others.items():
            yield (
                f"On {task.name} the best steps of {n} of {counted(len(fits), 'fit')} were chosen by {plain(judge)}, and not by "
                f"{plain(task.metric)}, by which they are compared: fitted again in another folder, they may score higher."
            )
    classes = {task.name for task in tasks if task.kind != "regression"}
    without = sum(not cell.refused and cell.outputs is None and cell.task in classes for cell in cells)
    if without:
        yield (
            f"{counted(without, 'cell')} of an older version {'has' if without == 1 else 'have'} no probabilities: "
            "only metrics of labels (accuracy, F1, ...) can compare them."
        )


def settings_of_cells(given: dict[str, object]) -> Settings:
    """The Settings of all cells; raises InputError for a seed, of which each cell has its own."""
    if "seed" in given:
        raise InputError(f"a study has several seeds: seeds=[{given['seed']}], and not seed={given['seed']}")
    return settings_from(given)


def tasks_to_compare(given: Any, metric: str | None) -> list[Task]:
    """The tasks, with `metric` as their main one where there is one; raises InputError for one that cannot be compared by."""
    if started() > 1:  # each rank would decide for itself which cells are there, and wait for others that are elsewhere
        raise InputError(
            "a study runs its cells one by one in one process: start it without torchrun (several processes that are given "
            "different methods or tasks can share one folder of cells)"
        )
    tasks = [task if metric is None else task.judged_by(check_metric(metric, task.kind)) for task in tasks_of(given)]
    for task in tasks:
        if task.metric not in metric_names(task.kind) or not usable(task.metric):
            raise InputError(f"methods cannot be compared by {task.metric}: choose another main metric (--metric)")
    return tasks


def _reference(given: Method | str | None, names: list[str]) -> str:
    """The text of the reference, by default the first; raises InputError where it is not among the methods' texts."""
    # Methods are compared as texts: a value of a method and its text on the command line are the same one.
    chosen = names[0] if given is None else method_text(method_of(given))
    if chosen not in names:
        raise InputError(
            f"the reference {chosen} is not among the methods{suggestion(chosen, names)}: {', '.join(names)}"
        )
    return chosen


def check_choice(methods: list[str], tasks: list[str], seeds: list[int]) -> None:
    """Raises InputError where one of the lists is empty or names something twice: cells would overwrite each other."""
    for what, chosen in (("method", methods), ("task", tasks), ("seed", list(map(str, seeds)))):
        if not chosen:
            raise InputError(f"a comparison needs at least one {what}")
        repeated = sorted({each for each in chosen if chosen.count(each) > 1})
        if repeated:
            raise InputError(f"the {what} {', '.join(repeated)} is there more than once: name each {what} once")
