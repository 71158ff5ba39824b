"""The loop: train a change, validate, keep the best, stop when told, resume to the same bits."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ..changes.methods import Method
from ..encoders.encoder import Encoder
from ..tasks.metrics import METRICS
from ..tasks.task import Task
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .display import Display
from .recipe import settings_from
from .run import RECIPE, Run, check_folder, finished_run, recipe_of, write_history
from .workbench import Workbench, set_up

CHECKPOINT_SECONDS = 60.0  # a killed run loses at most about this much work


def fit(
    encoder: Encoder, task: Task, method: Method, *, out: str | Path | None = None, resume: bool = False,
    overwrite: bool = False, progress: bool = False, **settings: object,
) -> Run:  # fmt: skip
    """Trains what `method` chooses of `encoder` on `task` and returns the Run, with the values of the best validation.

    `settings` are the fields of Settings. With `out`, the run folder is written there (delta, recipe, history, scores) and
    checkpoints make `resume` possible after any interruption. Ctrl-C stops after the current step and keeps the best so
    far. Raises InputError when the parts do not fit together or `out` holds another run.
    """
    started = time.perf_counter()
    chosen = settings_from(settings)
    folder = None if out is None else check_folder(Path(out), resume=resume, overwrite=overwrite)
    with torch.random.fork_rng():
        display = Display(progress)
        bench = set_up(encoder, task, method, chosen)
        state, best = _start(bench, folder if resume else None)
        clock = _clock(started - state.seconds)
        if folder is not None:
            recipe_of(bench).save(folder / RECIPE)
        with _interruptible() as stop, display:
            display.announce(bench, state)
            stopped = _train(bench, state, best, folder, display, stop, clock)
        bench.optimizer.restore(best)
        return finished_run(bench, state, stopped, folder, clock)


def _train(
    bench: Workbench, state: Progress, best: dict[str, Tensor], folder: Path | None,
    display: Display, stop: threading.Event, clock: Callable[[], float],
) -> str | None:  # fmt: skip
    """Runs steps until the end, a stop or patience; `state` and `best` are brought up to date in place."""
    settings, saved_at = bench.settings, time.perf_counter()
    if not state.history:
        _validate(bench, state, best, display, clock())
    while state.step < bench.total_steps:
        if stop.is_set():
            _save(bench, state, best, folder, clock())
            return "interrupted"
        began = time.perf_counter()
        loss_sum, rows = bench.train_step(state.step)
        state.step, state.loss_sum, state.loss_rows = state.step + 1, state.loss_sum + loss_sum, state.loss_rows + rows
        state.rows, state.step_seconds = state.rows + rows, state.step_seconds + time.perf_counter() - began
        display.stepped(state)
        due = _validation_due(state.step, bench)
        if due:
            _validate(bench, state, best, display, clock())
            if folder is not None:
                write_history(folder, state.history)
        if due or time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
            _save(bench, state, best, folder, clock())
            saved_at = time.perf_counter()
        if settings.patience is not None and state.since_best >= settings.patience:
            return "early"
    return None


def _validate(bench: Workbench, state: Progress, best: dict[str, Tensor], display: Display, seconds: float) -> None:
    """Scores the model as it is, notes it in the history, and keeps its values where they are the best so far."""
    found, _ = bench.validate()
    name = bench.task.metric
    earlier = [entry["scores"][name] for entry in state.history if entry["step"] > 0]
    train_loss = state.loss_sum / state.loss_rows if state.loss_rows else None
    state.loss_sum, state.loss_rows = 0.0, 0
    state.history.append({
        "step": state.step, "epoch": state.step / bench.steps_per_epoch, "train_loss": train_loss,
        "validation_loss": found["loss"], "scores": found, "lr": bench.rate(max(0, state.step - 1)) * bench.optimizer.lr, "seconds": seconds,
    })  # fmt: skip
    if not earlier or all(METRICS[name].better(found[name], score) for score in earlier):
        best.update(bench.optimizer.values())
        state.best_step, state.since_best = state.step, 0
    else:
        state.since_best += 1
    display.validated(state)


def _validation_due(step: int, bench: Workbench) -> bool:
    every = bench.settings.eval_steps or bench.steps_per_epoch
    return step % every == 0 or step == bench.total_steps


def _start(bench: Workbench, folder: Path | None) -> tuple[Progress, dict[str, Tensor]]:
    """A fresh start, or the state in `folder`'s checkpoint put back into the workbench."""
    found = load_checkpoint(folder, bench.identity()) if folder is not None else None
    if found is None:
        return Progress(), {}
    state, tensors = found
    bench.optimizer.restore(tensors["value"])
    bench.optimizer.restore_moments(tensors["moment"])
    return state, dict(tensors["best"])


def _save(bench: Workbench, state: Progress, best: dict[str, Tensor], folder: Path | None, seconds: float) -> None:
    if folder is not None:
        state.seconds = seconds
        save_checkpoint(folder, bench.identity(), state, bench.optimizer.values(), bench.optimizer.moments(), best)


def _clock(started: float) -> Callable[[], float]:
    return lambda: time.perf_counter() - started


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_interrupt(signum: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
