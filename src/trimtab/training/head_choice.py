"""Which head, and which form of a pair, a fit has where that is left to the data: the better cross-validated probe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..encoders.choices import AUTO, Compute
from ..encoders.encoder import Encoder
from ..encoders.inputs import Inputs
from ..engine import prepare
from ..errors import InputError
from ..results.recipe import Settings
from ..tasks.holdout import limited
from ..tasks.losses import TaskLoss, label_tensor
from ..tasks.task import Task
from .frozen_prefix import MOST_TOKENS
from .linear_probe import fitted_probe, head_inputs
from .ranks import device

FEW_ROWS = 1000  # up to which an encoder's heads are compared; and of more rows of pairs, those that their forms are compared on


@dataclass(frozen=True)
class Form:
    """The head of a fit and its form of pairs, and why."""

    head: str
    pairs: str
    reason: str  # in plain words


def chosen_form(encoder: Encoder, task: Task, loss: TaskLoss, settings: Settings, compute: Compute) -> Form:
    """The Form that `settings` name; where they say "auto", what suits the encoder, or the rows where they can tell.

    Heads are compared where nothing says how the encoder was pooled and rows are few; the forms of a pair always. Compared is the
    loss of linear probes on rows they were not fitted on. Raises InputError where the encoder has no such head.
    """
    is_pair = len(task.text_columns) > 1
    if settings.pairs == "apart" and not is_pair:
        raise InputError(f"--pairs apart needs two text columns, and task {task.name!r} has one")
    suited = encoder.suited_for(task, settings.head_start) if settings.head == AUTO else encoder.suited_head
    # A head that has learned these very classes needs no comparing.
    if settings.head == AUTO and settings.pairs != "apart" and suited is not encoder.suited_head:
        return Form("default", "together", f"head: {suited.reason}")
    heads, why = [settings.head], "as asked for (--head)"
    if settings.head == AUTO:
        heads, why = [suited.head], suited.reason
        if len(task.train) <= FEW_ROWS:
            heads += suited.others
    ours = [head for head in heads if head != "default"] or (["linear"] if settings.head == AUTO else [])
    forms = [(head, "together") for head in heads] if settings.pairs != "apart" else []
    if is_pair and settings.pairs in (AUTO, "apart"):
        forms += [(head, "apart") for head in ours]
    if len(forms) == 1:
        head, pairs = forms[0]
        return Form(
            head, pairs, f"head: {why if head == heads[0] else 'one linear map on the mean of its token states'}"
        )
    return _better(encoder, limited(task, FEW_ROWS, seed=0), loss, forms, settings, compute)


def _better(
    encoder: Encoder, task: Task, loss: TaskLoss, forms: list[tuple[str, str]], settings: Settings, compute: Compute
) -> Form:
    """The form whose probe has the least loss on held-out folds of the training rows of `task`."""
    losses: dict[tuple[str, str], float] = {}
    inputs: dict[str, Inputs] = {}
    for head, pairs in forms:
        if pairs not in inputs:
            max_length = min(settings.max_length, encoder.max_length)
            inputs[pairs] = encoder.inputs(
                task.train.texts, max_length, apart=pairs == "apart", most_bytes=settings.cache_bytes
            )
        try:
            losses[head, pairs] = _probe_loss(encoder, task, inputs[pairs], loss, head, pairs, settings, compute)
        except InputError:  # of a form that the encoder cannot take; where it can take none, the fit will say why
            continue
    known = {form: found for form, found in losses.items() if not math.isnan(found)}
    if not known:
        head, pairs = forms[0]
        return Form(head, pairs, f"head: {head}, since these rows are too few to compare heads")
    best = min(known, key=known.__getitem__)
    compared = ", ".join(
        f"{_named(form, forms)} {found:.3g}" for form, found in sorted(known.items(), key=lambda item: item[1])
    )
    return Form(
        *best,
        f"head: {_named(best, forms)}, by the cross-validated loss of a linear probe on {len(task.train):,} rows ({compared})",
    )


def _named(form: tuple[str, str], forms: list[tuple[str, str]]) -> str:
    """The form, as far as it differs from others that were compared."""
    head, pairs = form
    parts = [head] if len({each for each, _ in forms}) > 1 else []
    parts += [f"pairs {pairs}"] if len({each for _, each in forms}) > 1 else []
    return " with ".join(parts)


def _probe_loss(
    encoder: Encoder, task: Task, inputs: Inputs, loss: TaskLoss, head: str, pairs: str, settings: Settings, compute: Compute
) -> float:  # fmt: skip
    """The cross-validated loss of a probe; NaN where the form has none."""
    model = encoder.with_head(task, 0, head, 0.0, pairs, settings.head_start).to(device()).eval().requires_grad_(False)
    inputs.check(model)
    with prepare(model, compute) as prepared:
        features = head_inputs(prepared, inputs, MOST_TOKENS)
    if features is None:
        return float("nan")
    return fitted_probe(features, label_tensor(task, task.train), loss, task.n_outputs).loss
