"""Is a run faster with torch.compile? LayerNorm tuning on sst2 in four ways, with the time that compiling takes.

    python benchmarks/speed/compiled.py --data ../shared/data       (minutes; needs a C++ compiler; kept in measurements.json)

Hugging Face's padded forward in bfloat16 autocast, as it is and compiled for varying shapes; our packed forward, as it is and
compiled. All take the same steps of 32 sentences, one contestant after another.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kept import keep
from torch.nn import functional

from trimtab.changes.methods import LayerNorms
from trimtab.encoders.encoder import load
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine import prepare
from trimtab.engine.padded import padded_logits
from trimtab.tasks.holdout import limited
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.read import read
from trimtab.training.batches import Examples, shuffled_batches

BATCH_SIZE, MAX_LENGTH = 32, 256
FIRST, STEPS = 24, 40  # steps while shapes are still new, and steps that are timed
Logits = Callable[[ModelInputs], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    encoder = load("minilm")
    task = limited(read(options.data / "sst2"), (FIRST + STEPS) * BATCH_SIZE, seed=0)
    examples = Examples(encoder.inputs(task.train.texts, MAX_LENGTH), label_tensor(task, task.train))
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "batch_size": BATCH_SIZE, "timed_steps": STEPS}
    for name, is_packed, is_compiled in (
        ("padded", False, False), ("padded, compiled", False, True), ("packed", True, False), ("packed, compiled", True, True),
    ):  # fmt: skip
        torch.compiler.reset()
        result[name] = seconds_of(encoder.with_head(task), examples, is_packed=is_packed, is_compiled=is_compiled)
        print(name, result[name], flush=True)
    for kind in ("padded", "packed"):
        result[f"{kind}: steps until compiling has paid"] = break_even(result[kind], result[f"{kind}, compiled"])
    keep("compiled", result)


def seconds_of(model: Any, examples: Examples, *, is_packed: bool, is_compiled: bool) -> dict[str, Any]:
    """Seconds of the first steps together, and of one later step (median)."""
    selection = LayerNorms().attach(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in selection.elements or selection.parts[name].is_head)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    logits_of: Logits = prepare(model).logits if is_packed else functools.partial(autocast_logits, model)
    if is_compiled:
        model.compile(dynamic=True)
    model.train()
    seconds = []
    try:
        for rows in shuffled_batches(len(examples), BATCH_SIZE, 0, 0):
            started = time.perf_counter()
            batch = examples.take(rows.tolist())
            assert batch.labels is not None
            functional.cross_entropy(logits_of(batch.inputs), batch.labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - started)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    return {"first_seconds": sum(seconds[:FIRST]), "seconds_per_step": statistics.median(seconds[FIRST:])}


def autocast_logits(model: Any, inputs: ModelInputs) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return padded_logits(model, inputs).float()


def break_even(plain: dict[str, Any], compiled: dict[str, Any]) -> float | str:
    """How many steps of training repay what compiling took."""
    if "failed" in compiled:
        return "compiling failed"
    saved = plain["seconds_per_step"] - compiled["seconds_per_step"]
    extra = compiled["first_seconds"] - FIRST * compiled["seconds_per_step"]
    return extra / saved if saved > 0 else "never: it is not faster"


if __name__ == "__main__":
    main()
