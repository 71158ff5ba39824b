"""Small models whose answers are far from even, and what is measured on them."""

from typing import Any

import torch
from small import examples_of, make_task

from trimtab.changes.fisher import Fisher, Meter
from trimtab.changes.selection import Selection
from trimtab.encoders.parameter_kinds import parts_of
from trimtab.training.batches import Batch, Examples

SEED = 5
AT = 5  # texts in the first of the two batches that are measured


def examples_of_kind(encoder: Any, kind: str, n_rows: int = 14, *, pairs: bool = False) -> Examples:
    return examples_of(encoder, make_task(kind, n_train=n_rows, n_validation=4, pairs=pairs))


def model_of(encoder: Any, kind: str, head: str = "default") -> Any:
    model = encoder.with_head(make_task(kind), 0, head).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that estimators differ
        for name, parameter in model.named_parameters():
            if parts_of(model)[name].is_head:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def two_batches(examples: Examples) -> list[Batch]:
    return [examples.take(range(AT)), examples.take(range(AT, len(examples)))]


def measured(
    model: Any, within: Selection, examples: Examples, kind: str, estimator: str = "empirical",
    compute: Any = "float32",
) -> Fisher:  # fmt: skip
    meter = Meter(model, within, kind, estimator, SEED)
    with meter.measuring(compute):
        for batch in two_batches(examples):
            meter.add(batch)
    return meter.result()
