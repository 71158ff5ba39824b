"""Proof that a saved delta is whole: read back, applied to a fresh model, and compared."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..changes.delta import TENSORS, Delta
from ..encoders.heads import agree
from ..engine.packed import prepare
from ..tasks.batches import Tokens
from .logits import all_logits
from .workbench import Workbench

_ROWS = 16  # enough to meet every saved tensor, few enough to cost little


def check_saved(folder: Path, bench: Workbench) -> None:
    """Deletes the delta in `folder` and raises OSError unless it gives the trained model's logits on a fresh copy of the encoder.

    Both run in float32, and in the same batch, so that nothing but the saved values can differ.
    """
    # Spread over the split, its first and last row among them.
    rows = np.linspace(0, len(bench.validation) - 1, min(_ROWS, len(bench.validation))).astype(int).tolist()
    some = bench.validation.take_tokens(rows)
    again = Delta.load(folder).attach(bench.encoder).to(next(bench.model.parameters()).device)
    trained, found = (_exact_logits(model, some) for model in (bench.model, again))
    if not agree(bench.model, found, trained, rtol=1e-5, atol=1e-5):
        gap = float((found - trained).abs().max())
        (folder / TENSORS).unlink()
        raise OSError(f"{folder / TENSORS} does not reproduce the trained model (logits differ by {gap:.2g})")


def _exact_logits(model: Any, tokens: Tokens) -> Tensor:
    """Float32 logits (N, C) of all rows, run as one batch; `model` stays prepared for float32."""
    prepare(model, compute="float32")
    return all_logits(model, tokens, int(tokens.lengths.sum()))
