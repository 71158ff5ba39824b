"""What a run trains: its method's choice and the head, or what a run that goes on has begun with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..changes.methods import Lora, Method, Union
from ..changes.notation import method_text
from ..changes.selection import Selection
from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import parts_of
from ..errors import InputError
from ..randomness import seeded
from ..results.recipe import Settings
from ..tasks.batches import Tokens, shuffled_batches
from ..tasks.losses import TaskLoss
from .memory_estimate import MOST_TOKENS
from .ranks import device


def chosen_by(
    method: Method, model: ModelWithHead, train: Tokens, loss: TaskLoss, settings: Settings, compute: Compute
) -> Selection:
    """What `method` chooses, and the head, which is new and so always trained.

    Raises InputError where it chooses nothing, or only a part of LoRA's matrices, and whatever the method itself raises.
    """
    with seeded(settings.seed, "method"):
        # A method may draw (random subsets, LoRA's start) or train a little: from a stream of its own.
        chosen = method.attach(model, _FirstEpoch(train, settings, compute), loss)
    if not chosen:
        raise InputError(f"{method_text(method)} chose nothing to train on this encoder")
    # A part of LoRA's matrices would be lost with the rest of them, which is drawn at random and belongs to no encoder.
    # Nor are they known from the text of a method that only chooses within them.
    members = method.methods if isinstance(method, Union) else (method,)
    lora = {name: chosen.elements.get(name, ()) for name, part in chosen.parts.items() if part.kind == "lora"}
    whole = all(elements is None for elements in lora.values()) and any(isinstance(each, Lora) for each in members)
    if lora and not whole:
        raise InputError(
            f"{method_text(method)} trains only a part of what LoRA adds: take lora with a lower rank instead"
        )
    return chosen | Selection.where(chosen.parts, lambda name, part: part.is_head)


def chosen_before(
    method: Method, model: ModelWithHead, elements: Mapping[str, np.ndarray | None], settings: Settings
) -> Selection:
    """The elements that the run has begun with, in a model to which is added what the method adds.

    Raises InputError where they are none of this model's.
    """
    members = method.methods if isinstance(method, Union) else (method,)
    with seeded(settings.seed, "method"):
        for each in members:
            if isinstance(each, Lora):
                each.attach(model)
    parts = parts_of(model)
    if not elements.keys() <= parts.keys():
        raise InputError(
            "the checkpoint belongs to a run of another encoder or method: resume with the same recipe, or choose another --out"
        )
    return Selection(parts, elements)


@dataclass(frozen=True)
class _FirstEpoch:
    """The batches of the first epoch, from the first one at every walk: each part of a union measures on the same rows.

    A method that runs them does so in pieces of at most `most_tokens` and in the arithmetic `compute`, as training will.
    """

    train: Tokens
    settings: Settings
    compute: Compute

    @property
    def most_tokens(self) -> int:
        return self.settings.tokens_per_batch or MOST_TOKENS[device().type]

    def __iter__(self) -> Iterator[Any]:
        for rows in shuffled_batches(len(self.train), self.settings.batch_size, self.settings.seed, 0):
            yield self.train.take(rows.tolist())
