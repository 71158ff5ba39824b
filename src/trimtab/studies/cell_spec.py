"""CellSpec: one cell that a study wants, what decides it, and how it is fitted."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from ..changes.contract import Method
from ..changes.method_text import method_identity, method_text
from ..encoders.encoder import Encoder
from ..engine import resolved
from ..errors import InputError
from ..results.cells import Cell, Cells, Identity
from ..results.outputs import packed
from ..results.recipe import Settings
from ..tasks.holdout import limited
from ..tasks.losses import label_tensor
from ..tasks.metrics import metric_names, predicted_labels, scores
from ..tasks.task import Task
from ..training.baselines import Baseline, Majority
from ..training.fit import fit
from ..training.ranks import device
from ..training.run import Run
from ..training.set_up import check_rows
from .forgetting import Yardstick
from .other_texts import OtherTexts

_OF_TOKENIZER = ("vocabulary_sha256", "tokens", "cut")  # of `Encoder.behaviour`
_HASHED_AS = (
    2  # the format that stands in every identity: what a change of it would say is that all cells are to be made anew
)
_BASELINES_AS = 1  # changes where baselines do
_FEW_ROWS_THEN = (
    200  # validation rows, with fewer of which steps were chosen by the loss when cells were in files of format 2
)


class Outcome(NamedTuple):
    """The cell, None where another process is fitting it; and whether it was there already."""

    cell: Cell | None
    was_there: bool


@dataclass(frozen=True, eq=False)
class CellSpec:
    """A method on a task with the settings of one fit, its seed among them; its best step is chosen by the task's metric.

    Or a baseline, of which the seed and the limit decide the training rows.
    """

    encoder: Encoder
    task: Task
    method: Method | Baseline
    settings: Settings
    others: OtherTexts | None = None  # on which it is measured what was forgotten

    @cached_property
    def text(self) -> str:
        """The method's."""
        return self.method.name if isinstance(self.method, Baseline) else method_text(self.method)

    def describe(self) -> str:
        """The cell in words."""
        return f"{self.text} on {self.task.name} with seed {self.settings.seed}"

    @cached_property
    def identity(self) -> Identity:
        """Hashes of all that decides the cell, the method's own rates and epochs included; rows count, not where they came from.

        Not the task's metric: it decides which step is taken for the best one, which the cell says, but a study that is looked at
        by another metric has no other cells.
        """
        encoder, task = self.encoder, self.task
        if isinstance(self.method, Baseline):
            return self._of_baseline(self.method)
        # Settings that the method's defaults fill are hashed as filled: a new default makes new cells.
        n_rows = min(len(task.train), self.settings.train_limit or len(task.train))
        # Not bounds on memory and disk: a cell counts whatever they were.
        resolved = self.settings.for_method(self.method, n_rows, encoder.config.hidden_size).deciding()
        # Names too, which stand in the cell: the same rows under another name are another task.
        first = (
            _HASHED_AS, encoder.sha256, encoder.config_sha256, *(encoder.behaviour[name] for name in _OF_TOKENIZER),
            method_identity(self.method), task.name, task.kind, task.classes,
        )  # fmt: skip
        last: tuple[Any, ...] = (sorted(resolved.items()), *task.rows_sha256)
        # Only where it is the first class and not the second, so that cells of the time before there was a choice count still.
        if task.positive_index == 0:
            last += (task.positive,)
        # Only where something is measured, so that cells without it count still.
        if self.others is not None:
            last += (self.others.sha256,)
        # Cells of format 2 had the metric in their identity, in this place.
        before = {metric: _hashed((*first, metric, *last)) for metric in metric_names(task.kind)}
        return Identity(_hashed((*first, *last)), before)

    def _of_baseline(self, baseline: Baseline) -> Identity:
        """The same for all seeds where all training rows are taken."""
        task, limit = self.task, self.settings.train_limit
        draw = (limit, self.settings.seed) if limit is not None and limit < len(task.train) else None
        given = [(name, getattr(self.settings, name)) for name in baseline.settings]
        by = (
            self.encoder.sha256,
            self.encoder.config_sha256,
            *(self.encoder.behaviour[name] for name in _OF_TOKENIZER),
        )
        parts = (
            "baseline",
            _BASELINES_AS,
            repr(baseline),
            by if given else (),
            given,
            task.name,
            task.kind,
            task.classes,
        )
        return Identity(_hashed((*parts, draw, task.positive, *task.rows_sha256)), {})

    def found(self, cells: Cells) -> Cell | None:
        """The cell, where it is among `cells`; its `metric` is the one that its fit was given."""
        cell = cells.find(self.identity, self.task.metric)
        if cell is None or cell.judged_by is not None:
            return cell
        # Of format 2, which did not note it.
        return replace(cell, judged_by="loss" if len(self.task.validation) < _FEW_ROWS_THEN else cell.metric)


def wanted(
    encoder: Encoder,
    tasks: Sequence[Task],
    methods: Sequence[Method],
    seeds: Sequence[int],
    base: Settings,
    others: Sequence[OtherTexts | None] | None = None,
) -> list[CellSpec]:
    """The cells of a study, one seed of everything before the next: one that is stopped early can be read already.

    `others` are texts for each task, where it is to be measured what was forgotten.
    """
    beside = others or [None] * len(tasks)
    return [
        CellSpec(encoder, task, method, replace(base, seed=seed), other)
        for seed in seeds
        for task, other in zip(tasks, beside, strict=True)
        for method in methods
    ]


