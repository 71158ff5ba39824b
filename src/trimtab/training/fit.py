"""The loop: train a change, validate, keep the best, stop when told, resume to the same bits."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..changes.methods import Method, trial_of
from ..changes.notation import method_of
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder, encoder_of
from ..encoders.places import Place
from ..engine import on_own_stream
from ..errors import InputError
from ..randomness import forked
from ..results.checkpoint import Progress, chosen_in, load_checkpoint, save_checkpoint
from ..results.recipe import settings_from
from ..results.run_folder import RECIPE, check_folder, gone_if_empty, taking_place
from ..tasks.holdout import limited
from ..tasks.metrics import improves
from ..tasks.read import task_of
from .display import Display
from .ranks import joined
from .run import Run, finished_run, recipe_of, write_history
from .set_up import set_up
from .start_from import found_start
from .workbench import Workbench

CHECKPOINT_SECONDS = 60.0  # a killed run loses at most about this much work


@on_own_stream
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
    started = time.perf_counter()
    # First, so that a misspelt setting is refused before anything is loaded.
    chosen = settings_from(settings)
    begun = None if start_from is None else found_start(start_from)
    if method is None:
        method = "layer_norms" if begun is None else begun.delta.method
    method, task = method_of(method), task_of(task)
    encoder = encoder_of(encoder)
    # The caller's random streams are left as they were, whatever is drawn in here; those of this rank's own GPU among them.
    with joined() as ranks, forked():
        folder = None
        if out is not None:
            folder = check_folder(Path(out), resume=resume, overwrite=overwrite, probe=ranks.is_first)
        display = Display(progress and ranks.is_first)
        written = folder if ranks.is_first else None
        with ExitStack() as stack:
            if written is not None:
                stack.enter_context(gone_if_empty(written))
            # A method that measures has done so before the checkpoint, and on another machine might come to another choice.
            began_with = None
            if resume and folder is not None and trial_of(method):
                began_with = ranks.agreed(chosen_in(folder) if ranks.is_first else None)
            display.describe(limited(task, chosen.train_limit, chosen.seed), None if began_with or begun else method)
            bench = set_up(encoder, task, method, chosen, ranks, began_with, begun)
            sitting = _sit_down(bench, folder, resume, display, started)
            if written is not None:
                stack.enter_context(taking_place(written, resume=resume, overwrite=overwrite))
                # Before the first step: a run that is killed early can then be told from its folder and resumed.
                recipe_of(bench).save(written / RECIPE)
            stopped = _train(sitting, resume)
            # The last values are seldom the best ones: what is reported, saved and returned is the best validation.
            bench.optimizer.restore(sitting.best)
            run = finished_run(bench, sitting.state, stopped, sitting.best_logits, folder, sitting.seconds)
        bench.prepared.restore()  # or its modules and our closures would wait for the garbage collector together
        return run


def _train(sitting: "_Sitting", resume: bool) -> str | None:
    """Runs the sitting to its end, as `_Sitting.train` says."""
    bench, display, state = sitting.bench, sitting.display, sitting.state
    with display, _interruptible(lambda: state.step > 0, display.stopping) as stop:
        display.announce(bench, state, resume)
        # What frozen first layers make of every row, where that is worth keeping; nothing to do for most methods.
        for rows, total in bench.cache_prefixes():
            display.cached(rows, total)
            if stop.is_set():
                break
        return sitting.train(stop)


@dataclass
class _Sitting:
    """One uninterrupted stretch of a run."""

    bench: Workbench
    state: Progress
    best: dict[str, Tensor]  # selected values at the best validation so far
    identity: str  # of the run, as `Workbench.identity` gives it
    folder: Path | None  # None where nothing is kept
    display: Display
    started: float  # on the clock of `perf_counter`, moved back by the seconds of earlier sittings
    saved_at: float = field(default_factory=time.perf_counter)  # the last checkpoint, or the sitting's begin
    best_logits: Tensor | None = None  # (N, C) of the best validation, where it was in this sitting

    def seconds(self) -> float:
        """Of the run so far, over all sittings."""
        return time.perf_counter() - self.started

    def train(self, stop: threading.Event) -> str | None:
        """Runs steps to the end (None), to a stop ("interrupted") or until patience is lost ("early")."""
        bench, state = self.bench, self.state
        # The score before training, which everything after is compared with. A resumed run has it already.
        if not state.history:
            self.validate()
        while state.step < bench.total_steps:
            # First, so that a run that was killed after its last validation stops where it would have.
            if bench.settings.patience is not None and state.since_best >= bench.settings.patience:
                return "early"
            # Asked of all ranks, because Ctrl-C may reach only one of them and clocks differ: whatever one of them did alone, the
            # others would wait for forever.
            stopping, saving = bench.ranks.total(stop.is_set(), self.checkpoint_due())
            if stopping:
                self.settle()
                self.save()  # before judging, so that a resumed run does not know of it and goes on to the same bits
                if state.loss_rows:
                    self.validate()
                return "interrupted"
            if saving:
                self.settle()
                self.save()
            began = time.perf_counter()
            told = bench.train_step(state.step)
            state.step += 1
            state.count_losses(*told, time.perf_counter() - began)
            self.display.stepped(state)
            if bench.validation_due(state.step):
                self.settle()
                self.validate()
                self.save()
        return None

    def checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint between validations, as the rank that writes it sees it."""
        # There is nothing to keep before the first step.
        late = time.perf_counter() - self.saved_at > CHECKPOINT_SECONDS
        return late and self.state.step > 0 and self.bench.ranks.is_first

    def settle(self) -> None:
        """Counts the losses of steps that a GPU was still busy with: what is judged or saved then is known to be sound."""
        began = time.perf_counter()
        self.state.count_losses(*self.bench.losses(), time.perf_counter() - began)

    def validate(self) -> None:
        """Scores the model as it is, notes it in the history, and keeps its values where they are the best so far.

        A start that is a linear probe is as good a model as any; one that was drawn is kept only until the first validation
        after it.
        """
        bench, state, began = self.bench, self.state, time.perf_counter()
        scores, logits = bench.validate()
        self.display.validation_seconds = time.perf_counter() - began
        # One line of history.jsonl; `lr` is the body's, of the step that was just taken, and losses are means over rows.
        entry = {
            "step": state.step,
            "epoch": state.step / bench.steps_per_epoch,
            "train_loss": state.taken_loss(),
            "validation_loss": scores["loss"],
            "scores": scores,
            "lr": bench.rate(max(0, state.step - 1)) * bench.optimizer.lr,
            "seconds": self.seconds(),
        }
        metric = bench.judged_by
        # Better than all before, in the direction of the metric: losses fall, most scores rise; of ties the lowest loss.
        earlier = [e["scores"] for e in state.history if e["step"] > 0 or bench.starts_trained]
        if all(improves(metric, scores, each) for each in earlier):
            # Copies of the selected values alone: nothing else can differ at the best step.
            self.best.update(bench.optimizer.values())
            self.best_logits = logits
            state.best_step, state.since_best = state.step, 0
        else:
            state.since_best += 1
        state.history.append(entry)
        self.display.validated(state)

    def save(self) -> None:
        """Writes history and checkpoint, where there is a folder."""
        # Every rank holds the same values, so one file is enough.
        if self.folder is not None and self.bench.ranks.is_first:
            self.state.seconds, self.saved_at = self.seconds(), time.perf_counter()
            optimizer = self.bench.optimizer
            # With their positions, since elements that a measurement chose may be others when it is made again.
            positions = {
                name: torch.from_numpy(at) for name, at in self.bench.selection.elements.items() if at is not None
            }
            groups = {
                "value": optimizer.values(), "moment": optimizer.moments(), "best": self.best, "position": positions
            }  # fmt: skip
            try:
                write_history(self.folder, self.state.history)
                save_checkpoint(self.folder, self.identity, self.state, groups)
            except InputError as error:  # a full disk may have room again when the delta, which is smaller, is written
                self.display.warn(f"no checkpoint: {error}")


