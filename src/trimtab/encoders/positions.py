"""The table of learned positions that an encoder may have: which one a token is given, and how long a text may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import AutoModel


def uncounted(model: nn.Module) -> int | None:
    """The token that positions do not count, and whose id is its position: padding in the RoBERTa family, else None."""
    table = _table(model)
    return None if table is None else table.padding_idx


def position_ids(ids: Sequence[np.ndarray], uncounted: int | None) -> np.ndarray:
    """The position (T,) of every token of the texts `ids`, one text behind the other, where `uncounted` is as above."""
    flat = np.concatenate(ids)
    counts = np.ones(len(flat), np.int64) if uncounted is None else (flat != uncounted).astype(np.int64)
    so_far = counts.cumsum()
    lengths = np.fromiter(map(len, ids), np.int64, count=len(ids))
    starts = lengths.cumsum() - lengths
    # In its own text, from 1 on; a text may be cut to nothing.
    within = so_far - np.concatenate([[0], so_far])[starts].repeat(lengths)
    return within - 1 if uncounted is None else within * counts + uncounted


def most_positions(config: object) -> int | None:
    """Tokens that the position table of a transformers configuration has room for; None where there is no such table."""
    with torch.device("meta"):  # modules and their sizes, without values
        model = AutoModel.from_config(config)
    table = _table(model)
    return None if table is None else table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def _table(model: nn.Module) -> nn.Embedding | None:
    """The table of learned positions, by its name; None where the encoder has none."""
    named = model.named_modules()
    return next((m for name, m in named if name.endswith("position_embeddings") and isinstance(m, nn.Embedding)), None)
