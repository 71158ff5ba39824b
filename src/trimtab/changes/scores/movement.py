"""Movement as a score: how far an element goes when all of them are trained for a few steps, after which they are put back."""

# Shapes: E elements of a parameter.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...encoders.heads import ModelWithHead
from ...encoders.parameter_kinds import parts_of
from ...errors import InputError
from ..contract import Method, Trial
from ..methods import ALL_NORMS
from ..selection import Selection
from ..trial_training import put_back, train_briefly


@dataclass(frozen=True)
class Movement:
    """The absolute change of an element in `steps` steps, as in LT-SFT (arXiv 2110.07560), which trains to the end first.

    Written `moved_top` as a method.
    """

    steps: int = 100  # of one batch each
    name: ClassVar[str] = "moved_top"
    within: ClassVar[Method] = ALL_NORMS

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"moved_top:steps={self.steps} must be at least 1")

    @property
    def trial(self) -> str:
        """What is measured, in words."""
        return f"a trial of {self.steps:,} steps"

    def score(self, model: ModelWithHead, pool: Selection, trial: Trial) -> np.ndarray:
        """(E,) float32; raises InputError where there is no task to train on, or training comes to no numbers."""
        # Each step its own batch, where there are so many; fewer are gone through again.
        batches = list(islice(trial.batches, self.steps))
        if trial.loss is None or not batches:
            raise InputError("moved_top tries on a task, so it needs batches and the task's loss")
        # At the learning rates that the fit itself would begin with, without its warm-up.
        defaults = trial.defaults.for_width(model.config.hidden_size)
        rates = dict.fromkeys(pool.elements, defaults.lr)
        # The head learns along with them, as it will in the fit.
        rates |= {name: defaults.head_lr for name, part in parts_of(model).items() if part.is_head}
        parameters = {name: p for name, p in model.named_parameters() if name in pool.elements}

        def stepping(step: Callable[[], None]) -> None:
            """Takes the step, less what `pool` leaves out of its parameters."""
            for name, at in pool.elements.items():
                gradient = parameters[name].grad
                # AdamW without decay leaves elements alone whose gradient has always been 0.
                if gradient is not None and at is not None:
                    gradient.view(-1)[_others(at, gradient.numel()).to(gradient.device)] = 0
            step()

        # The fit that follows starts from the pretrained values, and its head from its own random values.
        with put_back(model, rates) as before:
            train_briefly(model, rates, batches, trial.loss, self.steps, stepping, trial.most_tokens, trial.compute)
            distances = {name: (p.detach() - before[name]).abs() for name, p in parameters.items()}
        if not all(bool(torch.isfinite(distance).all()) for distance in distances.values()):
            raise InputError("moved_top: the trial steps came to values that are not numbers (NaN)")
        return pool.values_of(distances)


def _others(at: np.ndarray, count: int) -> Tensor:
    """(E,) bool: which of `count` elements are not at the positions `at`."""
    others = torch.ones(count, dtype=torch.bool)
    others[torch.from_numpy(at)] = False
    return others
