"""Slots: a packed batch that always lies in the same place of a GPU's memory, so that a recorded pass can be played again.

A CUDA graph reads and writes the addresses it was recorded with. Batches of one shape (how many texts, how many tokens
in all) are copied into its slots one after the other; one more text of padding fills the tokens up.
"""

# Shapes: T tokens, B texts without the padding text.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..encoders.inputs import ModelInputs
from ..encoders.positions import position_ids, uncounted
from .layout import Layout
from .packed import PackedBatch, PackedModel


def room_for(tokens: int) -> int:
    """The tokens T that a batch of `tokens` is filled up to: 16 sizes per doubling, at least 64 apart, and one to spare."""
    step = max(64, 1 << max(0, tokens.bit_length() - 5))
    return (tokens // step + 1) * step


class Slots:
    """Room for B texts of `room` tokens in all, each text and what is left of `room` at most `longest` tokens.

    `labels` says by its shape behind the first axis and its dtype what labels are like; `weight` and `total` are numbers
    that whoever runs the batch reads and writes.
    """

    def __init__(
        self, packed: PackedModel, n_texts: int, room: int, longest: int, *, has_types: bool, labels: Tensor
    ):  # fmt: skip
        model = packed.model
        device = next(model.parameters()).device
        self._packed = packed
        self._uncounted, self._padding = uncounted(model), model.config.pad_token_id or 0
        self._n_texts, self._room, self._has_types = n_texts, room, has_types
        self._longest = max(longest, room_for(room) - room)
        # All whole numbers lie in one buffer, so that one copy brings a batch: ids, positions, types, owners, ends.
        self._sizes = [room, room, room if has_types else 0, room, n_texts + 2]
        self._numbers = torch.zeros(sum(self._sizes), dtype=torch.int64, device=device)
        self.labels = torch.zeros(n_texts, *labels.shape[1:], dtype=labels.dtype, device=device)
        self.weight, self.total = (torch.zeros((), device=device) for _ in range(2))

    def fill(self, inputs: ModelInputs, labels: Tensor, weight: float) -> None:
        """Copies B texts, their labels and a weight to the device."""
        lengths = np.array(inputs.lengths, np.int64)
        missing = self._room - int(lengths.sum())
        lengths = np.append(lengths, missing)
        ends = np.concatenate([[0], lengths.cumsum()])
        owners = np.arange(len(lengths)).repeat(lengths)
        positions = position_ids(inputs.ids, self._uncounted)
        filling = np.full(missing, self._padding)
        # One position for all padding: a table has no more of them than a text may have tokens.
        numbers = [*inputs.ids, filling, positions, np.full(missing, positions[0])]
        if self._has_types:
            assert inputs.type_ids is not None
            numbers += [*inputs.type_ids, np.zeros(missing, np.int64)]
        self._send(torch.from_numpy(np.concatenate([*numbers, owners, ends]).astype(np.int64)), self._numbers)
        self._send(labels, self.labels)
        self.weight.fill_(weight)

    def _send(self, values: Tensor, to: Tensor) -> None:
        """Copies to the device without waiting for what it has still to do: its copy begins when the pass before is over."""
        to.copy_(values.pin_memory() if to.is_cuda else values, non_blocking=True)

    def logits(self) -> Tensor:
        """Float32 logits (B, C) of the texts, with autograd."""
        return self._packed.logits(self.batch())[: self._n_texts]

    def batch(self) -> PackedBatch:
        """The texts, and the padding text behind them; anew for every pass, which works things out from it."""
        ids, positions, types, owners, ends = self._numbers.split(self._sizes)
        nowhere = torch.zeros(self._n_texts + 1, dtype=torch.int64)  # the layout says where texts are, on the device
        layout = Layout.on_device(ends, owners, self._longest)
        return PackedBatch(
            ids[None], positions[None], types[None] if self._has_types else None, nowhere, nowhere, layout
        )
