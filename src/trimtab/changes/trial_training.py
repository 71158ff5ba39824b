"""A few steps of training some parameters, to learn something from it, after which they can be put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead, rate_factors
from ..encoders.parameter_kinds import parts_of
from ..encoders.weights import own
from ..engine import prepare

HEAD_LR = 1e-2  # of AdamW, while the head is trained before measuring
CLIP = 1.0  # most that the norm of all gradients together may be


def train_briefly(
    model: ModelWithHead, rates: Mapping[str, float], batches: Iterable[Any], loss: Any, steps: int,
    stepping: Callable[[Callable[[], None]], None] = lambda step: step(), most_tokens: int | None = None,
    compute: Compute = "auto",
) -> None:  # fmt: skip
    """Runs `steps` steps of AdamW, one batch each, on the parameters that `rates` names, each at its constant rate.

    (That of a regression's last map in the unit of its labels: `rate_factors`.) Without dropout and weight decay. A batch is run
    in pieces of at most `most_tokens` tokens, whose gradients add up. Gradients
    are there, as backward made them, when `stepping` is called with what clips them and changes the parameters. The model
    is left in the mode it was in, with the new values.
    """
    # Whoever calls may have decided already what is trained: that is restored below.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training, parameters = model.training, dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in rates)
        if name in rates:
            own(parameter)
    # A group for each, because rates differ by parameter.
    factors = rate_factors(model)
    groups = [{"params": [parameters[name]], "lr": rate * factors.get(name, 1.0)} for name, rate in rates.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def step() -> None:
        """Clips all gradients together, those of a regression's last map standardised, and changes the parameters."""
        for name in factors.keys() & rates.keys():
            gradient = parameters[name].grad
            assert gradient is not None
            gradient.mul_(factors[name])
        nn.utils.clip_grad_norm_([parameters[name] for name in rates], CLIP)
        optimizer.step()

    try:
        # No dropout: a measurement should not depend on its masks.
        model.eval()
        with prepare(model, compute) as prepared:
            # From the first batch again, where there are fewer than steps.
            for batch in islice(cycle(batches), steps):
                for piece in prepared.pieces(batch, most_tokens):
                    logits = prepared.observed(piece.inputs).logits()
                    # Of the batch's mean: a piece counts by its rows.
                    (loss(logits, piece.labels.to(logits.device)) * (len(piece) / len(batch))).backward()
                stepping(step)
                # Here and not in `step`, behind which `stepping` may still read the gradients.
                optimizer.zero_grad()
    finally:
        model.train(training)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def put_back(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Behind the block the parameters have the values that they had before it, which it is given."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in names}
    for name in before:
        own(parameters[name])
    try:
        yield before
    finally:
        # In place, so that they stay the tensors that others hold; behind an error too.
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)


@contextmanager
def head_started(
    model: ModelWithHead,
    batches: Iterable[Any],
    loss: Any,
    steps: int,
    most_tokens: int | None = None,
    compute: Compute = "auto",
) -> Iterator[None]:
    """Within the block the head is that after `steps` steps of training it alone; then it is as it was."""
    rates = {name: HEAD_LR for name, part in parts_of(model).items() if part.is_head}
    with put_back(model, rates):
        if steps:
            train_briefly(model, rates, batches, loss, steps, most_tokens=most_tokens, compute=compute)
        yield
