"""Fitting: what reads the events of the loop is put together here, and a run resumes to the same bits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ..changes.contract import Method, trial_of
from ..changes.method_text import method_of
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder, encoder_of
from ..encoders.places import Place
from ..engine import on_own_stream
from ..errors import InputError
from ..randomness import forked
from ..results.checkpoint import Progress, chosen_in, load_checkpoint, save_checkpoint
from ..results.recipe import Settings, settings_from
from ..results.record import write_history
from ..results.run_folder import RECIPE, check_folder, gone_if_empty, taking_place
from ..tasks.holdout import limited
from ..tasks.read import task_of
from ..tasks.task import Task
from .display import Display
from .ranks import is_first, joined
from .run import Run, finished_run, recipe_of
from .set_up import set_up
from .start_from import Start, found_start
from .steps import EARLY, INTERRUPTED, Begun, Checkpoint, Event, Finished, Planned, Sitting, Validation, Warned
from .workbench import Workbench


def fit(
    encoder: Encoder | str | Path | Place, task: Any, method: Method | str | None = None, *, start_from: Any = None,
    out: str | Path | None = None, resume: bool = False,
    overwrite: bool = False, progress: bool = False, **settings: object,
) -> Run:  # fmt: skip
    """Trains what `method` chooses of `encoder` on `task` and returns the Run, with the values of the best validation.

    Each may be given by its name or text: `fit("minilm", "reviews.csv", "lora:rank=8")`. How a table is to be read is said to
    `read`, whose Task is then given here. Without a method it is layer_norms, or that of `start_from`: a run (its folder, the
    Run or its Delta) whose values training begins at.
    `settings` are the fields of Settings. With `out`, the run folder is written there (delta, recipe, history, scores) and
    checkpoints make `resume` possible after any interruption; a run that is overwritten is deleted when the new one is
    whole, and lies in `.replaced` until then. Ctrl-C stops after the current step and keeps the best so far; before the
    first step, and when pressed again, it is a KeyboardInterrupt. Raises InputError when the parts do not fit together,
    `out` holds another run, or the loss is no number.
    """
    events = steps(
        encoder, task, method, start_from=start_from, out=out, resume=resume, overwrite=overwrite, **settings
    )
    display = Display(progress and is_first())
    with events, display, _interruptible(events, display.stopping):
        for event in events:
            display.show(event)
    return events.run


def steps(
    encoder: Encoder | str | Path | Place, task: Any, method: Method | str | None = None, *, start_from: Any = None,
    out: str | Path | None = None, resume: bool = False, overwrite: bool = False, **settings: object,
) -> Steps:  # fmt: skip
    """What `fit` does, as Steps: an iterator of events to be read by a loop of one's own, and stopped from there.

    The arguments are those of `fit`; `patience` among the settings holds here too, and Ctrl-C is as in any loop. Raises
    InputError as `fit` does: what is wrong with names or settings at once, all else while the events are read.
    """
    started = time.perf_counter()
    # First, so that a misspelt setting is refused before anything is loaded.
    chosen = settings_from(settings)
    begun = None if start_from is None else found_start(start_from)
    if method is None:
        method = "layer_norms" if begun is None else begun.delta.method
    method, task = method_of(method), task_of(task)
    folder = None if out is None else Path(out)
    return Steps(_Wanted(encoder_of(encoder), task, method, chosen, begun, folder, resume, overwrite, started))


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a fit was asked for."""

    encoder: Encoder
    task: Task
    method: Method
    settings: Settings
    begun: Start | None
    folder: Path | None  # None where nothing is kept
    resume: bool
    overwrite: bool
    started: float  # on the clock of `perf_counter`


