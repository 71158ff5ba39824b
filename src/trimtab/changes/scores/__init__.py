"""Scores: the numbers by which `Top` (top.py) chooses elements, one file for each.

A new score is a frozen dataclass whose fields are its options, with the one method below; where it has no state it is ten lines:

    @dataclass(frozen=True)
    class Magnitude:
        name: ClassVar[str] = "largest"

        def score(self, model, pool, trial):
            return pool.values_of({name: p.abs() for name, p in model.named_parameters()})

and `Top(Magnitude(), share=0.1)` is a method. To be written as text on the command line (`largest:share=0.1`) it is listed in
method_text.SCORES, and its options in choices.OPTIONS, which is read without torch.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...encoders.heads import ModelWithHead
from ..contract import Trial
from ..selection import Selection


class Score(Protocol):
    """Says of each element that may be chosen how much speaks for it.

    Attributes that it may have: `name` (of the method, in texts and messages), `trial` (what it measures, in words), `within`
    (the Method whose elements are scored where none is named; otherwise all in the encoder's layers).
    """

    def score(self, model: ModelWithHead, pool: Selection, trial: Trial) -> np.ndarray:
        """(E,): a number for each of the E elements of `pool`, in the order of `Selection.taken`; the highest are chosen.

        It leaves `model` as it was, and draws from torch's global generator where it is random.
        """
        ...
