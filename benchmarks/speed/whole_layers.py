"""What it saves to run a layer in one step of the graph: training steps either way, by turns, on the same batches.

    python benchmarks/speed/whole_layers.py --data ../shared/data        (minutes; kept in measurements.json)

minilm with LayerNorm trained on batches of 32 texts of sst2, as they are and cut to their first four tokens. A shared
machine's speed changes from second to second, so both ways take every step, one directly behind the other, and the ratio
is the median over the steps.
"""

import argparse
import copy
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from kept import keep

from trimtab.changes.methods import LayerNorms
from trimtab.encoders.encoder import load
from trimtab.encoders.inputs import TextInputs
from trimtab.engine import packed
from trimtab.results.recipe import Settings
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    task = limited(read(options.data / "sst2"), 32 * options.steps, seed=0)
    encoder, settings = load("minilm"), Settings(epochs=1, max_length=256)
    ways = {"whole": set_up(encoder, task, LayerNorms(), settings)}
    fits, packed.fits = packed.fits, lambda layer: False
    ways["by modules"] = set_up(encoder, task, LayerNorms(), settings)
    packed.fits = fits
    result = {
        "as they are": compared(ways, options.steps),
        "four tokens": compared({name: cut(bench, 4) for name, bench in ways.items()}, options.steps),
    }
    compute = ways["whole"].compute
    result = {"compute": compute, "threads": torch.get_num_threads(), "texts": result}
    print(result)
    # Half as long a product is twice as large a share for what is around it.
    keep("whole_layers" if compute == "float32" else f"whole_layers_{compute}", result)


def cut(bench: Workbench, length: int) -> Workbench:
    """The workbench with training texts of at most `length` tokens."""
    bench, inputs = copy.copy(bench), cast(TextInputs, bench.train.inputs)
    types = inputs.type_ids and [ids[:length] for ids in inputs.type_ids]
    inputs = replace(inputs, ids=[ids[:length] for ids in inputs.ids], type_ids=types)
    bench.train = replace(bench.train, inputs=inputs)
    return bench


def compared(ways: dict[str, Workbench], steps: int) -> dict[str, Any]:
    """Milliseconds of a step, the median, and the median of their ratio."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(steps):
        for name in sorted(ways, reverse=step % 2 == 0):  # neither is always the first
            started = time.perf_counter()
            ways[name].train_step(step)
            seconds[name].append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)][5:]  # less the first, which set things up
    found = {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()}
    return {"milliseconds": found, "steps": steps, "whole over by modules": round(statistics.median(ratios), 3)}


if __name__ == "__main__":
    main()
