"""The loop: train a change, validate, keep the best, stop when told; all that happens is yielded as an event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..changes.methods import Method
from ..results.checkpoint import Progress
from ..tasks.metrics import improves
from ..tasks.task import Task
from .workbench import Workbench

if TYPE_CHECKING:
    from .run import Run

CHECKPOINT_SECONDS = 60.0  # a killed run loses at most about this much work
EARLY, INTERRUPTED = "early", "interrupted"  # why a run has stopped: its patience was lost, or Ctrl-C was pressed


@dataclass(frozen=True, eq=False)
class Planned:
    """The first event, before anything is measured or set up."""

    task: Task  # with the rows that will be trained on
    method: Method | None  # None where what is trained was chosen by an earlier run


@dataclass(frozen=True, eq=False)
class Begun:
    """All is set up and nothing computed yet."""

    bench: Workbench = field(repr=False)
    step: int  # that it goes on from; 0 for a new run
    total_steps: int
    resume: bool  # whether a checkpoint was asked for
    since_best: int  # validations since the best one
    history: tuple[dict[str, Any], ...] = field(repr=False)  # of the validations so far, as history.jsonl has them


@dataclass(frozen=True)
class Cached:
    """What the frozen first layers make of the rows is being computed; before the first step, and for few methods."""

    rows: int  # done
    total: int


@dataclass(frozen=True)
class Step:
    """An optimizer step has been taken. On a GPU the losses, and the rows, are those until the step before."""

    step: int  # steps so far
    epoch: float  # epochs so far
    loss: float | None  # mean over the training rows since the last validation; None where it is not known yet
    rows: int  # training rows seen so far
    step_seconds: float  # spent in steps so far, without validations and whatever reads the events


@dataclass(frozen=True, eq=False)
class Validation:
    """The model as it is has been scored on the validation rows; the first time before training."""

    step: int
    epoch: float
    scores: dict[str, float]  # by metric, "loss" among them
    train_loss: float | None  # mean over the training rows since the last validation; None before training
    lr: float  # of the backbone, at the step that was just taken
    seconds: float  # of the run so far
    took_seconds: float  # of this validation
    is_best: bool  # so far, in the direction of the metric, ties by loss; its values are what is kept
    since_best: int  # validations since the best one; 0: this is it
    logits: Tensor = field(repr=False)  # (N, C) of the validation rows, on the CPU

    @property
    def loss(self) -> float:
        """The mean loss over the validation rows."""
        return self.scores["loss"]

    def entry(self) -> dict[str, Any]:
        """Its line of history.jsonl; losses are means over rows."""
        return {
            "step": self.step, "epoch": self.epoch, "train_loss": self.train_loss, "validation_loss": self.loss,
            "scores": self.scores, "lr": self.lr, "seconds": self.seconds,
        }  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of this step lies in the run folder; only for runs that have one."""

    step: int


@dataclass(frozen=True)
class Warned:
    """Something went wrong that does not end the run."""

    text: str


@dataclass(frozen=True, eq=False)
class Finished:
    """The last event: the best values are restored, and all is saved."""

    run: Run


Event = Planned | Begun | Cached | Step | Validation | Checkpoint | Warned | Finished


