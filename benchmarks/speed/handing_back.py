"""What handing memory back within steps costs: steps of LayerNorms, and the peak, by when freed blocks go back to the system.

    python benchmarks/speed/handing_back.py --data ../shared/data     (minutes; kept in measurements.json)

"in use" hands back above a tenth more than what is in use for training, "now" as a fit does, which allows passes on long texts
their freed blocks too, "never" not at all. One process after the other, `--rounds` of each in turn; the figures are medians.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kept import keep, kept

from trimtab.changes.methods import LayerNorms
from trimtab.encoders.encoder import load
from trimtab.process_memory import Tidy, peak_bytes
from trimtab.results.recipe import Settings
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench

WAYS = ("in use", "now", "never")
STEPS = {"sst2": 120, "imdb": 12}  # that are timed, behind a quarter as many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--task", choices=STEPS, action="append", help="the file keeps what it has of the others")
    parser.add_argument("--cell", nargs=2, metavar=("TASK", "WAY"))
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measured(options.data, *options.cell)))
        return
    results = kept("handing_back")
    for task in options.task or STEPS:
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, found in rounds.items():
                command = [sys.executable, __file__, "--data", str(options.data), "--cell", task, way]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.append(json.loads(output.splitlines()[-1]))
        results[task] = {
            way: {key: statistics.median(cell[key] for cell in found) for key in found[0]} | {"rounds": found}
            for way, found in rounds.items()
        }
        for way, found in results[task].items():
            print(task, way, {key: value for key, value in found.items() if key != "rounds"}, flush=True)
        keep("handing_back", results)


def measured(data: Path, name: str, way: str) -> dict[str, float]:
    """Milliseconds and page faults of a step, and the peak of the process."""
    if way == "in use":
        vars(Workbench)["_held_by"]  # fails where the name is another one by now
        Workbench._held_by = lambda self, tokens: 0.0
    elif way == "never":
        Tidy.now = lambda self, expected_bytes=0.0: None
    steps = STEPS[name]
    task = limited(read(data / name), steps * 40 + 320, seed=0)
    bench = set_up(load("minilm"), task, LayerNorms(), Settings(epochs=1, max_length=256))
    for step in range(steps // 4):
        bench.train_step(step)
    faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for step in range(steps // 4, steps // 4 + steps):
        bench.train_step(step)
    seconds = time.perf_counter() - started
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"step_ms": seconds / steps * 1e3, "faults_per_step": faults / steps, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    main()
