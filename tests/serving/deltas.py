"""Deltas of every method without a fit: what it selects is moved at random."""

from typing import Any

import torch

from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.method_text import parse_method
from trimtab.changes.selection import Selection
from trimtab.encoders.encoder import Encoder
from trimtab.encoders.weights import own_all
from trimtab.tasks.task import Task


def make_delta(
    encoder: Encoder, task: Task, method: Any, seed: int = 0, *, head: str = "linear", pairs: str = "together",
    max_length: int = 32,
) -> Delta:  # fmt: skip
    """A Delta as a fit of `method` would leave it, with values that are far enough from the encoder's to show."""
    method = parse_method(method) if isinstance(method, str) else method
    model = encoder.with_head(task, head=head, pairs=pairs)
    own_all(model)
    torch.manual_seed(seed)
    selection, additions = add_and_select(method, model)
    selection = selection | Selection.where(selection.parts, lambda name, part: part.is_head)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, at in selection.elements.items():
            parameter = parameters[name]
            moved = parameter + 0.3 * torch.randn_like(parameter)
            if at is None:
                parameter.copy_(moved)
            else:
                where = torch.from_numpy(at).long()
                parameter.view(-1)[where] = moved.flatten()[where]
    return Delta.extract(
        model, selection, encoder, task.description(), method, additions=additions, head=head, pairs=pairs,
        max_length=max_length,
    )  # fmt: skip
