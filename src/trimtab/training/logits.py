"""Logits of many rows, in batches of similar length, without gradients."""

# Shapes: N rows of a split, B rows of a batch, C outputs.

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders.heads import ModelWithHead
from ..encoders.inputs import ModelInputs
from ..engine import PreparedModel
from ..errors import InputError
from ..tasks.batches import Tokens, token_groups
from .frozen_prefix import Prefix
from .ranks import ALONE, Ranks


def batch_logits(prepared: PreparedModel, tokens: Tokens, rows: np.ndarray, prefix: Prefix | None = None) -> Tensor:
    """Float32 logits (B, C) of the rows at `rows`, from their prefix where there is one; with autograd."""
    if prefix is not None:
        return prefix.logits(prepared, rows)
    return prepared.logits(ModelInputs(*tokens.take(rows.tolist()).texts()))


def check_ids(model: ModelWithHead, tokens: Tokens) -> None:
    """Raises InputError for tokens or segments that the encoder has no embeddings of, which torch would stumble over."""
    body: Any = model.base_model
    try:
        words = body.get_input_embeddings()
    except NotImplementedError:  # a family that has several
        return
    segments = (m for name, m in body.named_modules() if name.endswith("token_type_embeddings"))
    for what, table, ids in (
        ("token", words, tokens.ids),
        ("segment", next(segments, None), tokens.type_ids),
    ):
        known = getattr(table, "num_embeddings", None)  # families have tables of other kinds
        highest = max((int(each.max()) for each in ids or () if len(each)), default=0)
        if known is not None and highest >= known:
            raise InputError(
                f"a text has {what} {highest}, and the encoder knows {known:,} of them, from 0: its tokenizer is not its own, or "
                "had words added without resizing the model (model.resize_token_embeddings)"
            )


def all_logits(
    prepared: PreparedModel, tokens: Tokens, tokens_per_batch: int, prefix: Prefix | None = None, ranks: Ranks = ALONE,
    width: int | None = None,
) -> Tensor:  # fmt: skip
    """Float32 logits (N, C) of every row of `tokens`, on the CPU and in their order, in evaluation mode.

    Ranks compute a share of the rows each, and all get the logits of all. `width` takes the place of C where the model's last
    map does not answer (see linear_probe.py).
    """
    # By tokens, cached or not: the same groups come to the same bits.
    lengths = tokens.lengths
    logits = torch.zeros(len(tokens), width or prepared.n_outputs)
    with prepared.evaluating():
        for rows in token_groups(lengths, ranks.share(np.arange(len(tokens)), lengths), tokens_per_batch):
            logits[torch.from_numpy(rows)] = batch_logits(prepared, tokens, rows, prefix).cpu()
    # Rows of other ranks are zeros here, so that the sum over the ranks is all of them.
    if ranks.count > 1:
        everywhere = logits.to(prepared.device)
        ranks.add_up([everywhere])
        logits = everywhere.cpu()
    return logits