@dataclass
class Sitting:
    """One uninterrupted stretch of a run: iterated over once, it trains on from `state` and yields what happens.

    Whoever reads the events holds the loop still meanwhile: the model is as it was when the event was made.
    """

    bench: Workbench
    state: Progress
    best: dict[str, Tensor]  # selected values at the best validation so far
    keeps: bool  # whether checkpoints are wanted
    started: float = field(default_factory=time.perf_counter)  # moved back by the seconds of earlier sittings
    best_logits: Tensor | None = None  # (N, C) of the best validation, where it was in this sitting
    stopped: str | None = None  # why there were fewer steps than planned; None for a run that went to its end
    is_training: bool = False  # whether steps have been taken, and more are to come: a stop would keep something
    _asked: str | None = None  # why it is to stop
    _saved_at: float = field(default_factory=time.perf_counter)  # the last checkpoint, or the sitting's begin

    def stop(self, why: str) -> None:
        """Takes no further step; of several reasons the first counts, and any before Ctrl-C."""
        if self._asked in (None, INTERRUPTED):
            self._asked = why

    def seconds(self) -> float:
        """Of the run so far, over all sittings."""
        return time.perf_counter() - self.started

    def __iter__(self) -> Iterator[Cached | Step | Validation | Checkpoint]:
        bench, state = self.bench, self.state
        self.is_training = state.step > 0
        # What frozen first layers make of every row, where that is worth keeping; nothing to do for most methods.
        for rows, total in bench.cache_prefixes():
            yield Cached(rows, total)
            if self._asked is not None:
                break
        # The score before training, which everything after is compared with. A resumed run has it already.
        if not state.history:
            yield self._validated()
        while state.step < bench.total_steps:
            # Asked of all ranks, because Ctrl-C may reach only one of them and clocks differ: whatever one of them did alone, the
            # others would wait for forever.
            stopping, saving = bench.ranks.total(self._asked is not None, self._checkpoint_due())
            if stopping:
                yield from self._broken_off()
                break
            if saving:
                self._settle()
                yield self._checkpoint()
            yield self._stepped()
            if bench.validation_due(state.step):
                self._settle()
                yield self._validated()
                if self.keeps:
                    yield self._checkpoint()
        self.is_training = False

    def _broken_off(self) -> Iterator[Validation | Checkpoint]:
        """Judges the steps since the last validation; all ranks then know why it stopped, whichever of them was told to."""
        self.stopped = self.bench.ranks.first_given(self._asked)
        self._settle()
        # Before judging, so that a resumed run does not know of it and goes on to the same bits.
        if self.keeps and self.stopped == INTERRUPTED:
            yield self._checkpoint()
        if self.state.loss_rows:
            yield self._validated()

    def _stepped(self) -> Step:
        """Takes a step."""
        bench, state, began = self.bench, self.state, time.perf_counter()
        told = bench.train_step(state.step)
        state.step += 1
        self.is_training = True
        state.count_losses(*told, time.perf_counter() - began)
        loss = state.loss_sum / state.loss_rows if state.loss_rows else None
        return Step(state.step, state.step / bench.steps_per_epoch, loss, state.rows, state.step_seconds)

    def _checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint between validations, as the rank that writes it sees it."""
        # There is nothing to keep before the first step.
        late = time.perf_counter() - self._saved_at > CHECKPOINT_SECONDS
        return self.keeps and late and self.state.step > 0 and self.bench.ranks.is_first

    def _checkpoint(self) -> Checkpoint:
        """The state is to be kept now; the losses are settled."""
        self.state.seconds, self._saved_at = self.seconds(), time.perf_counter()
        return Checkpoint(self.state.step)

    def _settle(self) -> None:
        """Counts the losses of steps that a GPU was still busy with: what is judged or saved then is known to be sound."""
        began = time.perf_counter()
        self.state.count_losses(*self.bench.losses(), time.perf_counter() - began)

    def _validated(self) -> Validation:
        """Scores the model as it is, notes it in the history, and keeps its values where they are the best so far.

        A start that is a linear probe is as good a model as any; one that was drawn is kept only until the first validation
        after it.
        """
        bench, state, began = self.bench, self.state, time.perf_counter()
        scores, logits = bench.validate()
        took = time.perf_counter() - began
        # Better than all before, in the direction of the metric: losses fall, most scores rise; of ties the lowest loss.
        earlier = [e["scores"] for e in state.history if e["step"] > 0 or bench.starts_trained]
        is_best = all(improves(bench.judged_by, scores, each) for each in earlier)
        if is_best:
            # Copies of the selected values alone: nothing else can differ at the best step.
            self.best.update(bench.optimizer.values())
            self.best_logits = logits
            state.best_step, state.since_best = state.step, 0
        else:
            state.since_best += 1
        made = Validation(
            state.step, state.step / bench.steps_per_epoch, scores, state.taken_loss(),
            bench.rate(max(0, state.step - 1)) * bench.optimizer.lr, self.seconds(), took, is_best, state.since_best, logits,
        )  # fmt: skip
        state.history.append(made.entry())
        return made
