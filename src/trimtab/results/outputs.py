"""A model's outputs to many rows as a short text, precise to nearly five digits: any metric can be had of them later."""

# Shapes: N rows, C classes.

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from .resampled_scores import likely

_DROPPED = 8  # of the 24 bits of a float32's fraction, which are rounded off


def packed(kind: str, outputs: NDArray) -> str | None:
    """The outputs (N, C) as text; None for regression, whose outputs are its predictions.

    Of single_label rows the last class's output is taken off the others and left out: a softmax does not change by that. What is
    left is rounded to 16 significant bits (a relative error of 1.6e-5 at most), its bytes are sorted by their place in a
    number and deflated: 3.5 KB for 1,000 rows of two classes, and as much for each further one.
    """
    if kind == "regression":
        return None
    values = np.asarray(outputs, np.float32)
    if kind == "single_label":
        values = values[:, :-1] - values[:, -1:]
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded = ((bits + (1 << (_DROPPED - 1))) >> _DROPPED).astype("<u4")
    planes = rounded.ravel().view(np.uint8).reshape(-1, 4)[:, :3].T
    return f"{kind}:{values.shape[1]}:{base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()}"


def unpacked(text: str) -> NDArray:
    """The outputs (N, C) float32 that `packed` made `text` of; raises ValueError for another text."""
    kind, width, coded = text.split(":")
    planes = np.frombuffer(zlib.decompress(base64.b64decode(coded)), np.uint8).reshape(3, -1)
    bits = np.zeros((planes.shape[1], 4), np.uint8)
    bits[:, 1:] = planes.T
    values = bits.view("<f4").reshape(-1, int(width))
    return np.pad(values, ((0, 0), (0, 1))) if kind == "single_label" else values


def probabilities_of(text: str) -> NDArray:
    """The probabilities (N, C) float64 in what `packed` made."""
    return likely(unpacked(text), several=not text.startswith("single_label:"))
