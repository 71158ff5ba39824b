"""The Fisher information of a task, measured on some of its training rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..changes.choices import check_estimator
from ..changes.contract import Method, Trial, add_and_select
from ..changes.fisher import Fisher, Meter
from ..changes.method_text import method_of, method_text
from ..changes.methods import LayerNorms
from ..changes.trial_training import head_started
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder, encoder_of
from ..engine import resolved
from ..errors import InputError, counted
from ..randomness import generator, seeded, stream_seed
from ..results.recipe import LEAST_LENGTH, Settings
from ..tasks.losses import label_tensor, task_loss
from ..tasks.read import task_of
from ..tasks.task import Task
from ..training.batches import Batch, Examples, token_groups
from ..training.head_choice import Form, chosen_form
from ..training.head_start import started
from ..training.linear_probe import can_start
from ..training.ranks import device

TOKENS_PER_BATCH = 4096  # tokens in one forward pass
HEAD_BATCH = 32  # texts per step while the head is trained


def fisher(
    encoder: Encoder | str | Path, task: Any, method: Method | str | None = None, *, examples: int = 1024,
    estimator: str = "empirical",
    seed: int = 0, head_steps: int = 0, head: str = "auto", pairs: str = "auto",
    head_start: str = "probe", max_length: int = 256, compute: str = "float32", at_least: int = 0, progress: bool = False,
) -> Fisher:  # fmt: skip
    """The diagonal Fisher information of the elements that `method` names (LayerNorms() by default), as float32.

    Each may be given by its name or text.
    `info.values[name]` is the mean over `examples` training rows, drawn by `seed`, of the squared gradient of each row's plain
    loss (no class weights, no label smoothing: see changes/fisher.py), in evaluation mode; `estimator` says which labels.
    The head is one that `fit` could start from with this seed (a linear probe of the rows that are measured, or drawn where
    `head_start` is "random" or they have no labels), after `head_steps` steps of training it alone. `compute`
    "auto" is faster, and right to about 1% of an element. Raises InputError for a task without labels, an unknown
    estimator, gradients that are not numbers, or fewer than `at_least` elements of the encoder to measure.
    """
    if examples < 1 or head_steps < 0:
        raise InputError(f"examples={examples} must be at least 1 and head_steps={head_steps} at least 0")
    if max_length < LEAST_LENGTH:
        raise InputError(f"max_length={max_length} must be at least {LEAST_LENGTH}")
    settings = Settings(
        head=head,
        pairs=pairs,
        head_start=head_start,
        max_length=max_length,
        compute=compute,
        tokens_per_batch=TOKENS_PER_BATCH,
    )
    check_estimator(estimator)
    method = LayerNorms() if method is None else method_of(method)
    task = task_of(task)
    encoder = encoder_of(encoder)
    # Labels that are drawn or summed over need none in the data.
    rows = _rows(task, examples, seed, labelled=estimator == "empirical" or head_steps > 0)
    labelled = all(label is not None for label in (task.train.labels[i] for i in rows))
    loss = task_loss(task).to(device())
    arithmetic = resolved(cast(Compute, compute), device())
    # What a fit would choose, but by labels, where there are none.
    asked = settings if labelled else replace(settings, pairs="together" if pairs == "auto" else pairs)
    form = (
        chosen_form(encoder, task, loss, asked, arithmetic)
        if labelled or asked.head != "auto"
        else _suited(encoder, asked)
    )
    # Cut as a fit cuts them: at most to what the encoder can take.
    some = task.train.take(rows.tolist())
    inputs = encoder.inputs(some.texts, min(max_length, encoder.max_length), apart=form.pairs == "apart")
    measured = Examples(inputs, label_tensor(task, some) if labelled else None)
    # The head and the method's own draws are those of a fit with this seed: what is measured is what training starts from.
    model = encoder.with_head(task, seed, form.head, pairs=form.pairs, start=head_start).to(device())
    inputs.check(model)
    if labelled and head_start == "probe" and can_start(model):
        started(encoder, model, measured, loss, arithmetic, settings)
    batches = _batches(measured)
    with seeded(seed, "method"):
        within, _ = add_and_select(method, model, Trial(batches, loss, task.kind, compute=arithmetic))
    if within.backbone.count < at_least:
        raise InputError(
            f"{method_text(method)} names {within.backbone.count:,} parameters of the encoder, which is less than the "
            f"{at_least:,} to choose (--count)"
        )
    meter = Meter(model, within, task.kind, estimator, stream_seed(seed, "labels"))
    at_head = head_started(model, batches, loss, head_steps, TOKENS_PER_BATCH, arithmetic)
    with at_head, meter.measuring(arithmetic):
        _measure(meter, measured, shown=progress)
    # What it was measured with; the hash tells later whether an encoder is the same.
    notes = {
        "encoder": encoder.name, "revision": encoder.revision, "encoder_sha256": encoder.sha256, "task": task.name,
        "method": method_text(method), "head": form.head, "pairs": form.pairs, "head_start": head_start,
        "head_steps": head_steps, "seed": seed,
        "max_length": min(max_length, encoder.max_length), "compute": compute,
    }  # fmt: skip
    return meter.result(rows, notes)


def _suited(encoder: Encoder, settings: Settings) -> Form:
    """The form for rows without labels, which nothing can be compared on."""
    return Form(encoder.suited_head.head, settings.pairs, encoder.suited_head.reason)


def advice(info: Fisher) -> str:
    """In plain words: how far the ranking may be trusted."""
    rows, r = len(info.rows), info.stability
    if np.isnan(r):
        return f"measured on {counted(rows, 'row')}: too few parameters differ to say how stable their ranking is"
    word = "stable" if r >= 0.9 else "fairly stable" if r >= 0.7 else "not stable: measure on more rows (--examples)"
    return f"two halves of the {rows:,} rows rank the parameters that have information with a correlation of {r:.2f}: {word}"


def _rows(task: Task, examples: int, seed: int, *, labelled: bool) -> np.ndarray:
    """Numbers of the training rows to measure on, in random order."""
    if "train" not in task.splits or not len(task.train):
        raise InputError(f"task {task.name!r} has no training rows to measure on")
    if labelled and any(label is None for label in task.train.labels):
        raise InputError(
            f"task {task.name!r} has training rows without a label: use --estimator exact or sampled, without --head-steps"
        )
    # From a stream of its own: measuring takes no draws from a fit.
    return torch.randperm(len(task.train), generator=generator(seed, "fisher")).numpy()[:examples]


def _batches(examples: Examples) -> list[Batch]:
    """The rows as Batches of HEAD_BATCH texts, in the order in which they were drawn."""
    return [examples.take(range(i, min(i + HEAD_BATCH, len(examples)))) for i in range(0, len(examples), HEAD_BATCH)]


def _measure(meter: Meter, examples: Examples, shown: bool) -> None:
    """Adds all texts to the meter, under a bar on stderr where `shown` and there is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("[bold]Fisher information"), BarColumn(), TextColumn("{task.completed}/{task.total} texts"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not (shown and sys.stderr.isatty())) as bar:
        row = bar.add_task("", total=len(examples))
        # By length, for speed: each text's gradient is squared by itself, whatever its group.
        for group in token_groups(examples.lengths, range(len(examples)), TOKENS_PER_BATCH):
            meter.add(examples.take(group.tolist()))
            bar.update(row, completed=meter.count)
