"""Methods that choose by measurement: the most informative elements, or a selection that was saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, ClassVar

import torch
from torch import nn

from ..encoders.observed import Texts
from ..encoders.packed import prepare, restore
from ..encoders.parts import parts_of
from ..errors import InputError
from .fisher import Meter
from .methods import Defaults, LayerNorms, Loss, Method, defaults_of_subset
from .selection import Selection

HEAD_LR = 1e-2  # of AdamW, while the head is trained before measuring


@dataclass(frozen=True)
class FisherTop:
    """The elements with the most Fisher information for the task (arXiv 2111.09839; inside LayerNorm: arXiv 2403.20284).

    By `share` or `count` of another method's elements, measured on the first `examples` training rows of the shuffled order, with
    the head as initialised or after `head_steps` steps of training it alone. `granularity`: single elements, or whole
    vectors.
    """

    share: float | None = None
    count: int | None = None
    estimator: str = "empirical"
    examples: int = 1024
    head_steps: int = 0
    granularity: str = "element"
    within: Method | None = None  # LayerNorms() where it is None

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within or LayerNorms())

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        within = (self.within or LayerNorms()).attach(model, batches, loss).body
        kind = getattr(loss, "kind", None)
        if kind is None:
            raise InputError("fisher_top measures on a task, so it needs batches and the task's loss")
        needed = list(_first(batches, self.examples))
        if not needed:
            raise InputError("fisher_top has no rows to measure on")
        seed = int(torch.randint(2**62, (), dtype=torch.int64))
        meter = Meter(model, within, kind, self.estimator, seed)
        with head_started(model, needed, loss, self.head_steps), meter.measuring("auto"):
            for batch in needed:
                meter.add(batch)
        return meter.result().top(self.share, self.count, self.granularity)


@dataclass(frozen=True)
class Chosen:
    """The selection saved in `file`, such as a global subset; written `selection:file=PATH`."""

    file: str = ""
    defaults: ClassVar[Defaults] = LayerNorms.defaults

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        if not self.file:
            raise InputError("selection needs a file: selection:file=PATH")
        return Selection.load(self.file, parts_of(model))


@contextmanager
def head_started(model: Any, batches: list[Any], loss: Any, steps: int) -> Iterator[None]:
    """Within the block the head is that after `steps` of AdamW on it alone, one batch each; then it is as it was."""
    head = {name: p for name, p in model.named_parameters() if parts_of(model)[name].is_head}
    before = {name: parameter.detach().clone() for name, parameter in head.items()}
    if steps:
        _train_head(model, list(head.values()), batches, loss, steps)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in head.items():
                parameter.copy_(before[name])


def _train_head(model: Any, head: list[nn.Parameter], batches: list[Any], loss: Any, steps: int) -> None:
    """Without dropout, at a constant rate."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = model.training
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in head:
        parameter.requires_grad_(True)
    model.eval()
    prepare(model, compute="auto")
    optimizer = torch.optim.AdamW(head, lr=HEAD_LR)
    try:
        for batch in islice(cycle(batches), steps):
            logits = Texts(model, batch.ids, batch.type_ids).logits()
            loss(logits, batch.labels.to(logits.device)).backward()
            optimizer.step()
            optimizer.zero_grad()
    finally:
        restore(model)
        model.train(training)
        for parameter in head:
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


def _first(batches: Iterable[Any], examples: int) -> Iterator[Any]:
    """Whole batches until there are at least `examples` texts."""
    count = 0
    for batch in batches:
        yield batch
        count += len(batch.ids)
        if count >= examples:
            return
