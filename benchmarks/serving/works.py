"""What is served in the measurements of this folder: an encoder, tasks made without a fit, and who asks for which text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trimtab
from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.method_text import parse_method
from trimtab.changes.selection import Selection
from trimtab.encoders.encoder import Encoder
from trimtab.encoders.weights import own_all
from trimtab.engine import LowRank, MixedModel, TaskChange
from trimtab.tasks.task import Task

HEAD, MAX_LENGTH = "linear", 256
MOVED = 0.05  # standard deviation of what is added to an element of the backbone, and 0.3 to one of the head


@dataclass(frozen=True)
class Draw:
    """A batch: which text goes to which task."""

    texts: list[int]
    tasks: list[int]

    @property
    def by_task(self) -> dict[int, list[int]]:
        """The places in the batch of each task's texts."""
        found: dict[int, list[int]] = {}
        for place, task in enumerate(self.tasks):
            found.setdefault(task, []).append(place)
        return found


class Work:
    """The encoder and the texts, with which all contestants work."""

    def __init__(self, data: Path, n_tasks: int, most_texts: int | None = None):
        self.encoder: Encoder = trimtab.load("minilm")
        self.task: Task = trimtab.read(data / "sst2")
        self.texts: Sequence[str] = self.task.validation.texts[0][:most_texts]
        self.inputs = self.encoder.inputs((self.texts,), MAX_LENGTH)
        self.n_tasks = n_tasks

    def draws(self, size: int, n: int, seed: int = 0) -> list[Draw]:
        """`n` batches of `size` different texts; the task of rank k is asked 1 / k times as often as the first (Zipf 1)."""
        drawn = np.random.default_rng(seed)
        shares = 1 / np.arange(1, self.n_tasks + 1)
        shares /= shares.sum()
        return [
            Draw(
                drawn.choice(len(self.texts), size, replace=False).tolist(),
                drawn.choice(self.n_tasks, size, p=shares).tolist(),
            )
            for _ in range(n)
        ]

    def model(self) -> Any:
        """A plain model with a head, whose parameters are its own: it may be written into."""
        model = self.encoder.with_head(self.task, head=HEAD)
        own_all(model)
        return model.eval()

    def deltas(self, method_text: str, n: int | None = None, *, anew: bool = False) -> Iterator[Delta]:
        """As fits of the method would leave them, for `n` tasks or all: what is selected is moved a little at random.

        Where positions are drawn by the method, all have the same ones, unless it is to draw them `anew`.
        """
        first = self._delta(method_text, 0)
        torch.manual_seed(1)
        parameters = dict(self.model().named_parameters())
        for _ in range(self.n_tasks if n is None else n):
            own = _drawn_anew(first, parameters) if anew else first
            yield replace(own, values={name: _moved(name, value) for name, value in own.values.items()})

    def _delta(self, method_text: str, seed: int) -> Delta:
        method, model = parse_method(method_text), self.model()
        torch.manual_seed(seed)
        selection, additions = add_and_select(method, model)
        selection = selection | Selection.where(selection.parts, lambda name, part: part.is_head)
        return Delta.extract(
            model, selection, self.encoder, self.task.description(), method, additions=additions, head=HEAD,
            max_length=MAX_LENGTH,
        )  # fmt: skip


def _drawn_anew(delta: Delta, parameters: dict[str, Any]) -> Delta:
    """`delta` at other positions, of each parameter about as many: the method itself would take a second to draw them."""
    values, positions = dict(delta.values), {}
    for name, at in delta.positions.items():
        whole = parameters[name].detach().flatten()
        n = max(1, int(torch.poisson(torch.tensor(float(len(at))))))
        positions[name] = torch.randint(len(whole), (n,)).unique().int()
        values[name] = whole[positions[name].long()]
    count = delta.count_body + sum(map(len, positions.values())) - sum(map(len, delta.positions.values()))
    return replace(delta, values=values, positions=positions, count_body=count)


def _moved(name: str, value: Tensor) -> Tensor:
    return value + (0.3 if name.startswith("classifier") else MOVED) * torch.randn(value.shape)


@dataclass(frozen=True)
class Change:
    """A delta as the engine takes it."""

    below: TaskChange
    head: dict[str, Tensor]


def changes(mixed: MixedModel, deltas: Sequence[Delta]) -> list[Change]:
    """The deltas of one method, as a pool would hand them to the engine."""
    found = []
    for delta in deltas:
        updates = Lora().updates(delta.values)
        low_rank = {path: LowRank(delta.values[a], delta.values[b], scale) for path, (a, b, scale) in updates.items()}
        added = {name for a, b, _ in updates.values() for name in (a, b)}
        whole = {name: value for name, value in delta.values.items() if name not in added}
        below = {name: value for name, value in whole.items() if not mixed.is_above(name)}
        head = {name: value for name, value in whole.items() if name not in below}
        found.append(Change(mixed.change(below, delta.positions, low_rank), head))
    return found


def mixed_pass(mixed: MixedModel, known: Sequence[Change], work: Work, draw: Draw) -> Tensor:
    """The engine's own calls for a batch: float32 logits (B, C), in the order of the batch."""
    used = [*draw.by_task]
    number = {task: i for i, task in enumerate(used)}
    items = [(place, number[task]) for place, task in enumerate(draw.tasks)]
    vectors, row = mixed.vectors(work.inputs.take(draw.texts), [known[task].below for task in used], items)
    logits = vectors.new_empty(len(items), len(work.task.classes))
    for task, places in draw.by_task.items():
        rows = torch.tensor([row[place, number[task]] for place in places])
        logits[places] = mixed.logits(vectors.index_select(0, rows), known[task].head)
    return logits
