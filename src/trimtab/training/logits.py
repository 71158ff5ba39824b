"""Logits of many rows, in batches of similar length, without gradients."""

# Shapes: N rows of a split, B rows of a batch, C outputs.

import numpy as np
import torch
from torch import Tensor

from ..encoders.inputs import Inputs
from ..engine import PreparedModel
from .batches import token_groups
from .frozen_prefix import Prefix
from .ranks import ALONE, Ranks


def batch_logits(prepared: PreparedModel, inputs: Inputs, rows: np.ndarray, prefix: Prefix | None = None) -> Tensor:
    """Float32 logits (B, C) of the rows at `rows`, from their prefix where there is one; with autograd."""
    if prefix is not None:
        return prefix.logits(prepared, rows)
    return prepared.logits(inputs.take(rows.tolist()))


def all_logits(
    prepared: PreparedModel, inputs: Inputs, tokens_per_batch: int, prefix: Prefix | None = None, ranks: Ranks = ALONE,
    width: int | None = None,
) -> Tensor:  # fmt: skip
    """Float32 logits (N, C) of every row of `inputs`, on the CPU and in their order, in evaluation mode.

    Ranks compute a share of the rows each, and all get the logits of all. `width` takes the place of C where the model's last
    map does not compute (see linear_probe.py).
    """
    # By tokens, cached or not: the same groups come to the same bits.
    lengths = inputs.lengths
    logits = torch.zeros(len(inputs), width or prepared.n_outputs)
    with prepared.evaluating():
        for rows in token_groups(lengths, ranks.share(np.arange(len(inputs)), lengths), tokens_per_batch):
            logits[torch.from_numpy(rows)] = batch_logits(prepared, inputs, rows, prefix).cpu()
    # Rows of other ranks are zeros here, so that the sum over the ranks is all of them.
    if ranks.count > 1:
        everywhere = logits.to(prepared.device)
        ranks.add_up([everywhere])
        logits = everywhere.cpu()
    return logits
