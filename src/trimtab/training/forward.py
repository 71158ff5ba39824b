"""Logits of many rows, in batches of similar length, without gradients."""

from typing import Any

import torch
from torch import Tensor

from ..encoders.packed import forward, pack
from ..tasks.batches import Batch, Tokens, token_groups


def batch_logits(model: Any, batch: Batch) -> Tensor:
    """Float32 logits (B, C) of one batch, with gradients where the caller wants them."""
    return forward(model, pack(batch.ids, batch.type_ids, model))


@torch.no_grad()
def all_logits(model: Any, tokens: Tokens, tokens_per_batch: int) -> Tensor:
    """Float32 logits (N, C) of every row of `tokens`, on the CPU and in their order, in evaluation mode."""
    was_training = model.training
    model.eval()
    logits = torch.empty(len(tokens), 0)
    for rows in token_groups(tokens.lengths, range(len(tokens)), tokens_per_batch):
        found = batch_logits(model, tokens.take(rows.tolist())).cpu()
        if logits.shape[1] == 0:
            logits = torch.empty(len(tokens), found.shape[1])
        logits[torch.from_numpy(rows)] = found
    model.train(was_training)
    return logits
