"""Probabilities that are as often right as they say, by one temperature; and how far they are from that."""

# Shapes: N rows, C classes, M decisions (N, or N C where a row may have several classes).

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, counted
from .threshold import FEW_ROWS

COLDEST, HOTTEST = 0.3, 5.0  # what a temperature may be
N_BINS = 15  # of confidence, in the calibration error and the diagram
_STEPS = 50


def check_calibrates(kind: str, n_rows: int, asked: bool | None) -> bool:
    """Whether the probabilities of a task are calibrated on so many validation rows; where nothing is `asked`, if they can be.

    Raises InputError where it is asked for and cannot be.
    """
    if asked and kind == "regression":
        raise InputError(
            "calibrate is for classes: a regression has no probabilities to calibrate (leave --calibrate out)"
        )
    if asked and n_rows < FEW_ROWS:
        raise InputError(
            f"calibrate needs {FEW_ROWS} validation rows, and there {'is' if n_rows == 1 else 'are'} {n_rows}: give more "
            "(--validation FILE or a larger share), or leave --calibrate out"
        )
    return asked is not False and kind != "regression" and n_rows >= FEW_ROWS


def best_temperature(logits: NDArray, truth: NDArray) -> float:
    """The T, of three digits and between COLDEST and HOTTEST, that gives logits / T the lowest log-loss.

    Guo et al. 2017 (arXiv 1706.04599). Logits are (N, C), `truth` class numbers (N,), whose probabilities are a softmax, or
    classes as 0 and 1 (N, C), each a sigmoid. Where all decisions are right the rows say nothing of errors, and T is not below 1.
    """
    logits = logits.astype(np.float64)
    right = (logits.argmax(-1) == truth) if truth.ndim == 1 else ((logits >= 0) == (truth > 0.5)).all(-1)
    coldest = 1.0 if right.all() else COLDEST
    # By b = 1 / T the loss is convex: Newton's steps, and halves of what is left where one would leave it.
    low, high, b = 1 / HOTTEST, 1 / coldest, 1.0
    for _ in range(_STEPS):
        slope, curve = _slopes(logits, truth, b)
        low, high = (low, b) if slope > 0 else (b, high)
        step = b - slope / curve if curve > 0 else np.inf
        after = step if low < step < high else (low + high) / 2
        if abs(after - b) < 1e-9:
            break
        b = after
    return float(f"{min(HOTTEST, max(coldest, 1 / b)):.3g}")


def _slopes(logits: NDArray, truth: NDArray, b: float) -> tuple[float, float]:
    """The first and second derivative of the mean log-loss of logits * b by b."""
    if truth.ndim == 2:
        from scipy.special import expit

        p = expit(b * logits)
        return float((logits * (p - truth)).mean()), float((logits**2 * p * (1 - p)).mean())
    z = b * logits
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = (p * logits).sum(-1)
    own = np.take_along_axis(logits, truth[:, None].astype(np.int64), 1)[:, 0]
    return float((mean - own).mean()), float(((p * logits**2).sum(-1) - mean**2).mean())


def confidences(likely: NDArray, truth: NDArray) -> tuple[NDArray, NDArray]:
    """How sure each decision is and whether it is right, both (M,), from probabilities and labels as in `best_temperature`.

    A decision is the most probable class of a row; where a row may have several classes, each class at one half.
    """
    if truth.ndim == 1:
        return likely.max(-1), likely.argmax(-1) == truth
    return np.maximum(likely, 1 - likely).ravel(), ((likely >= 0.5) == (truth > 0.5)).ravel()


def reliability(confidence: NDArray, right: NDArray) -> list[dict[str, Any]]:
    """For each bin of confidence that holds decisions: their number, mean confidence and share that is right."""
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    count, sure, hits = (np.bincount(bins, weights, N_BINS) for weights in (None, confidence, right.astype(float)))
    return [
        {"decisions": int(count[i]), "confidence": float(sure[i] / count[i]), "right": float(hits[i] / count[i])}
        for i in np.flatnonzero(count)
    ]


def calibration_line(found: Mapping[str, Any]) -> str:
    """What a fit says of a calibration, from its record."""
    said = ", ".join(
        f"{name} {found['before'][key]:.3f} before and {found['after'][key]:.3f} after"
        for key, name in (("calibration_error", "calibration error"), ("loss", "log-loss"))
    )
    rows = counted(found["rows"], "validation row")
    return (
        f"Probabilities are calibrated: temperature {found['temperature']:g}, fitted on {rows}; {said}, on these rows."
    )
