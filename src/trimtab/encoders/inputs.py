"""What a model reads: the texts of some rows as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def with_text(self, ids: np.ndarray) -> ModelInputs:
        """These and one more text, all of it in segment 0."""
        types = None if self.type_ids is None else [*self.type_ids, np.zeros_like(ids)]
        return ModelInputs([*self.ids, ids], types)
