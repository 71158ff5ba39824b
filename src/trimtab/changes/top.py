"""Top: the elements with the highest score, of which the methods `fisher_top`, `moved_top` and `random` have one each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from torch import nn

from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import EMBEDDINGS, parts_of
from ..errors import InputError
from .choices import check_size
from .contract import NO_TRIAL, Additions, Choosing, Defaults, Method, Trial, adapted, defaults_of, trial_of
from .methods import Full, Union, adds_of, defaults_of_subset
from .scores import Score
from .scores.chance import Chance
from .scores.fisher import FisherInformation
from .scores.movement import Movement
from .selection import Selection, wanted_count


@dataclass(frozen=True)
class Top(Choosing):
    """The elements of the backbone with the highest score, by `share` or `count` of those that `within` selects.

    Where no `within` is given it is the score's own, or else all in the encoder's layers: the embedding tables are left out,
    because the rows of words that a task never uses cannot move.
    """

    score: Score
    share: float | None = None  # above 0, at most 1
    count: int | None = None  # elements
    within: Method | None = None

    def __post_init__(self):
        if self.within is None:
            object.__setattr__(self, "within", usual_within(self.score))
        _check_within(self.name, self.within)
        check_size(self.name, self.count, self.share)

    @property
    def name(self) -> str:
        """As messages name it."""
        return getattr(self.score, "name", "top")

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within, self.count, self.share)

    @property
    def trial(self) -> str:
        """What is measured to come to the elements that are scored, then by the score."""
        inner = "" if self.within is None else trial_of(self.within)
        return ", ".join(filter(None, (inner, trial_of(self.score))))

    def add(self, model: nn.Module) -> Additions:
        """Nothing; raises InputError where a user's own `within` adds something, which `_check_within` could not know."""
        additions = Additions() if self.within is None else adapted(self.within).add(model)
        if additions.made:
            raise _partly(self.name, additions.made[0].name)
        return additions

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        pool = self._pool(model, trial)
        wanted = wanted_count(self.name, pool.count, self.count, self.share)  # before anything is measured
        trial = replace(trial, defaults=defaults_of(self.within or Full()))
        scores = self.score.score(cast(ModelWithHead, model), pool, trial)
        if scores.shape != (pool.count,) or bool(np.isnan(scores).any()):
            raise InputError(
                f"{self.name}: the score must give a number for each of the {pool.count:,} elements, and gave "
                f"{scores.shape} of which {int(np.isnan(scores).sum()):,} are none (NaN)"
            )
        return pool.highest(scores, wanted)

    def _pool(self, model: nn.Module, trial: Trial) -> Selection:
        """The elements to choose from: none of the head, which is always trained, and none of what was added to the model."""
        if self.within is None:
            return Selection.where(
                parts_of(model),
                lambda name, part: part.layer > EMBEDDINGS and not part.is_head and name not in trial.added,
            )
        within = adapted(self.within).select(model, trial).backbone
        return within - Selection.where(within.parts, lambda name, part: name in trial.added)


def FisherTop(  # noqa: N802 (named as a method)
    share: float | None = None, count: int | None = None, estimator: str = "empirical", examples: int = 1024,
    head_steps: int = 0, within: Method | None = None,
) -> Top:  # fmt: skip
    """The elements with the most Fisher information for the task, by default of LayerNorm; see `FisherInformation`."""
    return Top(FisherInformation(estimator, examples, head_steps), share, count, within)


def MovedTop(  # noqa: N802
    share: float | None = None, count: int | None = None, steps: int = 100, within: Method | None = None
) -> Top:
    """The elements that move farthest in a few steps of training all of `within`, by default LayerNorm; see `Movement`."""
    return Top(Movement(steps), share, count, within)


def Random(  # noqa: N802
    count: int | None = None, share: float | None = None, within: Method | None = None
) -> Top:
    """A uniformly random subset, by default of all in the encoder's layers: the control for every other choice."""
    return Top(Chance(), share, count, within)


def usual_within(score: Any) -> Method | None:
    """The method that `score` chooses within where none is named; None for all in the encoder's layers."""
    return getattr(score, "within", None)


def _check_within(name: str, within: Any) -> None:
    """Raises InputError where the method `name` would choose within what another one adds to the encoder.

    A part of it would be lost with the rest, which is drawn at random and belongs to no encoder.
    """
    for each in within.methods if isinstance(within, Union) else () if within is None else (within,):
        if adds := adds_of(each):
            raise _partly(name, adds)
        _check_within(name, getattr(each, "within", None))


def _partly(name: str, adds: str) -> InputError:
    """The InputError for the method `name` within one that adds `adds`."""
    return InputError(
        f"{name}:within={adds} would train only a part of what {adds} adds: take a smaller {adds} instead"
    )
