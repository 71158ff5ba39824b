"""Setting a run up: from an encoder, a task, a method and settings to the workbench that training works with."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..changes.contract import Method, trial_of
from ..changes.selection import Selection
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder, limit_note
from ..encoders.unknown_tokens import empty_rows, lowered_note, unknown_tokens
from ..engine import on_own_stream, prepare, resolved
from ..errors import InputError, counted, shortened
from ..process_memory import forget_peak, give_back, private_bytes, resident_bytes
from ..results.recipe import Settings
from ..tasks.holdout import limited
from ..tasks.losses import TaskLoss, label_tensor, task_loss
from ..tasks.task import Rows, Task
from .asked import with_rule
from .batches import Examples
from .head_choice import Form, chosen_form
from .head_start import has_probe, is_last_map, started
from .linear_probe import can_start, write_constant
from .memory_estimate import estimated
from .optimizer import SelectedAdamW
from .ranks import ALONE, Ranks, device
from .selecting import chosen_before, chosen_by
from .start_from import Start
from .workbench import Workbench


@on_own_stream
def set_up(
    encoder: Encoder, task: Task, method: Method, settings: Settings, ranks: Ranks = ALONE,
    began_with: Mapping[str, np.ndarray | None] | None = None, begun: Start | None = None,
) -> Workbench:  # fmt: skip
    """The Workbench of a run; `began_with` are the elements of one that goes on, which the method need not choose again.

    `begun` is the run that it starts from.

    Raises InputError when the parts do not fit together.
    """
    process, private = _held_before(encoder)
    check_rows(task)
    task = with_rule(task, settings)
    if settings.train_limit is not None:
        task = limited(task, settings.train_limit, settings.seed)
    # After the limit, because few rows get more epochs.
    settings = settings.for_method(method, len(task.train), encoder.config.hidden_size)
    loss = task_loss(task, settings.class_weights, settings.label_smoothing).to(device())
    # Timed, and so perhaps not the same on every rank.
    compute = ranks.agreed(resolved(cast(Compute, settings.compute), device()))
    if begun is not None:
        began_with = begun.elements
    form = _form(encoder, task, method, settings, loss, compute, ranks, begun)
    settings = replace(settings, head=form.head, pairs=form.pairs)
    asked = settings.max_length
    max_length = min(asked, encoder.max_length)
    (train, _, train_lines, unknown), (validation, validation_rows, validation_lines, _) = (
        _read(encoder, task, split, max_length, settings) for split in ("train", "validation")
    )
    model, form = _with_head(encoder, task, settings, form, begun)
    for examples in (train, validation):
        examples.inputs.check(model)
    start = None
    probes = settings.head_start == "probe" and can_start(model)
    # A method that measures sees the head that training will start from.
    if trial_of(method) and began_with is None and probes:
        start = started(encoder, model, train, loss, compute, settings, ranks)
    began = time.perf_counter()
    if began_with is None:
        selection, additions = chosen_by(method, model, train, loss, settings, compute)
    else:
        selection, additions = chosen_before(method, model, began_with, settings)
    choosing_seconds = time.perf_counter() - began
    # A choice that was measured may differ in an element between two machines, and gradients are added up by position.
    selection = Selection(selection.parts, ranks.agreed(dict(selection.elements)))
    solves = start is None and probes and is_last_map(model, selection) and has_probe(model, train, loss, compute)
    if begun is not None:
        begun.write_into(model, task, train, loss, compute, settings, ranks)
    elif start is None and probes and not solves:
        start = started(encoder, model, train, loss, compute, settings, ranks)
    assert settings.lr is not None
    assert settings.head_lr is not None
    prepared = prepare(model.eval(), compute)
    optimizer = SelectedAdamW(model, selection, settings.lr, settings.head_lr, settings.weight_decay, prepared)
    if solves and begun is None:
        assert train.labels is not None
        write_constant(model, train.labels, loss)
    memory = estimated(prepared, optimizer, train.inputs, settings.tokens_per_batch, process)
    give_back()  # what the estimate's own pass took
    memory = replace(memory, tokens=ranks.agreed(memory.tokens))
    bench = Workbench(
        encoder, task, method, settings, prepared, selection, optimizer, loss,
        train, validation, validation_rows, max_length, compute, memory, ranks, private, choosing_seconds, form, solves, start,
        token_lines=limit_note(encoder, asked) + lowered_note(encoder.tokenizer) + train_lines + validation_lines
        + (begun.lines(task, settings) if begun else []),
        unknown_share=unknown, begun=begun, additions=additions,
    )  # fmt: skip
    bench.memory = replace(memory, mapped=bench.prefix_bytes())
    return bench


def _held_before(encoder: Encoder) -> tuple[int, int]:
    """Bytes that the process holds before the model, and those of them that it shares with no file.

    What is there counts as the process's own, so that the estimate adds up to what is seen; but for the weights that the encoder
    keeps, which are counted with the model.
    """
    # Free memory that an earlier fit of this process has left goes back to the system, and the peak counts from here.
    kept = encoder.give_back()
    give_back()
    forget_peak()
    return resident_bytes() - kept, private_bytes() - kept


def _read(
    encoder: Encoder, task: Task, split: str, max_length: int, settings: Settings
) -> tuple[Examples, Rows, list[str], float]:
    """The examples of a split, their rows, what is to be said of them beside what is cut, and the share of unknown tokens.

    A row of which only special tokens are left is an empty text: raises InputError for such rows, or leaves them out where the
    task's reading says so.
    """
    rows, tokenizer = task.splits[split], encoder.tokenizer
    inputs = encoder.inputs(rows.texts, max_length, apart=settings.pairs == "apart", most_bytes=settings.cache_bytes)
    gone, lines = empty_rows(inputs, rows.texts, tokenizer), []
    if gone:
        some = shortened([repr(rows.texts[0][i][:20]) for i in gone], 3)
        what = (
            f"{split}: {counted(len(gone), 'row')} of which the tokenizer leaves nothing, as of an empty text ({some})"
        )
        if not task.reading.skip_bad_rows or len(gone) == len(rows):
            raise InputError(f"task {task.name!r}, {what}: write them otherwise, or leave them out (--skip-bad-rows)")
        kept = sorted({*range(len(rows))} - {*gone})
        inputs, rows = inputs.subset(kept), rows.take(kept)
        lines.append(f"left out of {what}")
    unknown = unknown_tokens(inputs, rows.texts, tokenizer)
    return Examples(inputs, label_tensor(task, rows)), rows, lines + unknown.lines(split), unknown.share


def _form(
    encoder: Encoder, task: Task, method: Method, settings: Settings, loss: TaskLoss, compute: Compute, ranks: Ranks,
    begun: Start | None,
) -> Form:  # fmt: skip
    """The head and the form of pairs: as the settings say, as suits the rows, or those of the run that this one starts from."""
    if begun is not None:
        return begun.form(encoder, task, method, settings)
    with ranks.first_alone():  # what it computes is then in the cache
        form = chosen_form(encoder, task, loss, settings, compute)
    return ranks.agreed(form)


def _with_head(encoder: Encoder, task: Task, settings: Settings, form: Form, begun: Start | None) -> tuple[Any, Form]:
    """The model with its head on its device, and the form with what is to be said of the head that the checkpoint brings."""
    model = encoder.with_head(
        task, settings.seed, settings.head, settings.dropout, settings.pairs, settings.head_start
    ).to(device())
    said = model.head_note if begun is None else ""  # whose head takes its place
    return model, replace(form, reason=f"{form.reason}; {said}") if said else form


_WANTED = {
    "train": ": there is nothing to learn from",
    "validation": ", by which the best step is chosen and judged: hold some out (without --validation 0, or validation_share=0, "
    "a tenth is) or name a file of them (--validation FILE)",
}


def check_rows(task: Task) -> None:
    """Raises InputError unless there are training and validation rows, all of them with labels."""
    for split in ("train", "validation"):
        rows = task.splits.get(split)
        if rows is None or len(rows) == 0:
            raise InputError(f"task {task.name!r} has no {split} rows{_WANTED[split]}")
        if any(label is None for label in rows.labels):
            raise InputError(f"task {task.name!r} has {split} rows without a label: training needs them all")
