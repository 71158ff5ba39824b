"""Proof that a saved delta is whole: read back, applied to a fresh model, and compared."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..changes.delta import TENSORS, Delta
from ..tasks.batches import Tokens
from .forward import all_logits
from .workbench import Workbench

_ROWS = 16  # enough to meet every saved tensor, few enough to cost little


def check_saved(folder: Path, bench: Workbench, logits: Tensor) -> None:
    """Raises OSError unless the delta in `folder`, on a fresh copy of the encoder, gives the trained model's logits (N, C)."""
    rows = np.linspace(0, len(bench.validation) - 1, min(_ROWS, len(bench.validation))).astype(int).tolist()
    batch = bench.validation.take(rows)
    some = Tokens(batch.ids, batch.type_ids, batch.labels, bench.validation.truncation)
    again = Delta.load(folder).attach(bench.encoder)
    found = all_logits(again, some, bench.settings.tokens_per_batch)
    if not torch.allclose(found, logits[rows], rtol=1e-3, atol=1e-3):  # batches differ, so sums are rounded differently
        gap = float((found - logits[rows]).abs().max())
        raise OSError(f"{folder / TENSORS} does not reproduce the trained model (logits differ by {gap:.2g})")
