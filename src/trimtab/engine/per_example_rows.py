"""Some texts on their way through a model, for whoever must know which rows of an activation are whose."""

# Shapes: T tokens, B texts, C outputs.

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders.heads import texts_per_row
from .packed import PackedBatch, can_split, pack, packed_logits, rounded, takes_alike
from .padded import padded_logits


class Texts:
    """B rows of one text each (or of two, as pairs apart) and a prepared model: packed where it can, else padded to the longest.

    `ids` and `type_ids` are those of each text.
    """

    def __init__(self, model: Any, ids: Sequence[np.ndarray], type_ids: Sequence[np.ndarray] | None):
        self._model, self._ids, self._type_ids = model, ids, type_ids
        self._each = texts_per_row(model)
        self._batch: PackedBatch | None = None  # None where the model runs padded
        if can_split(model):
            self._batch = rounded(model, pack(ids, type_ids, model))

    def __len__(self) -> int:
        return len(self._ids) // self._each

    def logits(self) -> Tensor:
        """Float32 logits (B, C) with autograd; every norm is computed by its own module, where hooks see it."""
        if self._batch is None:
            return padded_logits(self._model, self._ids, self._type_ids)
        return packed_logits(self._model, self._batch, observed=True)[: len(self)]

    def rows(self, shape: torch.Size) -> list[int] | None:
        """How many rows of an activation of `shape` (..., width) each row of the task has, in order; a filler may follow.

        None where no row of it is one text's alone, such as those of position embeddings that all texts share.
        """
        count = math.prod(shape[:-1])
        each = self._each
        if self._batch is None:
            # Texts, or what a head makes of the two of a pair.
            return [count // len(self)] * len(self) if shape[0] in (len(self._ids), len(self)) else None
        lengths = self._batch.lengths.tolist()
        if count == sum(lengths):
            return [sum(lengths[i : i + each]) for i in range(0, len(lengths), each)]
        # Behind the layers, where a text is one row: its first token or its mean.
        if count == len(lengths):
            return [min(each, count - i) for i in range(0, count, each)]
        return [1] * count if count == len(lengths) // each else None  # in a head that has joined pairs


def pieces(model: Any, batch: Any, most_tokens: int | None) -> list[Any]:
    """The batch in parts of consecutive texts, each of at most `most_tokens` tokens or of one text; whole where that is None.

    Where texts of different lengths would change each other's answers in `model`, those of a part have one length.
    """
    alike, most = takes_alike(model), math.inf if most_tokens is None else most_tokens
    ends, tokens = [0], 0
    for i, ids in enumerate(batch.ids if alike or most_tokens is not None else ()):
        if i > ends[-1] and (tokens + len(ids) > most or (alike and len(ids) != len(batch.ids[i - 1]))):
            ends.append(i)
            tokens = 0
        tokens += len(ids)
    if len(ends) == 1:
        return [batch]
    return [batch.take(range(*bounds)) for bounds in pairwise([*ends, len(batch.ids)])]
