"""A method that chooses by trying: all elements are trained for a few steps, and those that did most are kept."""

# Shapes: E elements of a parameter.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.parts import parts_of
from ..errors import InputError
from .methods import Defaults, LayerNorms, Loss, Method, defaults_of, defaults_of_subset
from .ranking import top_of
from .selection import Selection
from .short_training import put_back, train_briefly

SCORES = ("distance", "gain")


@dataclass(frozen=True)
class MovedTop:
    """The elements that move farthest when all of `within` is trained for a few steps, from which they are put back.

    By `share` or `count` of the elements of `within`. `by` "distance" is the absolute change, as in LT-SFT (arXiv 2110.07560),
    which trains to the end first; "gain" is the part of the loss's decrease that the element accounts for, the sum over
    steps of gradient times change (loss change allocation, arXiv 1909.01440). `per` and `granularity`: as in FisherTop.
    """

    share: float | None = None
    count: int | None = None
    steps: int = 100
    by: str = "distance"
    granularity: str = "element"
    per: str = "all"
    within: Method | None = None  # LayerNorms() where it is None

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within or LayerNorms(), self.count, self.share)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        method = self.within or LayerNorms()
        within = method.attach(model, batches, loss).body
        if self.by not in SCORES:
            raise InputError(f"moved_top:by={self.by} is unknown; known: {', '.join(SCORES)}")
        if self.steps < 1:
            raise InputError(f"moved_top:steps={self.steps} must be at least 1")
        some = list(islice(batches, self.steps))
        if loss is None or not some:
            raise InputError("moved_top tries on a task, so it needs batches and the task's loss")
        scores = self._scores(model, within, defaults_of(method), some, loss)
        return top_of(within, scores, "moved_top", self.share, self.count, self.granularity, self.per)

    def _scores(
        self, model: Any, within: Selection, defaults: Defaults, batches: list[Any], loss: Loss
    ) -> dict[str, Tensor]:
        """Parameter name -> score of each element, shaped like the parameter; those outside of `within` have 0."""
        defaults = defaults.for_width(model.config.hidden_size)
        rates = dict.fromkeys(within.elements, defaults.lr)
        rates |= {name: defaults.head_lr for name, part in parts_of(model).items() if part.is_head}
        parameters = {name: p for name, p in model.named_parameters() if name in within.elements}
        scores = {name: torch.zeros(p.numel()) for name, p in parameters.items()}
        left_out = {name: ~_chosen(within, name, p.numel()).to(p.device) for name, p in parameters.items()}
        before = {name: p.detach().clone() for name, p in parameters.items()}

        def stepping(step: Callable[[], None]) -> None:
            for name, p in parameters.items():
                if p.grad is not None:
                    p.grad.view(-1)[left_out[name]] = 0
            old = {name: p.detach().clone() for name, p in parameters.items()} if self.by == "gain" else {}
            step()
            for name, value in old.items():
                p = parameters[name]
                if p.grad is not None:
                    scores[name] -= (p.grad * (p.detach() - value)).flatten().cpu()

        with put_back(model, rates):
            train_briefly(model, rates, batches, loss, self.steps, stepping)
            if self.by == "distance":
                scores = {name: (p.detach() - before[name]).abs().flatten().cpu() for name, p in parameters.items()}
        if not all(bool(torch.isfinite(score).all()) for score in scores.values()):
            raise InputError("moved_top: the trial steps came to values that are not numbers (NaN)")
        return {name: score.view(parameters[name].shape) for name, score in scores.items()}


def _chosen(within: Selection, name: str, count: int) -> Tensor:
    """(E,) bool: which elements of the parameter are in `within`."""
    at = within.elements[name]
    chosen = torch.full((count,), at is None)
    if at is not None:
        chosen[torch.from_numpy(at)] = True
    return chosen
