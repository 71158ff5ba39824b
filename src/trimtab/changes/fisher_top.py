"""Methods that choose by measurement: the most informative elements, or a selection that was saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..encoders.choices import Compute
from ..encoders.parameter_kinds import parts_of
from ..errors import InputError
from .choices import check_measure
from .fisher import Meter
from .methods import (
    ALL_NORMS,
    Defaults,
    LayerNorms,
    Loss,
    Method,
    check_within,
    defaults_of_subset,
    pool_of,
    trial_of,
)
from .ranking import check_ranking
from .selection import Selection, check_size, described_in, wanted_count
from .short_training import head_started


@dataclass(frozen=True)
class FisherTop:
    """The elements with the most Fisher information for the task (arXiv 2111.09839; inside LayerNorm: arXiv 2403.20284).

    By `share` or `count` of another method's elements, measured on the first `examples` training rows of the shuffled order, with
    the head as initialised or after `head_steps` steps of training it alone. That training takes the loss of the fit;
    the information is always that of the plain loss, without class weights or label smoothing (see fisher.py).
    `granularity`: element, or vector for whole vectors; `per`: the top of all, or the same share of each layer or parameter.
    """

    share: float | None = None  # above 0, at most 1
    count: int | None = None  # elements
    estimator: str = "empirical"  # see fisher.py
    examples: int = 1024  # rows; all of them where there are fewer
    head_steps: int = 0  # steps of one batch each
    given: str = "nothing"  # or "head": only what the head could not have had itself (given_head.py)
    granularity: str = "element"
    per: str = "all"
    within: Method = ALL_NORMS

    @property
    def defaults(self) -> Defaults:
        return defaults_of_subset(self.within, self.count, self.share)

    @property
    def trial(self) -> str:
        """What its candidates measure, then its own."""
        own = f"Fisher information on at most {self.examples:,} rows"
        return ", ".join(filter(None, (trial_of(self.within), own)))

    def __post_init__(self):
        if self.examples < 1 or self.head_steps < 0:
            raise InputError(
                f"fisher_top:examples={self.examples} must be at least 1 and head_steps={self.head_steps} at least 0"
            )
        check_measure(self.estimator, self.given)
        check_ranking("fisher_top", self.granularity, self.per)
        check_within("fisher_top", self.within)
        check_size("fisher_top", self.count, self.share)

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        # The head is always trained, so nothing is chosen in it.
        within = pool_of(self.within, model, batches, loss)
        wanted_count("fisher_top", within.count, self.count, self.share)  # before anything is measured
        # Which labels are possible, and how they are drawn, is a matter of the task's kind.
        kind = getattr(loss, "kind", None)
        if kind is None:
            raise InputError("fisher_top measures on a task, so it needs batches and the task's loss")
        needed = list(_first(batches, self.examples))
        if not needed:
            raise InputError("fisher_top has no rows to measure on")
        # For the labels of the estimator "sampled"; from the method's own stream, which the caller seeds.
        seed = int(torch.randint(2**62, (), dtype=torch.int64))
        meter = Meter(model, within, kind, self.estimator, seed, self.given)
        # In the arithmetic of the fit that this is for. Behind the block the head is as it was.
        most: int | None = getattr(batches, "most_tokens", None)
        compute: Compute = getattr(batches, "compute", "auto")
        with head_started(model, needed, loss, self.head_steps, most, compute), meter.measuring(compute):
            for batch in needed:
                meter.add(batch, most)
        return meter.result().top(self.share, self.count, self.granularity, self.per)


@dataclass(frozen=True)
class Chosen:
    """The selection saved in `file`, such as a global subset; written `selection:file=PATH`."""

    file: str = ""

    def check_name(self) -> None:
        """Raises InputError for a file whose name means something else in the text of a method, which every delta carries."""
        if set(",+()") & set(self.file):
            raise InputError(
                f"selection:file={self.file} has one of , + ( ) in its name, which join methods: rename the file"
            )

    @property
    def defaults(self) -> Defaults:
        """Those of as many LayerNorm elements for elements of vectors, else of scattered ones.

        Raises InputError for a file that is no selection.
        """
        if not self.file:
            return LayerNorms.defaults
        described = described_in(self.file)
        return defaults_of_subset(ALL_NORMS if described["in_vectors"] else None, described["chosen"])

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        if not self.file:
            raise InputError("selection needs a file: selection:file=PATH")
        # Before training and not after it, when the delta's text is written.
        self.check_name()
        return Selection.load(self.file, parts_of(model))


def _first(batches: Iterable[Any], examples: int) -> Iterator[Any]:
    """The batches of the first `examples` texts, the last one cut where it has more."""
    left = examples
    for batch in batches:
        yield batch if len(batch) <= left else batch.take(range(left))
        left -= len(batch)
        if left <= 0:
            return