def _sit_down(bench: Workbench, folder: Path | None, resume: bool, display: Display, started: float) -> _Sitting:
    """A fresh start, or the state in `folder`'s checkpoint put back into the workbench.

    Raises InputError where the checkpoint is damaged or belongs to another run.
    """
    identity = bench.identity()
    # A checkpoint of other data, settings or weights is refused in there: its moments would fit no longer.
    wanted = folder if resume and bench.ranks.is_first else None
    found = bench.ranks.agreed(None if wanted is None else load_checkpoint(wanted, identity))  # one disk is enough
    if found is None:
        return _Sitting(
            bench,
            Progress(
                compute=bench.compute,
                tokens_per_batch=bench.memory.tokens,
                threads=torch.get_num_threads(),
            ),
            {},
            identity,
            folder,
            display,
            started,
        )
    state, tensors = found
    # As it began, even where this machine would now choose otherwise: all three decide how sums are rounded.
    torch.set_num_threads(state.threads)
    elements = {
        name: tensors["position"][name].numpy() if name in tensors["position"] else None for name in tensors["value"]
    }
    # But not where less is asked for now: the memory may not have held what it began with.
    stated = bench.settings.tokens_per_batch
    if stated and stated != state.tokens_per_batch:
        display.warn(
            f"it goes on with {stated:,} tokens at a time, where it began with {state.tokens_per_batch:,}: rounding, and which "
            "row has which noise, are no longer those of an uninterrupted run"
        )
        state.tokens_per_batch = stated
    bench.use(cast(Compute, state.compute), state.tokens_per_batch, elements)
    # In this order: `use` may have made a new optimizer, whose state is then empty.
    bench.optimizer.restore(tensors["value"])
    bench.optimizer.restore_moments(tensors["moment"])
    return _Sitting(bench, state, dict(tensors["best"]), identity, folder, display, started - state.seconds)


@contextmanager
def _interruptible(worth_keeping: Callable[[], bool], say: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, which it says; a second Ctrl-C, or one with nothing worth keeping, interrupts at once."""
    stop = threading.Event()
    # Python lets only the main thread handle signals; a fit elsewhere ends with its process.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_interrupt(signum: int, frame: object) -> None:
        if stop.is_set() or not worth_keeping():
            raise KeyboardInterrupt
        stop.set()
        say()

    # Whatever Ctrl-C did before, it does again behind the block.
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        # None: it was not set from Python, and cannot be set again from there.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
