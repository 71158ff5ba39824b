"""Where the time of a training step goes, and how much of it the loop waits for data.

    python benchmarks/speed/where_time_goes.py --data ../shared/data       (a minute; kept in measurements.json)

minilm with LayerNorm trained. Preparing data is timed around the calls that shuffle, group, take and pack rows, without a
profiler; the rest is split by torch's profiler into kinds of operations, as shares of the time inside operations.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from kept import keep
from torch.profiler import ProfilerActivity, profile

from trimtab.changes.methods import LayerNorms
from trimtab.encoders.encoder import load
from trimtab.encoders.inputs import TextInputs
from trimtab.engine import prepared
from trimtab.results.recipe import Settings
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.training import workbench
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench

STEPS = {"sst2": 60, "imdb": 8}
KINDS = {  # the first whose names contain a piece of an operation's name
    "products of the layers": ("mkldnn", "addmm", "linear", "aten::mm"),
    "attention": ("bmm", "softmax", "index_select", "index_add", "index_copy"),
    "norms and residual sums": ("layer_norm", "addcmul"),
    "GELU": ("gelu",),
    "dropout": ("mul", "bitwise", "bernoulli", "random", "unfold", "as_strided"),
    "optimizer": ("adamw", "norm", "foreach", "Optimizer"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data, result = parser.parse_args().data, {}
    for name, steps in STEPS.items():
        task = limited(read(data / name), steps * 32 + 32 * 5, seed=0)
        bench = set_up(load("minilm"), task, LayerNorms(), Settings(epochs=1, max_length=256))
        result[name] = {"steps": steps} | waiting(bench, steps) | {"operations": operations(bench, steps)}
        print(name, result[name], flush=True)
    keep("where_time_goes", {"threads": torch.get_num_threads(), "tasks": result})


def waiting(bench: Workbench, steps: int) -> dict[str, float]:
    """Seconds of a step, and the share of it spent on preparing data."""
    clock = {"seconds": 0.0}

    def timed(function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                clock["seconds"] += time.perf_counter() - started

        return wrapper

    places: list[tuple[Any, str]] = [
        (workbench, "shuffled_batches"), (workbench, "token_groups"), (prepared, "pack"), (TextInputs, "take"),
    ]  # fmt: skip
    before = [getattr(place, name) for place, name in places]
    for step in range(5):
        bench.train_step(step)
    for (place, name), function in zip(places, before, strict=True):
        setattr(place, name, timed(function))
    try:
        started = time.perf_counter()
        for step in range(5, 5 + steps):
            bench.train_step(step)
        seconds = time.perf_counter() - started
    finally:
        for (place, name), function in zip(places, before, strict=True):
            setattr(place, name, function)
    return {"seconds_per_step": seconds / steps, "share_waiting_for_data": clock["seconds"] / seconds}


def operations(bench: Workbench, steps: int) -> dict[str, float]:
    """Kind of operation -> its share of the time inside operations."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for step in range(5, 5 + min(steps, 20)):
            bench.train_step(step)
    seconds: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(name in event.key for name in names)), "other")
        seconds[kind] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: value / total for kind, value in sorted(seconds.items(), key=lambda item: -item[1])}


if __name__ == "__main__":
    main()
