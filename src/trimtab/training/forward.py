"""Logits of many rows, in batches of similar length, without gradients."""

# Shapes: N rows of a split, B rows of a batch, C outputs.

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders.packed import forward, pack
from ..encoders.probe import evaluating
from ..tasks.batches import Tokens, token_groups
from .prefix import Prefix
from .ranks import ALONE, Ranks


def batch_logits(model: Any, tokens: Tokens, rows: np.ndarray, prefix: Prefix | None = None) -> Tensor:
    """Float32 logits (B, C) of the rows at `rows`, from their prefix where there is one; with autograd."""
    if prefix is not None:
        return prefix.logits(model, rows)
    batch = tokens.take(rows.tolist())
    return forward(model, pack(batch.ids, batch.type_ids, model))


def all_logits(
    model: Any, tokens: Tokens, tokens_per_batch: int, prefix: Prefix | None = None, ranks: Ranks = ALONE
) -> Tensor:
    """Float32 logits (N, C) of every row of `tokens`, on the CPU and in their order, in evaluation mode.

    Ranks compute a share of the rows each, and all get the logits of all.
    """
    # By tokens, cached or not: the same groups come to the same bits.
    lengths = tokens.lengths
    logits = torch.zeros(len(tokens), model.num_labels)
    with evaluating(model):
        for rows in token_groups(lengths, ranks.share(np.arange(len(tokens)), lengths), tokens_per_batch):
            logits[torch.from_numpy(rows)] = batch_logits(model, tokens, rows, prefix).cpu()
    # Rows of other ranks are zeros here, so that the sum over the ranks is all of them.
    if ranks.count > 1:
        everywhere = logits.to(next(model.parameters()).device)
        ranks.add_up([everywhere])
        logits = everywhere.cpu()
    return logits
