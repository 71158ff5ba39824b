"""The table of learned positions that an encoder may have: where it begins and how long a text may be."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModel


def first_position(model: nn.Module) -> int:
    """The position id of a text's first token: padding_idx + 1 in the RoBERTa family, whose position table has one."""
    table = _table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def most_positions(config: object) -> int | None:
    """Tokens that the position table of a transformers configuration has room for; None where there is no such table."""
    with torch.device("meta"):  # modules and their sizes, without values
        model = AutoModel.from_config(config)
    table = _table(model)
    return None if table is None else table.num_embeddings - first_position(model)


def _table(model: nn.Module) -> nn.Embedding | None:
    """The table of learned positions, by its name; None where the encoder has none."""
    named = model.named_modules()
    return next((m for name, m in named if name.endswith("position_embeddings") and isinstance(m, nn.Embedding)), None)
