"""A task by frozen vectors: what a linear probe says of rows that it was not fitted on."""

# Shapes: N rows, F features, C outputs.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..encoders.choices import Compute
from ..encoders.encoder import Encoder
from ..engine import prepare
from ..results.recipe import Settings
from ..tasks.losses import TaskLoss, label_tensor
from ..tasks.task import Rows, Task
from .frozen_prefix import MOST_TOKENS
from .linear_probe import fitted_probe, folded_logits, head_inputs
from .ranks import device

FOLDS = 5


def frozen_vectors(encoder: Encoder, task: Task, rows: Rows, settings: Settings, compute: Compute = "auto") -> Tensor:
    """The means of the token states of each row (N, F) float32, as the encoder makes them without any training.

    The texts of a pair are read apart, and their vectors compared: together they say little before anything is trained.
    """
    apart = len(task.text_columns) > 1
    model = encoder.with_head(task, 0, "linear", 0.0, "apart" if apart else "together").to(device()).eval()
    model.requires_grad_(False)
    inputs = encoder.inputs(
        rows.texts, min(settings.max_length, encoder.max_length), apart=apart, most_bytes=settings.cache_bytes
    )
    inputs.check(model)
    with prepare(model, compute) as prepared:
        found = head_inputs(prepared, inputs, MOST_TOKENS)
    assert found is not None  # a head of ours has one map and nothing behind it
    return found


def out_of_fold(vectors: Tensor, task: Task, rows: Rows, groups: np.ndarray, n_folds: int = FOLDS) -> np.ndarray:
    """Probabilities (N, C), or numbers (N,), of labelled rows by probes that have seen neither the row nor one of its group.

    The strength of the penalty is chosen once, on all rows: one number of thousands.
    """
    labels, loss = label_tensor(task, rows), TaskLoss(task.kind)
    strength = fitted_probe(vectors, labels, loss, task.n_outputs).strengths
    every = torch.tensor(strength, dtype=torch.float64).expand(task.n_outputs) if len(strength) == 1 else None
    strengths = torch.tensor(strength, dtype=torch.float64) if every is None else every
    if len(strengths) != task.n_outputs:  # those of neighbouring classes were alike
        strengths = strengths[:1].expand(task.n_outputs)
    fold = torch.from_numpy(folds(task, rows, groups, n_folds))
    logits = folded_logits(vectors, labels, loss, task.n_outputs, strengths, fold)
    if task.kind == "regression":
        return logits.squeeze(-1).numpy()
    return (logits.softmax(-1) if task.kind == "single_label" else logits.sigmoid()).numpy()


def folds(task: Task, rows: Rows, groups: np.ndarray, n_folds: int) -> np.ndarray:
    """The fold (N,) of each row: groups whole, and of every class (of single-label rows) about as many rows in each.

    Where a class has fewer groups than there are folds, some folds have none of it.
    """
    n = len(rows)
    members: dict[int, list[int]] = {}
    for row in np.random.default_rng(0).permutation(n):
        members.setdefault(int(groups[row]), []).append(int(row))
    of = [label if task.kind == "single_label" else 0 for label in rows.labels]
    counts = np.zeros((n_folds, max(1, len(task.classes))), np.int64)
    fold = np.empty(n, np.int64)
    # The largest first, each where there are fewest of its first row's class, then fewest rows.
    for rows_of in sorted(members.values(), key=len, reverse=True):
        k = int(np.lexsort((counts.sum(1), counts[:, of[rows_of[0]]]))[0])
        for row in rows_of:
            fold[row] = k
            counts[k, of[row]] += 1
    return fold
