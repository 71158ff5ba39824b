"""Learning curves: scores at 8, 16, 32, ... rows of a class up to all, beside baselines, and what more labels would bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..changes.contract import Method
from ..changes.method_text import method_text, methods_of
from ..encoders.encoder import Encoder, encoder_of
from ..errors import InputError, counted
from ..files import write_text
from ..pages.curve_page import markdown, page
from ..results.cells import Cell, Cells
from ..results.comparison import scored_by
from ..results.recipe import Settings
from ..results.score_curves import ScoreCurve, ScoreCurves, Scores
from ..tasks.task import Task
from ..training.baselines import BASELINES, Baseline
from .cell_spec import CellSpec, check_identities
from .compare import check_choice, computed, finished, settings_of_cells, tasks_to_compare
from .executor import Executor, executor_of
from .progress import StudyDisplay

FIRST = 8  # rows of a class
_MANY, _DRAWS, _DRAWS_OF_MANY = 128, 5, 3  # up to so many rows of a class so many draws, behind them so many
_NEAR_ALL = 0.75  # of all rows: a size above it says nothing that all rows do not


class Curve(ScoreCurves):
    """What `curve` returns: ScoreCurves that write their own page."""

    def markdown(self) -> str:
        """The table of scores and the lines."""
        return markdown(self)

    def report(self, to: str | Path) -> Path:
        """Writes the self-contained page to `to`; a path that ends in .md gets the table and the lines as Markdown instead."""
        target = Path(to)
        write_text(target, markdown(self) if target.suffix.lower() == ".md" else page(self))
        return target


def curve(
    encoder: Encoder | str | Path, task: Any, methods: Sequence[Method | str] | Method | str = "layer_norms", *,
    draws: int | None = None, baselines: bool = True, out: str | Path | None = None, metric: str | None = None,
    jobs: int | Executor = 1, progress: bool = False, **settings: object,
) -> Curve:  # fmt: skip
    """Fits each method on 8, 16, 32, ... rows a class, up to all, and says what up to 8 times as many labels would bring.

    Rows are drawn stratified and nested: those of a draw are among the next size's of the same draw. `draws` of each size (by
    default 5 up to 128 rows a class, 3 behind) have seeds 0, 1, ... of their own, of the draw as of the fit. Of several labels a
    row, and of numbers, rows are counted, and not rows a class. With `baselines` there are lines for the largest class, a bag of
    words (with scikit-learn) and frozen vectors. Encoder, task and methods, `out`, `metric`, `jobs` and `settings` are as in
    `compare`: each size, draw and method is a cell, and what is in `out` is not computed again. Raises InputError as `compare`
    does, for fewer than one draw, and for a seed or a training limit.
    """
    for name in ("seed", "train_limit"):
        if name in settings:
            raise InputError(f"a curve has draws and sizes of its own: leave out {name}")
    if draws is not None and draws < 1:
        raise InputError(f"draws={draws}: at least 1")
    methods, base = methods_of(methods), settings_of_cells(settings)
    found_tasks = tasks_to_compare(task, metric)
    if len(found_tasks) != 1:
        raise InputError(f"a curve is of one task, and not of {len(found_tasks)}")
    task = found_tasks[0]
    check_choice([method_text(method) for method in methods], [task.name], [0])
    encoder = encoder_of(encoder)
    if out is not None:
        check_identities(methods)
    wanted = _wanted(encoder, task, methods, base, draws, BASELINES if baselines else ())
    cells = _cells(wanted, methods, None if out is None else Cells(Path(out)), jobs, progress)
    return _curve(encoder, task, wanted, [scored_by(task, cell) for cell in cells])


def sizes_of(task: Task) -> list[int]:
    """Training rows of each size, the last being all."""
    every, unit = len(task.train), _unit(task)
    found, size = [], FIRST * unit if task.kind == "single_label" else 2 * FIRST
    while size <= _NEAR_ALL * every:
        found.append(size)
        size *= 2
    return [*found, every]


def _unit(task: Task) -> int:
    """The rows that count as one: one of each class."""
    return len(task.classes) if task.kind == "single_label" else 1


def _wanted(
    encoder: Encoder,
    task: Task,
    methods: Iterable[Method],
    base: Settings,
    draws: int | None,
    baselines: Iterable[Baseline],
) -> list[CellSpec]:
    """The cells, small ones first: one that is stopped early can be read already."""
    found = []
    every = len(task.train)
    for size in sizes_of(task):
        n = draws or (_DRAWS if size <= _MANY * _unit(task) else _DRAWS_OF_MANY)
        for draw in range(n):
            # All rows as `compare` asks for them: its cells count here.
            settings = replace(base, seed=draw, train_limit=None if size == every else size)
            # A baseline has no luck but in its rows.
            found += [CellSpec(encoder, task, each, settings) for each in baselines if draw == 0 or size < every]
            found += [CellSpec(encoder, task, each, settings) for each in methods]
    return found


def _cells(
    specs: Sequence[CellSpec], methods: Sequence[Method], cells: Cells | None, jobs: int | Executor, progress: bool
) -> list[Cell]:
    """The cell of each spec, those that are not there being computed."""
    with ExitStack() as stack:
        executor = stack.enter_context(executor_of(jobs)) if isinstance(jobs, int) else jobs
        executor.check(methods)
        there = {} if cells is None else finished(specs, cells)
        display = stack.enter_context(StudyDisplay(progress, [spec.text for spec in specs], executor.count))
        display.say(f"{counted(len(specs), 'cell')}" + (f", of which {len(there)} are there already" if there else ""))
        for cell in there.values():
            display.finished(cell, True)
        found = there | computed(specs, there, cells, executor, display)
    return [found[number] for number in range(len(specs))]


def _curve(encoder: Encoder, task: Task, specs: Sequence[CellSpec], cells: Sequence[Cell]) -> Curve:
    """What the cells of the specs come to."""
    curves, refused = [], {}
    names = dict.fromkeys(spec.text for spec in specs)
    for name in sorted(names, key=[*(each.name for each in BASELINES), *names].index):
        own = [(spec, cell) for spec, cell in zip(specs, cells, strict=True) if spec.text == name]
        whys = [cell.refused for _, cell in own if cell.refused]
        if whys:
            refused[name] = whys[0]
            continue
        is_baseline = isinstance(own[0][0].method, Baseline)
        sizes = []
        for size in sizes_of(task):
            scores = [cell.score for spec, cell in own if (spec.settings.train_limit or len(task.train)) == size]
            # All rows are one draw, as if it had been drawn several times.
            scores *= 2 if is_baseline and len(scores) == 1 and size == len(task.train) else 1
            sizes.append(Scores(max(1, round(size / _unit(task))), size, tuple(scores)))
        curves.append(ScoreCurve.of(name, is_baseline, sizes, task.metric, len(task.validation)))
    return Curve(encoder.name, task, task.kind == "single_label", tuple(curves), refused)