def outcome(spec: CellSpec, cells: Cells | None, *, waits: bool, starts: Callable[[], None]) -> Outcome:
    """The cell: the one that is there, or that of a new fit, which is kept among `cells`; None where it is another's.

    With `waits` another process's is waited for. `starts` is called before a fit. A refused one is not kept: what stood in the
    way may be gone next time (peft is installed, a file is there).
    """
    # Without a folder no cell is looked for, and its identity, a hash of all texts, is not formed.
    if cells is None:
        return Outcome(_fitted(spec, starts), False)
    with cells.claim(spec.identity, waits=waits) as ours:
        # Looked for in any case: it may have come while this process waited.
        found = spec.found(cells)
        if found is not None or not ours:
            return Outcome(found, True)
        cell = _fitted(spec, starts)
        if not cell.refused:
            cells.append(spec.identity, cell)
        return Outcome(cell, False)


def check_identities(methods: Iterable[Method]) -> None:
    """Raises InputError for a method known by its address in memory, which the next process may give to another one."""
    for method in methods:
        text = method_identity(method)
        # As in Python's own repr of an object, here of an attribute of the method.
        if " at 0x" in text:
            raise InputError(
                f"the method {text} has no lasting name, so its cells cannot be kept: make it a frozen dataclass whose fields "
                "print as their values, or leave out the folder of cells (out)"
            )


def _hashed(parts: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _fitted(spec: CellSpec, starts: Callable[[], None]) -> Cell:
    """The cell of a new fit; a refused one where the method refuses the encoder or the task."""
    starts()
    try:
        if isinstance(spec.method, Baseline):
            return _judged(spec, spec.method)
        _warm_up(spec.encoder, spec.task)
        # No run folder: a cell is its scores and predictions, and models of hundreds of cells would fill a disk.
        # Cells keep the model's own outputs, as they always did: a metric of probabilities compares methods, not temperatures.
        settings = asdict(spec.settings) | {"calibrate": bool(spec.settings.calibrate)}
        run = fit(spec.encoder, spec.task, spec.method, out=None, **settings)
        cell = _finished(run, spec)
        # Ctrl-C ends the study; the half-trained cell is not kept.
        if run.stopped == "interrupted":
            raise KeyboardInterrupt
    except InputError as error:
        return refusal(spec, str(error))
    return cell


def _judged(spec: CellSpec, baseline: Baseline) -> Cell:
    """The cell of a baseline."""
    check_rows(spec.task)
    task = limited(spec.task, spec.settings.train_limit, spec.settings.seed)
    found = baseline.judged(spec.encoder, task, spec.task, spec.settings)
    labels = label_tensor(task, task.validation)
    constant = Majority().judged(spec.encoder, task, spec.task, spec.settings).logits
    logits = found.logits
    settings = {name: getattr(spec.settings, name) for name in ("seed", "train_limit", *baseline.settings)}
    return Cell(
        task.name, spec.text, spec.settings.seed, task.metric, scores(task, logits, labels), scores(task, constant, labels),
        {"body": 0, "head": found.n_parameters}, seconds=found.seconds, settings=settings,
        answers=predicted_labels(task, logits).tolist(), judged_by=task.metric, outputs=packed(task.kind, logits.numpy()),
    )  # fmt: skip


def refusal(spec: CellSpec, why: str) -> Cell:
    """A cell that says why there is none."""
    return Cell(spec.task.name, spec.text, spec.settings.seed, spec.task.metric, refused=why)


_WARM: set[str] = set()  # hashes of the encoders that this process has loaded once


def _warm_up(encoder: Encoder, task: Task) -> None:
    """Loads what the first fit of a process loads, and measures the arithmetic, which are no part of any cell's seconds."""
    if encoder.sha256 not in _WARM:
        encoder.with_head(task)
        resolved("auto", device())
        _WARM.add(encoder.sha256)


def _finished(run: Run, spec: CellSpec) -> Cell:
    """The cell of a finished run; its delta is saved once to see how large it is."""
    assert run.logits is not None  # every fit validates
    task = spec.task
    predicted = predicted_labels(Task.from_description(run.delta.task), run.logits)  # at the run's own threshold
    with tempfile.TemporaryDirectory() as folder:
        n_bytes = run.delta.save(folder).stat().st_size
    forgotten = None if spec.others is None else _yardstick(spec.encoder, spec.others).of(run.delta).as_json()
    return Cell(
        task.name, spec.text, spec.settings.seed, task.metric, run.scores, run.baseline, run.details["elements"],
        run.details["share"], run.seconds + run.details["cached_seconds"], run.examples_per_second, run.peak_memory_bytes,
        n_bytes, run.details["settings"], predicted.tolist(), run.details["choosing_seconds"],
        judged_by=run.details["judged_by"], outputs=packed(task.kind, run.logits.float().cpu().numpy()), forgetting=forgotten,
    )  # fmt: skip


_YARDSTICKS: dict[tuple[str, str], Yardstick] = {}  # by the hashes of encoder and texts: of the cells of this process


def _yardstick(encoder: Encoder, others: OtherTexts) -> Yardstick:
    """What it says of the encoder before training is computed with the first cell, and counts for the others."""
    key = (encoder.sha256, others.sha256)
    if key not in _YARDSTICKS:
        _YARDSTICKS[key] = Yardstick(encoder, others, in_full=False)
    return _YARDSTICKS[key]
