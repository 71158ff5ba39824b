"""A method that chooses by trying: all elements are trained for a few steps, and those that did most are kept."""

# Shapes: E elements of a parameter.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import parts_of
from ..errors import InputError, suggestion
from .methods import (
    ALL_NORMS,
    Defaults,
    Loss,
    Method,
    check_within,
    defaults_of,
    defaults_of_subset,
    pool_of,
    trial_of,
)
from .ranking import check_ranking, top_of
from .selection import Selection, check_size, wanted_count
from .short_training import put_back, train_briefly

SCORES = ("distance", "gain")  # what `by` may be


@dataclass(frozen=True)
class MovedTop:
    """The elements that move farthest when all of `within` is trained for a few steps, from which they are put back.

    By `share` or `count` of the elements of `within`. `by` "distance" is the absolute change, as in LT-SFT (arXiv 2110.07560),
    which trains to the end first; "gain" is the part of the loss's decrease that the element accounts for, the sum over
    steps of gradient times change (loss change allocation, arXiv 1909.01440). `per` and `granularity`: as in FisherTop.
    """

    share: float | None = None  # above 0, at most 1
    count: int | None = None  # elements
    steps: int = 100  # of one batch each
    by: str = "distance"
    granularity: str = "element"
    per: str = "all"
    within: Method = ALL_NORMS

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within, self.count, self.share)

    @property
    def trial(self) -> str:
        """What its candidates measure, then its own."""
        return ", ".join(filter(None, (trial_of(self.within), f"a trial of {self.steps:,} steps")))

    def __post_init__(self):
        if self.by not in SCORES:
            raise InputError(
                f"moved_top:by={self.by} is unknown{suggestion(self.by, SCORES)}; known: {', '.join(SCORES)}"
            )
        if self.steps < 1:
            raise InputError(f"moved_top:steps={self.steps} must be at least 1")
        check_ranking("moved_top", self.granularity, self.per)
        check_within("moved_top", self.within)
        check_size("moved_top", self.count, self.share)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        within = pool_of(self.within, model, batches, loss)
        wanted_count("moved_top", within.count, self.count, self.share)  # before anything is tried
        # Each step its own batch, where there are so many; fewer are gone through again.
        some = list(islice(batches, self.steps))
        if loss is None or not some:
            raise InputError("moved_top tries on a task, so it needs batches and the task's loss")
        most: int | None = getattr(batches, "most_tokens", None)
        compute: Compute = getattr(batches, "compute", "auto")
        scores = self._scores(model, within, some, loss, most, compute)
        return top_of(within, scores, "moved_top", self.share, self.count, self.granularity, self.per)

    def _scores(
        self,
        model: ModelWithHead,
        within: Selection,
        batches: list[Any],
        loss: Loss,
        most_tokens: int | None,
        compute: Compute,
    ) -> dict[str, Tensor]:
        """Parameter name -> score of each element, shaped like the parameter; those outside of `within` have 0."""
        # At the rates that the fit itself would begin with, without its warm-up.
        defaults = defaults_of(self.within).for_width(model.config.hidden_size)
        rates = dict.fromkeys(within.elements, defaults.lr)
        # The head learns along with them, as it will in the fit.
        rates |= {name: defaults.head_lr for name, part in parts_of(model).items() if part.is_head}
        parameters = {name: p for name, p in model.named_parameters() if name in within.elements}
        gains = {name: torch.zeros_like(p) for name, p in parameters.items()}

        def stepping(step: Callable[[], None]) -> None:
            """Takes the step, less what `within` leaves out of its parameters; adds to `gains` where they decide."""
            for name, at in within.elements.items():
                gradient = parameters[name].grad
                # AdamW without decay leaves elements alone whose gradient has always been 0.
                if gradient is not None and at is not None:
                    gradient.view(-1)[_others(at, gradient.numel()).to(gradient.device)] = 0
            # Gain needs the change of every single step, distance only that of all of them.
            old: dict[str, tuple[Tensor, Tensor]] = {}
            if self.by == "gain":
                old = {
                    name: (p.detach().clone(), p.grad.clone()) for name, p in parameters.items() if p.grad is not None
                }
            step()
            for name, (value, gradient) in old.items():
                # To first order, what this element took off the loss in this step: by its own gradient, before clipping.
                gains[name] -= gradient * (parameters[name].detach() - value)

        # The fit that follows starts from the pretrained values, and its head from its own draw.
        with put_back(model, rates) as before:
            train_briefly(model, rates, batches, loss, self.steps, stepping, most_tokens, compute)
            distances = {name: (p.detach() - before[name]).abs() for name, p in parameters.items()}
        scores = {name: score.cpu() for name, score in (gains if self.by == "gain" else distances).items()}
        if not all(bool(torch.isfinite(score).all()) for score in scores.values()):
            raise InputError("moved_top: the trial steps came to values that are not numbers (NaN)")
        return scores


def _others(at: np.ndarray, count: int) -> Tensor:
    """(E,) bool: which of `count` elements are not at the positions `at`."""
    others = torch.ones(count, dtype=torch.bool)
    others[torch.from_numpy(at)] = False
    return others
