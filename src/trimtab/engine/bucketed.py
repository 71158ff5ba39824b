"""Batches for the families that cannot run packed: padded, a few calls on texts of similar length each."""

# Shapes: T tokens, B texts, C outputs.

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..encoders.heads import LinearHead, texts_per_row
from .dropout import NOISE, Noise
from .padded import padded_logits, padded_vectors

SHORTEST = 0.75  # of a call's longest text; below that a text waits for the next call

_warned: set[str] = set()  # names of the model classes that `warn_padded` has spoken of


def bucketed_logits(
    model: Any, ids: Tensor, type_ids: Tensor | None, lengths: list[int], *, alike: bool = False
) -> Tensor:
    """Float32 logits (B, C) for texts that lie one after the other in `ids` (T,) and `type_ids` (1, T).

    With `alike` only texts of one length run together, so that nothing is padded. Of pairs apart, which are two texts each, the
    texts run where their lengths put them, and their vectors meet behind.
    """
    # One array per text, as `padded_logits` takes them.
    rows = [row.numpy() for row in ids.cpu().split(lengths)]
    types = None if type_ids is None else [row.numpy() for row in type_ids[0].cpu().split(lengths)]
    # Similar lengths side by side, so that little padding is computed.
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    # One pool of noise for all calls of the batch.
    token = NOISE.set(Noise())
    try:
        apart = texts_per_row(model) > 1
        answered = padded_vectors if apart else padded_logits
        found = [
            answered(model, [rows[i] for i in part], types and [types[i] for i in part])
            for part in _similar(order, lengths, 1.0 if alike else SHORTEST)
        ]
        # Back in the order they were given in.
        logits = torch.cat(found)[torch.tensor(order).argsort()]
        return model.answer(logits) if apart else logits
    finally:
        NOISE.reset(token)


def warn_padded(model: Any, *, alike: bool) -> None:
    """Warns, once per class of models and process, that padding is computed, or that only texts of one length run together."""
    # A head of ours says nothing of the family.
    name = type(model.base_model if isinstance(model, LinearHead) else model).__name__
    if name not in _warned:
        _warned.add(name)
        # A warning and not a log line: the engine is much slower here, and nothing else would say so.
        how = (
            "only texts of one length run together, since padding changes its answers" if alike else "texts are padded"
        )
        message = f"{name} cannot run on padding-free batches: {how}, which is slower"
        warnings.warn(message, stacklevel=4)  # names the second caller above `prepare`


def _similar(order: list[int], lengths: list[int], shortest: float) -> Iterator[list[int]]:
    """`order` (longest first) cut where a text is shorter than `shortest` times the longest of its part."""
    part: list[int] = []
    for i in order:
        if part and lengths[i] < shortest * lengths[part[0]]:
            yield part
            part = []
        part.append(i)
    yield part
