"""One work done by trimtab."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional
from works import BATCH_SIZE, MAX_LENGTH, Work

from trimtab.changes.method_text import parse_method
from trimtab.encoders.encoder import Encoder
from trimtab.encoders.parameter_kinds import layers_of
from trimtab.inference.predictor import Predictor
from trimtab.tasks.task import Rows, Task
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up


def run_fit(work: Work, encoder: Encoder, task: Task, seed: int) -> dict[str, Any]:
    """Seconds of the whole fit, tokenisation and the validation before training included, and the best score."""
    started = time.perf_counter()
    run = fit(
        encoder, task, parse_method(work.method), epochs=work.epochs, batch_size=BATCH_SIZE, lr=work.lr,
        head_lr=work.head_lr, max_length=MAX_LENGTH, seed=seed,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds, "score": run.scores[task.metric], "memory_estimate": run.details["memory_estimate"],
        "step_seconds": len(task.train) * work.epochs / run.examples_per_second,
    }  # fmt: skip


def run_prediction(encoder: Encoder, task: Task, rows: Rows) -> dict[str, Any]:
    """Seconds to predict `rows` with a delta that is loaded but has predicted nothing yet."""
    small = replace(task, splits={name: split.take(range(64)) for name, split in task.splits.items()})
    run = fit(encoder, small, parse_method("layer_norms"), epochs=1)
    predictor = Predictor(run, encoder)
    started = time.perf_counter()
    found = predictor.predictions(rows)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "labels": [prediction.label for prediction in found], "run": run}


def floor(work: Work, encoder: Encoder, task: Task, matmul_flops: float) -> dict[str, Any]:
    """The products that the work cannot do without, and the seconds they take at `matmul_flops` per second.

    A token costs 2 FLOPs per matrix element forward, 2 more where backward crosses a layer, 2 more where its matrices
    are trained, and 4 per token of its text and unit of width in attention (8 backward). Layers below the first trained one
    are run once. Validation is `epochs` + 1 passes, of the layers that are not cached.
    """
    from trimtab.results.recipe import Settings

    bench = set_up(encoder, task, parse_method(work.method), Settings(max_length=MAX_LENGTH, epochs=work.epochs))
    layers = layers_of(bench.model)
    module = bench.model.get_submodule(f"{layers.path}.0")
    matrices = sum(p.numel() for p in module.parameters() if p.ndim == 2)  # LoRA's own are so few that they may count
    first = max(0, min(layers.count, bench.selection.first_layer))
    width, trains_matrices = encoder.config.hidden_size, work.method.startswith(("full", "last_layers"))
    flops = 0.0
    for tokens, visits, is_training in ((bench.train, work.epochs, True), (bench.validation, work.epochs + 1, False)):
        lengths = torch.as_tensor(tokens.lengths, dtype=torch.float64)
        n_tokens, squares = float(lengths.sum()), float((lengths**2).sum())
        forward = 2 * matrices * n_tokens + 4 * width * squares
        backward = (2 + 2 * trains_matrices) * matrices * n_tokens + 8 * width * squares if is_training else 0.0
        flops += forward * (first + visits * (layers.count - first)) + backward * visits * (layers.count - first)
    return {"flops": flops, "seconds": flops / matmul_flops}


def matmul_flops() -> float:
    """FLOPs per second of products of this encoder's shapes in the faster arithmetic, the best of a second's tries of each."""
    return max(_matmul_flops(dtype) for dtype in (torch.float32, torch.bfloat16))


def _matmul_flops(dtype: torch.dtype) -> float:
    x, w = torch.randn(2048, 384).to(dtype), torch.randn(1536, 384).to(dtype)
    best, ends = float("inf"), time.perf_counter() + 1
    while time.perf_counter() < ends:
        started = time.perf_counter()
        functional.linear(x, w)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048 * 384 * 1536 / best
