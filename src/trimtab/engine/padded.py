"""Run a model on texts padded to the longest of the batch: Hugging Face's own way, slow and exact."""

# Shapes: B texts, C outputs.

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def padded_logits(model: Any, ids: Sequence[np.ndarray], type_ids: Sequence[np.ndarray] | None) -> Tensor:
    """Float32 logits (B, C) for the token ids (and segment ids) of B texts, or of the 2 B texts of B pairs apart."""
    return model(**_inputs(model, ids, type_ids)).logits.float()


def padded_vectors(model: Any, ids: Sequence[np.ndarray], type_ids: Sequence[np.ndarray] | None) -> Tensor:
    """The pooled vectors (B, H) of B texts, for a LinearHead."""
    return model.pooled(**_inputs(model, ids, type_ids)).float()


def _inputs(model: Any, ids: Sequence[np.ndarray], type_ids: Sequence[np.ndarray] | None) -> dict[str, Tensor]:
    """What the model's forward takes, on its device."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(row) for row in ids])
    # Some families have no padding token; the mask hides whatever stands there.
    inputs = {"input_ids": _block(ids, getattr(model.config, "pad_token_id", None) or 0)}
    # 1 on tokens and 0 on padding, (B, longest).
    inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if type_ids is not None:
        inputs["token_type_ids"] = _block(type_ids, 0)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def _block(rows: Sequence[np.ndarray], padding: int) -> Tensor:
    """The rows (B, longest) as int64, filled up with `padding`."""
    block = np.full((len(rows), max(len(row) for row in rows)), padding, dtype=np.int64)
    for i, row in enumerate(rows):
        block[i, : len(row)] = row
    return torch.from_numpy(block)
