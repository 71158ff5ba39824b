"""One temperature for a finished run, written into its head, so that whoever reads the delta has calibrated probabilities."""

# Shapes: N rows, C classes.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..encoders.heads import last_map
from ..tasks.abstention import risk_coverage
from ..tasks.calibration import best_temperature, calibration_line, check_calibrates, confidences, reliability
from ..tasks.metrics import probabilities, scores
from .logits import all_logits
from .workbench import Workbench

_ROWS, _TOLERANCE = 8, 1e-2  # that the divided head is tried on, and by how much of the largest logit it may be off


class Calibrated(NamedTuple):
    """A run whose probabilities are calibrated, or have been looked at."""

    logits: Tensor  # (N, C) of the validation rows
    record: dict[str, Any] | None  # for scores.json; None for a regression
    lines: list[str]  # what is to be said of it


def calibrated(bench: Workbench, logits: Tensor) -> Calibrated:
    """Divides the logits of the workbench's model, which are `logits` (N, C) on the validation rows, by their best temperature.

    It is folded into the head's last map, and so into the values that the delta holds: no reader of them, and no program that an
    export is for, can forget it. The class of a row stays what it was. Nothing is done where there are few rows, where the
    settings say so, and where the head does not end in a linear map.
    """
    kind, labels = bench.task.kind, bench.validation.labels
    assert labels is not None
    wanted = check_calibrates(kind, len(labels), bench.settings.calibrate)
    if kind == "regression":
        return Calibrated(logits, None, [])
    record = {"temperature": 1.0, "fitted": False, "rows": len(labels), "before": _seen(bench, logits), "after": None}
    # The order of rows by confidence changes with the temperature, if by little.
    record["risk_coverage"] = _curve(kind, logits, labels)
    if not wanted:
        return Calibrated(logits, record, [])
    temperature = best_temperature(logits.numpy(), labels.numpy())
    if temperature != 1 and not _divide(bench, temperature):
        said = "Probabilities are not calibrated: the head of this encoder's family does not end in a linear map."
        return Calibrated(logits, record, [said])
    logits = logits / temperature
    record |= {"temperature": temperature, "fitted": True, "after": _seen(bench, logits)}
    record["risk_coverage"] = _curve(kind, logits, labels)
    return Calibrated(logits, record, [calibration_line(record)])


def _seen(bench: Workbench, logits: Tensor) -> dict[str, Any]:
    """Calibration error, log-loss and the reliability diagram of logits (N, C) of the validation rows."""
    task, labels = bench.task, bench.validation.labels
    assert labels is not None
    found = {name: scores(task, logits, labels, only=name)[name] for name in ("calibration_error", "loss")}
    return found | {"bins": reliability(*confidences(probabilities(task.kind, logits).numpy(), labels.numpy()))}


def _curve(kind: str, logits: Tensor, labels: Tensor) -> list[dict[str, float]] | None:
    """The error by the share of rows answered; None where a row may have several classes."""
    if kind == "multi_label":
        return None
    return risk_coverage(*confidences(probabilities(kind, logits).numpy(), labels.numpy()))


@torch.no_grad()
def _divide(bench: Workbench, temperature: float) -> bool:
    """Divides the last map of the model's head, and says whether its logits are divided by that; else all is as it was."""
    found = last_map(bench.model)
    named = {} if found is None else {f"{found[0]}.{name}": each for name, each in found[1].named_parameters()}
    # What is not trained, and whole, is no part of the delta.
    if not named or any(bench.selection.elements.get(name, ()) is not None for name in named):
        return False
    some = bench.validation.inputs.subset(range(min(_ROWS, len(bench.validation))))
    before, kept = _logits(bench, some), {name: each.clone() for name, each in named.items()}
    for each in named.values():
        each.div_(temperature)
    off = (_logits(bench, some) * temperature - before).abs().max()
    if float(off) <= _TOLERANCE * max(1.0, float(before.abs().max())):
        return True
    for name, each in named.items():
        each.copy_(kept[name])
    return False


def _logits(bench: Workbench, inputs: Any) -> Tensor:
    return all_logits(bench.prepared, inputs, bench.memory.tokens)
