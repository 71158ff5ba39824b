"""What a person sees while training: the facts before it, a bar during it, a line per validation."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..changes.contract import trial_of
from ..changes.fisher import cost_note
from ..changes.method_text import method_text
from ..changes.scores.fisher import FisherInformation
from ..errors import counted
from ..results.formatting import rough_duration, share
from ..tasks.data_report import survey
from ..tasks.metrics import figure, named
from .steps import Begun, Cached, Event, Finished, Planned, Step, Validation, Warned

if TYPE_CHECKING:
    from .workbench import Workbench


TIMED_STEPS = 8  # from whose seconds those of the rest are told; fewer where they take longer than
TIMED_SECONDS = 10.0
_LEAST_SECONDS = 5.0  # to go, of which it is worth to be told


class Display:
    """Draws on stderr when `shown`; otherwise does nothing.

    It reads the events of a fit, and knows of it what they say. A context, which stops the bar behind its block, also after an
    error. Lines are printed without markup, since class names
    may hold square brackets, and without wrapping, so that a log file has one line per fact.
    """

    def __init__(self, shown: bool):
        self._console = Console(stderr=True, quiet=not shown, highlight=False)
        # Lines go to any stderr; a bar that is redrawn only to a terminal, or a log file would be full of it.
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self._console, disable=not (shown and sys.stderr.isatty()),
        )  # fmt: skip
        self._bench: Workbench | None = None  # set by `_announce`
        # Rows of the bar, each made when there is something to show in it: most methods cache nothing.
        self._caching: TaskID | None = None
        self._training: TaskID | None = None
        # What the last validation and the last steps came to, to be shown until the next.
        self._score, self._loss = "", 0.0
        self._last: Step | None = None
        self._validation_seconds: float | None = None  # the last one took; None before the first of this sitting
        self._timed: tuple[int, float] | None = None  # a step of this sitting, and the seconds of all steps until then
        self._told = False  # how long it will take

    def __enter__(self) -> Display:
        """The bar is not there yet: it starts below the lines of what was set up."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Shows what there is to be seen of an event."""
        match event:
            case Planned():
                self._describe(event)
            case Begun():
                self._announce(event)
            case Cached():
                self._cached(event)
            case Step():
                self._stepped(event)
            case Validation():
                self._validated(event)
            case Warned():
                self._say([f"trimtab: {event.text}"])
            case Finished():
                self._bar.stop()

    def stopping(self) -> None:
        """Says what the first Ctrl-C does."""
        self._say(["stopping: the best so far is judged and kept; Ctrl-C again stops at once"])

    def _describe(self, planned: Planned) -> None:
        """Says what there is to know of the rows, and what the method will measure on them first."""
        if self._console.quiet:
            return  # the survey takes time, with many rows
        task, method = planned.task, planned.method
        # All that may be wrong with the data, before an hour is spent on it.
        self._say(survey(task).lines())
        if method is not None and (trial := trial_of(method)):
            self._say([f"first {method_text(method)} chooses, by {trial}"])
            score = getattr(method, "score", None)
            if isinstance(score, FisherInformation):
                rows = min(score.examples, len(task.train))
                self._say(cost_note(score.estimator, task.kind, len(task.classes), rows))

    def _announce(self, begun: Begun) -> None:
        """Says what will be trained, what truncation cuts and whether it goes on from a checkpoint; starts the bar."""
        self._bench = bench = begun.bench
        lines = [bench.train.inputs.truncation.line("train", bench.max_length)]
        lines += [bench.validation.inputs.truncation.line("validation", bench.max_length)]
        lines += bench.token_lines
        # The method's own learning rates are filled in by now.
        backbone, head = bench.selection.backbone.count, bench.selection.head.count
        lines.append(bench.form.reason)
        how = f"at learning rates {bench.optimizer.lr:g} and {bench.optimizer.head_lr:g}"
        if bench.solves:
            how = "which is solved for: a linear probe, without learning rates and epochs"
        elif bench.start is not None:
            how += ", the head from a linear probe on"
        lines.append(
            f"{method_text(bench.method)} trains {backbone:,} parameters of the encoder ({share(bench.selection.share)}) "
            f"and {head:,} of the head, {how}"
        )
        if not bench.solves:
            lines.append(
                f"{counted(bench.settings.epochs or 0, 'epoch')} of {counted(bench.steps_per_epoch, 'step')}, with "
                f"{counted(bench.n_validations, 'validation')}"
            )
        if bench.judged_by != bench.task.metric and not bench.solves:  # which has one step
            lines.append(
                f"{counted(len(bench.validation), 'validation row')} are too few to choose a step by {bench.task.metric}: the "
                "best step is that of the lowest validation loss (--validation FILE|SHARE for more rows)"
            )
        lines.append(bench.memory.line())
        # Where it begins. The score before training can take long, and nothing moves on the screen meanwhile.
        if begun.step:
            lines.append(f"resuming after step {begun.step} of {begun.total_steps}")
        else:
            lines.append(
                f"first the score before training, of {bench.start_named}, on {counted(len(bench.validation), 'validation row')}"
            )
        # No error: a run that was killed before its first checkpoint is resumed by the same command.
        if begun.resume and not begun.step:
            lines.append(
                "there is no checkpoint to resume from in the run folder (--out): starting from the first step"
            )
        self._say(lines)
        self._bar.start()

    def _cached(self, cached: Cached) -> None:
        """Moves the bar of the frozen layers' states: texts that have theirs."""
        if self._caching is None:
            self._caching = self._bar.add_task("frozen layers, once", total=cached.total, facts="")
        self._bar.update(self._caching, completed=cached.rows, facts=f"{cached.rows:,} of {cached.total:,} texts")

    def _stepped(self, step: Step) -> None:
        """Moves the bar: loss since the last validation, last score, training rows per second."""
        self._last = step
        if step.loss is not None:
            self._loss = step.loss
        self._time(step)
        self._move(step.step)

    def _move(self, step: int) -> None:
        """The bar, at this step."""
        # Over all sittings, and without the time for validation and checkpoints.
        rate = self._last.rows / max(1e-9, self._last.step_seconds) if self._last else 0.0
        if self._training is None:
            assert self._bench is not None
            self._training = self._bar.add_task("train", total=self._bench.total_steps, facts="")
        facts = f"loss {figure(self._loss)}  {self._score}  {rate:.0f} texts/s"
        self._bar.update(self._training, completed=step, facts=facts)

    def _time(self, step: Step) -> None:
        """Says once how long the rest will take, from the first steps of this sitting but the one that warms up."""
        if self._told:
            return
        if self._timed is None:
            self._timed = (step.step, step.step_seconds)
        first, before = self._timed
        steps, seconds = step.step - first, step.step_seconds - before
        if steps >= TIMED_STEPS or (steps > 0 and seconds >= TIMED_SECONDS):
            self._told = True
            self._say(self._to_go(step.step, seconds / steps))

    def _to_go(self, step: int, each: float) -> list[str]:
        """How long it takes from `step` on, with `each` seconds a step; nothing where that is soon."""
        assert self._bench is not None
        total = self._bench.total_steps
        validations = sum(
            map(self._bench.validation_due, range(step, total + 1))
        )  # the one behind this step is to come
        took, one = (total - step) * each, self._validation_seconds
        if one is None:  # a resumed run has not validated yet
            return [
                f"about {rough_duration(took)} to go, and {counted(validations, 'validation')}: {each:.2g} s a step"
            ]
        took += validations * one
        if took < _LEAST_SECONDS:
            return []
        return [f"about {rough_duration(took)} to go: {each:.2g} s a step, {one:.2g} s a validation"]

    def _validated(self, validation: Validation) -> None:
        """Prints one line per validation."""
        assert self._bench is not None
        self._validation_seconds, metric = validation.took_seconds, self._bench.task.metric
        self._score = f"{named(metric, self._bench.task.positive)} {figure(validation.scores[metric])}"
        # So that the bar has the new score too.
        self._move(validation.step)
        loss = figure(validation.loss)
        # The baseline has no training loss and cannot be the best of the validations after it.
        if validation.step == 0:
            text = f"before training ({self._bench.start_named}): {self._score}, validation loss {loss}"
        else:
            by = ", by its loss" if self._bench.judged_by != metric else ""
            best = f"  (best so far{by})" if validation.is_best else ""
            assert validation.train_loss is not None
            text = (
                f"epoch {validation.epoch:.2f}, step {validation.step}: {self._score}, training loss "
                f"{figure(validation.train_loss)}, validation loss {loss}{best}"
            )
        self._say([text])

    def _say(self, lines: Iterable[str]) -> None:
        """Prints each line as it is, above the bar."""
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)
