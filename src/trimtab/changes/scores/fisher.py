"""Fisher information as a score: how much the task's predictions depend on an element."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ...encoders.heads import ModelWithHead
from ...errors import InputError
from ..choices import check_estimator
from ..contract import Method, Trial
from ..fisher import Meter
from ..methods import ALL_NORMS
from ..selection import Selection
from ..trial_training import head_started


@dataclass(frozen=True)
class FisherInformation:
    """The diagonal Fisher information (arXiv 2111.09839; inside LayerNorm: arXiv 2403.20284); written `fisher_top` as a method.

    Measured on the first `examples` training rows of the shuffled order, with the head as initialised or after `head_steps` steps
    of training it alone. That training takes the loss of the fit; the information is always that of the plain loss, without class
    weights or label smoothing (see changes/fisher.py).
    """

    estimator: str = "empirical"  # see changes/fisher.py
    examples: int = 1024  # rows; all of them where there are fewer
    head_steps: int = 0  # steps of one batch each
    name: ClassVar[str] = "fisher_top"
    within: ClassVar[Method] = ALL_NORMS

    def __post_init__(self):
        if self.examples < 1 or self.head_steps < 0:
            raise InputError(
                f"fisher_top:examples={self.examples} must be at least 1 and head_steps={self.head_steps} at least 0"
            )
        check_estimator(self.estimator)

    @property
    def trial(self) -> str:
        """What is measured, in words."""
        return f"Fisher information on at most {self.examples:,} rows"

    def score(self, model: ModelWithHead, pool: Selection, trial: Trial) -> np.ndarray:
        """(E,) float32; raises InputError where there is no task to measure on."""
        # Which labels are possible, and how they are drawn, is a matter of the task's kind.
        if trial.kind is None:
            raise InputError("fisher_top measures on a task, so it needs batches and the task's loss")
        needed = list(_first(trial.batches, self.examples))
        if not needed:
            raise InputError("fisher_top has no rows to measure on")
        # For the labels of the estimator "sampled"; from the method's own stream, which the caller seeds.
        seed = int(torch.randint(2**62, (), dtype=torch.int64))
        meter = Meter(model, pool, trial.kind, self.estimator, seed)
        # Behind the block the head is as it was.
        head = head_started(model, needed, trial.loss, self.head_steps, trial.most_tokens, trial.compute)
        with head, meter.measuring(trial.compute):
            for batch in needed:
                meter.add(batch, trial.most_tokens)
        return pool.values_of(meter.result().values)


def _first(batches: Iterable[Any], examples: int) -> Iterator[Any]:
    """The batches of the first `examples` texts, the last one cut where it has more."""
    left = examples
    for batch in batches:
        yield batch if len(batch) <= left else batch.take(range(left))
        left -= len(batch)
        if left <= 0:
            return