class Steps:
    """The events of one fit, in order: Planned, Begun, then Cached, Validation, Step, Checkpoint and Warned, last Finished.

    Nothing is computed but what the next event needs: while one is looked at, the fit stands still. `stop` ends it well, with
    the best values and a Run. Who leaves the loop before Finished leaves the fit as a killed process does: there is no Run, and
    in a run folder the last checkpoint, if there is one, to resume from. `with` (or `close`) does so at once, also after an
    error. The caller's random streams are as they were at each event.

    Under torchrun every rank reads its own events, which are the same but for Warned, of the one that writes the files. A stop
    that one of them asks for stops all at the same step; only all together may leave the loop.
    """

    def __init__(self, wanted: _Wanted):
        self._run: Run | None = None
        self._sitting: Sitting | None = None
        self._asked: str | None = None  # why to stop, before there is a sitting
        self._events = self._made(wanted)

    def __iter__(self) -> Iterator[Event]:
        return self

    # Streams of random numbers and of a GPU are the caller's again between two events.
    @on_own_stream
    def __next__(self) -> Event:
        with forked():
            return next(self._events)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stop(self, why: str = "stopped") -> None:
        """Takes no further step. Steps since the last validation are judged, and the best values restored and saved as ever.

        The events go on to Finished; its run's `stopped` is `why`, or None where all steps had been taken. Of several reasons
        the first counts. With "interrupted", as for Ctrl-C, the checkpoint stays and the run can be resumed to the bits of one
        that never stopped.
        """
        if self._sitting is not None:
            self._sitting.stop(why)
        elif self._asked is None:
            self._asked = why

    def close(self) -> None:
        """Ends the fit where it is, with no Run; does nothing behind Finished."""
        on_own_stream(self._events.close)()

    @property
    def is_training(self) -> bool:
        """Whether steps have been taken, and more are to come: a stop would then keep something."""
        return self._sitting is not None and self._sitting.is_training

    @property
    def run(self) -> Run:
        """What came of it; raises InputError before all events have been read."""
        if self._run is None:
            raise InputError(
                "this fit has no run yet: read its events to the end, after stop() where it is to end early"
            )
        return self._run

    def _made(self, wanted: _Wanted) -> Generator[Event, None, None]:
        """The whole fit."""
        with joined() as ranks, ExitStack() as stack:
            folder = wanted.folder
            if folder is not None:
                check_folder(folder, resume=wanted.resume, overwrite=wanted.overwrite, probe=ranks.is_first)
            written = folder if ranks.is_first else None
            if written is not None:
                stack.enter_context(gone_if_empty(written))
            began_with = None
            # A method that measures has done so before the checkpoint, and on another machine might come to another choice.
            if wanted.resume and folder is not None and trial_of(wanted.method):
                began_with = ranks.agreed(chosen_in(folder) if ranks.is_first else None)
            settings = wanted.settings
            task = limited(wanted.task, settings.train_limit, settings.seed)
            yield Planned(task, None if began_with or wanted.begun else wanted.method)
            bench = set_up(wanted.encoder, wanted.task, wanted.method, settings, ranks, began_with, wanted.begun)
            identity = bench.identity()
            sitting, said = _sit_down(bench, folder, identity, wanted)
            self._sitting = sitting
            if self._asked is not None:
                sitting.stop(self._asked)
            yield from map(Warned, said)
            if written is not None:
                stack.enter_context(taking_place(written, resume=wanted.resume, overwrite=wanted.overwrite))
                # Before the first step: a run that is killed early can then be told from its folder and resumed.
                recipe_of(bench).save(written / RECIPE)
            yield from _watched(sitting, written, identity, resume=wanted.resume)
            # The last values are seldom the best ones: what is reported, saved and returned is the best validation.
            bench.optimizer.restore(sitting.best)
            run = finished_run(bench, sitting.state, sitting.stopped, sitting.best_logits, folder, sitting.seconds)
        bench.prepared.restore()  # or its modules and our closures would wait for the garbage collector together
        self._run = run
        yield Finished(run)


def _watched(sitting: Sitting, folder: Path | None, identity: str, *, resume: bool) -> Iterator[Event]:
    """The events of the sitting, with all that reads them in any fit: patience, and in `folder` history and checkpoint."""
    bench, state = sitting.bench, sitting.state
    begun = Begun(bench, state.step, bench.total_steps, resume, state.since_best, tuple(state.history))
    # Also at the begin: a run that was killed after its last validation stops where it would have.
    _stop_impatient(sitting, begun)
    yield begun
    for event in sitting:
        if isinstance(event, Validation):
            _stop_impatient(sitting, event)
        if isinstance(event, Checkpoint) and folder is not None:
            event = _saved(sitting, folder, identity, event)
        yield event


