"""Chance: a uniformly random score, the control for every other one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...encoders.heads import ModelWithHead
from ..contract import Trial
from ..selection import Selection


@dataclass(frozen=True)
class Chance:
    """A random order of the elements; written `random` as a method."""

    name: ClassVar[str] = "random"

    def score(self, model: ModelWithHead, pool: Selection, trial: Trial) -> np.ndarray:
        """(E,) int32: each of the numbers 1 to E once."""
        # The first of a random order is the highest, so that the `count` highest are the first `count`: those of older versions.
        ranks = np.empty(pool.count, np.int32)
        ranks[torch.randperm(pool.count).numpy()] = np.arange(pool.count, 0, -1, dtype=np.int32)
        return ranks
