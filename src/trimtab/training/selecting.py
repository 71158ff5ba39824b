"""What a run trains: its method's choice and the head, or what a run that goes on has begun with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..changes.contract import Additions, Method, Trial, adapted, add_and_select
from ..changes.method_text import method_text
from ..changes.selection import Selection
from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import parts_of
from ..errors import InputError
from ..randomness import seeded
from ..results.recipe import Settings
from ..tasks.losses import TaskLoss
from .batches import Examples, shuffled_batches
from .memory_estimate import MOST_TOKENS
from .ranks import device


def chosen_by(
    method: Method, model: ModelWithHead, train: Examples, loss: TaskLoss, settings: Settings, compute: Compute
) -> tuple[Selection, Additions]:
    """What `method` selects, with the head, which is new and so always trained; and what it has added to `model`.

    Raises InputError where it selects nothing, or only a part of what it has added, and whatever the method itself raises.
    """
    batches, most_tokens = _FirstEpoch(train, settings), settings.tokens_per_batch or MOST_TOKENS[device().type]
    with seeded(settings.seed, "method"):
        # A method may draw (random subsets, LoRA's start) or train a little: from a stream of its own.
        selection, additions = add_and_select(method, model, Trial(batches, loss, loss.kind, most_tokens, compute))
    if not selection:
        raise InputError(f"{method_text(method)} chose nothing to train on this encoder")
    # The rest of what was added would be lost: it is drawn at random and belongs to no encoder.
    if any(selection.elements.get(name, ()) is not None for name in additions.parameters):
        what = " and ".join(each.name for each in additions.made)
        raise InputError(f"{method_text(method)} trains only a part of what {what} adds: take a smaller {what} instead")
    return selection | Selection.where(selection.parts, lambda name, part: part.is_head), additions


def chosen_before(
    method: Method, model: ModelWithHead, elements: Mapping[str, np.ndarray | None], settings: Settings
) -> tuple[Selection, Additions]:
    """The elements that the run has begun with, in a model to which is added what the method adds; and what that was.

    Raises InputError where they are none of this model's.
    """
    with seeded(settings.seed, "method"):
        additions = adapted(method).add(model)
    parts = parts_of(model)
    if not elements.keys() <= parts.keys():
        raise InputError(
            "the checkpoint belongs to a run of another encoder or method: resume with the same recipe, or choose another --out"
        )
    return Selection(parts, elements), additions


@dataclass(frozen=True)
class _FirstEpoch:
    """The batches of the first epoch, from the first one at every walk: each part of a union measures on the same rows."""

    train: Examples
    settings: Settings

    def __iter__(self) -> Iterator[Any]:
        for rows in shuffled_batches(len(self.train), self.settings.batch_size, self.settings.seed, 0):
            yield self.train.take(rows.tolist())
