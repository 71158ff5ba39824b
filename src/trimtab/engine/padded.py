"""Run a model on padded texts: Hugging Face's own way, slow and exact, and for families that cannot run packed.

A batch of those is a few calls on texts of similar length each.
"""

# Shapes: T tokens, B texts, H width, C outputs.

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..encoders.heads import LinearHead, ModelWithHead
from ..encoders.inputs import ModelInputs
from .dropout import MASKS, DropoutMasks

SHORTEST = 0.75  # of a call's longest text; below that a text waits for the next call

_warned: set[str] = set()  # names of the model classes that `warn_padded` has spoken of


def padded_logits(model: ModelWithHead, inputs: ModelInputs) -> Tensor:
    """Float32 logits (B, C) of B texts, or of the 2 B texts of B pairs apart."""
    return model(**_tensors(model, inputs)).logits.float()


def padded_vectors(model: LinearHead, inputs: ModelInputs) -> Tensor:
    """The pooled vectors (B, H) of B texts, for a LinearHead."""
    return model.pooled(**_tensors(model, inputs)).float()


def bucketed_logits(model: ModelWithHead, inputs: ModelInputs, *, alike: bool = False) -> Tensor:
    """Float32 logits (B, C), a few calls on texts of similar length each.

    With `alike` only texts of one length run together, so that nothing is padded. Of pairs apart, which are two texts each, the
    texts run where their lengths put them, and their vectors meet behind.
    """
    lengths = inputs.lengths
    # Similar lengths side by side, so that little padding is computed.
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    # One pool of masks for all calls of the batch.
    token = MASKS.set(DropoutMasks())
    try:
        apart = model if isinstance(model, LinearHead) and model.texts_per_row > 1 else None
        parts = [inputs.take(part) for part in _similar(order, lengths, 1.0 if alike else SHORTEST)]
        found = [padded_logits(model, part) if apart is None else padded_vectors(apart, part) for part in parts]
        # Back in the order they were given in.
        logits = torch.cat(found)[torch.tensor(order).argsort()]
        return logits if apart is None else apart.answer(logits)
    finally:
        MASKS.reset(token)


def warn_padded(model: ModelWithHead, *, alike: bool) -> None:
    """Warns, once per class of models and process, that padding is computed, or that only texts of one length run together."""
    # A head of ours says nothing of the family.
    name = type(model.base_model if isinstance(model, LinearHead) else model).__name__
    if name not in _warned:
        _warned.add(name)
        # A warning and not a log line: the engine is much slower here, and nothing else would say so.
        how = (
            "only texts of one length run together, since padding changes its predictions" if alike else "texts are padded"
        )
        message = f"{name} cannot run on padding-free batches: {how}, which is slower"
        warnings.warn(message, stacklevel=6)  # names the second caller above `prepare`


def _tensors(model: ModelWithHead, inputs: ModelInputs) -> dict[str, Tensor]:
    """What the model's forward takes, on its device."""
    device = next(model.parameters()).device
    lengths = torch.tensor(inputs.lengths)
    # Some families have no padding token; the mask hides whatever stands there.
    tensors = {"input_ids": _block(inputs.ids, getattr(model.config, "pad_token_id", None) or 0)}
    # 1 on tokens and 0 on padding, (B, longest).
    tensors["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if inputs.type_ids is not None:
        tensors["token_type_ids"] = _block(inputs.type_ids, 0)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _block(rows: Sequence[np.ndarray], padding: int) -> Tensor:
    """The rows (B, longest) as int64, filled up with `padding`."""
    block = np.full((len(rows), max(len(row) for row in rows)), padding, dtype=np.int64)
    for i, row in enumerate(rows):
        block[i, : len(row)] = row
    return torch.from_numpy(block)


def _similar(order: list[int], lengths: list[int], shortest: float) -> Iterator[list[int]]:
    """`order` (longest first) cut where a text is shorter than `shortest` times the longest of its part."""
    part: list[int] = []
    for i in order:
        if part and lengths[i] < shortest * lengths[part[0]]:
            yield part
            part = []
        part.append(i)
    yield part
