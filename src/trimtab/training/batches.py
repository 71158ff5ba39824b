"""Rows to learn from and to be judged on: what a model reads of them with their labels, dealt into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..encoders.inputs import Inputs, ModelInputs
from ..randomness import generator


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model reads of N rows, and their labels."""

    inputs: Inputs = field(repr=False)
    labels: Tensor | None = field(repr=False)  # as `label_tensor` makes them

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row (N,)."""
        return self.inputs.lengths

    def subset(self, rows: Sequence[int]) -> Examples:
        """The rows at `rows` as Examples."""
        return Examples(self.inputs.subset(rows), _of(self.labels, rows))

    def take(self, rows: Sequence[int]) -> Batch:
        """The rows at `rows` as a Batch."""
        return Batch(self.inputs.take(rows), _of(self.labels, rows))


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of Examples, to be run at once."""

    inputs: ModelInputs
    labels: Tensor | None

    def __len__(self) -> int:
        """Rows."""
        return len(self.inputs) // self.inputs.texts_per_row

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return self.inputs.row_lengths

    def take(self, rows: Sequence[int]) -> Batch:
        """The rows at `rows` of it."""
        return Batch(self.inputs.take_rows(rows), _of(self.labels, rows))


def _of(labels: Tensor | None, rows: Sequence[int]) -> Tensor | None:
    """The labels of the rows at `rows`."""
    return None if labels is None else labels[torch.as_tensor(np.asarray(rows, dtype=np.int64))]


# Asked for at every step, and drawn once an epoch; callers share the arrays, so they must not write into them.
@lru_cache(maxsize=2)
def shuffled_batches(n_rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The row numbers of each batch of one epoch: a permutation from the stream "order" of `seed`, cut in pieces."""
    order = torch.randperm(n_rows, generator=generator(seed, "order", epoch)).numpy()
    return np.split(order, range(batch_size, n_rows, batch_size))


def token_groups(lengths: np.ndarray, rows: Sequence[int] | np.ndarray, most_tokens: int) -> list[np.ndarray]:
    """Cuts `rows`, longest first, into groups of at most `most_tokens` tokens together (one row alone may exceed it).

    No rows make no groups: a rank's share of a small batch may be empty.
    """
    numbers = np.asarray(rows, dtype=np.int64)
    # Similar lengths together make few widths of attention; the longest first shows at once whether memory suffices.
    ordered = numbers[np.argsort(-lengths[numbers], kind="stable")]
    cuts, filled = [], 0
    for i, length in enumerate(lengths[ordered].tolist()):
        if filled and filled + length > most_tokens:
            cuts.append(i)
            filled = 0
        filled += length
    return np.split(ordered, cuts) if len(ordered) else []
