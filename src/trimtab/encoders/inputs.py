"""What a model reads: the texts of some rows as numbers, all at once or in pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self, TypeVar

import numpy as np


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """The texts of some rows, each as int32 arrays of its token ids and, where the encoder takes them, of its segment ids.

    One text a row, or of pairs apart two, one behind the other.
    """

    ids: Sequence[np.ndarray]
    type_ids: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        """Texts."""
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text) for text in self.ids]

    def take(self, texts: Sequence[int]) -> ModelInputs:
        """The texts at `texts` of it."""
        types = None if self.type_ids is None else [self.type_ids[i] for i in texts]
        return ModelInputs([self.ids[i] for i in texts], types)


class TextRows(Protocol):
    """Rows of texts as token ids, all texts of a row one behind the other."""

    @property
    def ids(self) -> Sequence[np.ndarray]: ...
    def take(self, rows: Sequence[int]) -> Self: ...


T = TypeVar("T", bound=TextRows)


def pieces(batch: T, most_tokens: int | None, *, alike: bool) -> list[T]:
    """The batch in parts of consecutive rows, each of at most `most_tokens` tokens or of one row; whole where that is None.

    With `alike` those of a part have one length.
    """
    most = math.inf if most_tokens is None else most_tokens
    ends, tokens = [0], 0
    for i, ids in enumerate(batch.ids if alike or most_tokens is not None else ()):
        if i > ends[-1] and (tokens + len(ids) > most or (alike and len(ids) != len(batch.ids[i - 1]))):
            ends.append(i)
            tokens = 0
        tokens += len(ids)
    if len(ends) == 1:
        return [batch]
    return [batch.take(range(*bounds)) for bounds in pairwise([*ends, len(batch.ids)])]
