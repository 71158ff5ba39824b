"""After how many visits of the training rows the prefix cache has saved what it took, by the layers it holds.

    python benchmarks/speed/break_even.py              (a few minutes; kept in measurements.json)

minilm on 512 texts of 128 random words: the seconds that computing and writing the states of the first frozen layers takes,
and those of an epoch with and without them. The quotient is the break-even in visits; below 1 the cache would be faster even if
it were read only once, which cannot be, because without it nothing is computed ahead of the first visit.
"""

import os
import tempfile
import time

os.environ["TRIMTAB_CACHE"] = tempfile.mkdtemp()  # before trimtab: a cache of our own, empty

from kept import keep
from scaling import make_task

from trimtab.changes.contract import Method
from trimtab.changes.methods import Head, LastLayers
from trimtab.encoders.encoder import load
from trimtab.results.recipe import Settings
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench

ROWS, TOKENS = 512, 128


def main() -> None:
    encoder = load("minilm")
    task = make_task(encoder, ROWS, TOKENS)
    result = {}
    for method in (*(LastLayers(k) for k in (5, 4, 3, 2, 1)), Head()):
        result[repr(method)] = measured(set_up(encoder, task, method, Settings(epochs=3, max_length=TOKENS)), method)
        print(method, result[repr(method)], flush=True)
    keep("break_even", {"rows": ROWS, "tokens": TOKENS, "methods": result})


def measured(bench: Workbench, method: Method) -> dict[str, float]:
    """Seconds of an epoch without the cache, of filling it, and of an epoch with it."""
    epoch(bench, 0, steps=2)  # warms up
    without = epoch(bench, 0)
    started = time.perf_counter()
    for _ in bench.cache_prefixes():
        pass
    filling = time.perf_counter() - started
    assert "train" in bench.prefixes, method
    within = epoch(bench, 1)
    return {
        "frozen_layers": bench.selection.first_layer, "epoch_without": without, "filling": filling, "epoch_with": within,
        "visits_to_pay": filling / (without - within),
    }  # fmt: skip


def epoch(bench: Workbench, number: int, steps: int | None = None) -> float:
    """Seconds of the steps of one epoch."""
    started = time.perf_counter()
    for step in range(steps or bench.steps_per_epoch):
        bench.train_step(number * bench.steps_per_epoch + step)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