def _stop_impatient(sitting: Sitting, event: Begun | Validation) -> None:
    """Stops where so many validations as are waited for have not been better."""
    patience = sitting.bench.settings.patience
    if patience is not None and event.since_best >= patience:
        sitting.stop(EARLY)


def _saved(sitting: Sitting, folder: Path, identity: str, due: Checkpoint) -> Checkpoint | Warned:
    """Writes history and the checkpoint that is `due`, and returns it; or why that cannot be done."""
    bench, optimizer = sitting.bench, sitting.bench.optimizer
    # With their positions, since elements that a measurement chose may be others when it is made again.
    positions = {name: torch.from_numpy(at) for name, at in bench.selection.elements.items() if at is not None}
    groups = {
        "value": optimizer.values(), "moment": optimizer.moments(), "best": sitting.best, "position": positions
    }  # fmt: skip
    try:
        write_history(folder, sitting.state.history)
        save_checkpoint(folder, identity, sitting.state, groups)
    except InputError as error:  # a full disk may have room again when the delta, which is smaller, is written
        return Warned(f"no checkpoint: {error}")
    return due


def _sit_down(bench: Workbench, folder: Path | None, identity: str, wanted: _Wanted) -> tuple[Sitting, list[str]]:
    """A fresh start, or the state in `folder`'s checkpoint put back into the workbench; and what is to be said of it.

    Raises InputError where the checkpoint is damaged or belongs to another run.
    """
    ranks, keeps = bench.ranks, folder is not None
    # A checkpoint of other data, settings or weights is refused in there: its moments would fit no longer.
    where = folder if wanted.resume and ranks.is_first else None
    found = ranks.agreed(None if where is None else load_checkpoint(where, identity))  # one disk is enough
    if found is None:
        threads = torch.get_num_threads()
        state = Progress(compute=bench.compute, tokens_per_batch=bench.memory.tokens, threads=threads)
        return Sitting(bench, state, {}, keeps, wanted.started), []
    state, tensors = found
    # As it began, even where this machine would now choose otherwise: all three decide how sums are rounded.
    torch.set_num_threads(state.threads)
    elements = {
        name: tensors["position"][name].numpy() if name in tensors["position"] else None for name in tensors["value"]
    }
    # But not where less is asked for now: the memory may not have held what it began with.
    stated, said = bench.settings.tokens_per_batch, []
    if stated and stated != state.tokens_per_batch:
        said.append(
            f"it goes on with {stated:,} tokens at a time, where it began with {state.tokens_per_batch:,}: rounding, and which "
            "row has which dropout mask, are no longer those of an uninterrupted run"
        )
        state.tokens_per_batch = stated
    bench.use(cast(Compute, state.compute), state.tokens_per_batch, elements)
    # In this order: `use` may have made a new optimizer, whose state is then empty.
    bench.optimizer.restore(tensors["value"])
    bench.optimizer.restore_moments(tensors["moment"])
    return Sitting(bench, state, dict(tensors["best"]), keeps, wanted.started - state.seconds), said


@contextmanager
def _interruptible(events: Steps, say: Callable[[], None]) -> Iterator[None]:
    """Within, Ctrl-C stops the steps, which is said; a second one, or one with nothing worth keeping, interrupts at once."""
    # Python lets only the main thread handle signals; a fit elsewhere ends with its process.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def on_interrupt(signum: int, frame: object) -> None:
        nonlocal pressed
        if pressed or not events.is_training:
            raise KeyboardInterrupt
        pressed = True
        events.stop(INTERRUPTED)
        say()

    # Whatever Ctrl-C did before, it does again behind the block.
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        # None: it was not set from Python, and cannot be set again from there.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
