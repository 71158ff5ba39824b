"""Some texts on their way through a model, for whoever must know which rows of an activation are whose."""

# Shapes: T tokens, B texts, C outputs.

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..encoders.heads import ModelWithHead, texts_per_row
from ..encoders.inputs import ModelInputs
from .packed import PackedBatch, PackedModel, pack
from .padded import padded_logits


class ObservedTexts:
    """B rows of one text each (or of two, as pairs apart) on their way through a model: `packed`, or padded to the longest."""

    def __init__(self, model: ModelWithHead, packed: PackedModel | None, inputs: ModelInputs):
        self._model, self._packed, self._inputs = model, packed, inputs
        self._each = texts_per_row(model)
        self._batch: PackedBatch | None = None if packed is None else packed.rounded(pack(model, inputs))

    def __len__(self) -> int:
        return len(self._inputs) // self._each

    def logits(self) -> Tensor:
        """Float32 logits (B, C) with autograd; every norm is computed by its own module, where hooks see it."""
        if self._packed is None or self._batch is None:
            return padded_logits(self._model, self._inputs)
        return self._packed.logits(self._batch, observed=True)[: len(self)]

    def rows(self, shape: torch.Size) -> list[int] | None:
        """How many rows of an activation of `shape` (..., width) each row of the task has, in order; a filler may follow.

        None where no row of it is one text's alone, such as those of position embeddings that all texts share.
        """
        count = math.prod(shape[:-1])
        each = self._each
        if self._batch is None:
            # Texts, or what a head makes of the two of a pair.
            return [count // len(self)] * len(self) if shape[0] in (len(self._inputs), len(self)) else None
        lengths = self._batch.lengths.tolist()
        if count == sum(lengths):
            return [sum(lengths[i : i + each]) for i in range(0, len(lengths), each)]
        # Behind the layers, where a text is one row: its first token or its mean.
        if count == len(lengths):
            return [min(each, count - i) for i in range(0, count, each)]
        return [1] * count if count == len(lengths) // each else None  # in a head that has joined pairs
