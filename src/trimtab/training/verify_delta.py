"""Proof that a saved delta is whole: read back, applied to a fresh model, and compared."""

from pathlib import Path

import numpy as np
from torch import Tensor

from ..changes.delta import TENSORS, Delta
from ..encoders.heads import agree
from ..encoders.inputs import Inputs
from ..engine import PreparedModel, prepare
from .logits import all_logits
from .workbench import Workbench

_ROWS = 16  # enough to meet every saved tensor, few enough to cost little


def check_saved(folder: Path, bench: Workbench) -> None:
    """Deletes the delta in `folder` and raises OSError unless it gives the trained model's logits on a fresh copy of the encoder.

    Both run in float32, and in the same batch, so that nothing but the saved values can differ.
    """
    # Spread over the split, its first and last row among them.
    rows = np.linspace(0, len(bench.validation) - 1, min(_ROWS, len(bench.validation))).astype(int).tolist()
    some = bench.validation.inputs.subset(rows)
    bench.prepared.use("float32")
    trained = _logits(bench.prepared, some)
    with prepare(Delta.load(folder).attach(bench.encoder).to(bench.prepared.device), "float32") as again:
        found = _logits(again, some)
    if not agree(bench.model, found, trained, rtol=1e-5, atol=1e-5):
        gap = float((found - trained).abs().max())
        (folder / TENSORS).unlink()
        raise OSError(f"{folder / TENSORS} does not reproduce the trained model (logits differ by {gap:.2g})")


def _logits(prepared: PreparedModel, inputs: Inputs) -> Tensor:
    """Float32 logits (N, C) of all rows, run as one batch."""
    return all_logits(prepared, inputs, int(inputs.lengths.sum()))
