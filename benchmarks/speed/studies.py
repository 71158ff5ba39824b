"""Seconds of a small study: this build, this build with two jobs, and an older build whose src/ is SRC, by turns.

    python benchmarks/speed/studies.py --data ../shared/data --before SRC        (minutes; kept in measurements.json)

Two methods on two tasks with three seeds, 300 rows to train on and 300 to judge by: what a study does between its fits counts.
Each study is a process of its own with a folder and a cache of its own, and is timed from the call of `compare` on, so without
imports; those of the jobs' processes are in it. A shared machine's speed changes, so the builds take turns, and ratios are
medians of those of a turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

TASKS, METHODS, SEEDS, ROWS = ("sst2", "mrpc"), ("layer_norms", "lora"), 3, 300
HERE = Path(__file__).parent
OURS = HERE.parent.parent / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--before", type=Path, required=True, help="the src/ of an older build")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--study", type=int, metavar="JOBS", help="one study in this process, which prints its seconds")
    options = parser.parse_args()
    if options.study:
        print(json.dumps(study(options.data, options.study)))
        return
    ways = {"before": (options.before, 1), "now": (OURS, 1), "now, two jobs": (OURS, 2)}
    turns = []
    for turn in range(options.turns):
        # Neither is always the first.
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        turns.append({name: timed(options, *ways[name]) for name in order})
        print(turns[-1], flush=True)

    def ratio(ours: str, theirs: str) -> float:
        return round(statistics.median(turn[ours]["seconds"] / turn[theirs]["seconds"] for turn in turns), 3)

    sys.path.insert(0, str(HERE))
    from kept import keep

    result = {
        "fits": len(TASKS) * len(METHODS) * SEEDS, "rows": ROWS, "threads": turns[0]["now"]["threads"],
        "seconds": {name: [round(turn[name]["seconds"], 1) for turn in turns] for name in ways},
        "now over before": ratio("now", "before"), "two jobs over one": ratio("now, two jobs", "now"),
        "scores": {name: turns[0][name]["scores"] for name in ways},
    }  # fmt: skip
    print(result)
    keep("studies", result)


def timed(options: argparse.Namespace, source: Path, jobs: int) -> dict[str, Any]:
    """What a study says that a process of this build computes."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, "--data", options.data, "--before", options.before, "--study", str(jobs)],
            env=os.environ | {"PYTHONPATH": str(source.resolve()), "TRIMTAB_CACHE": cache}, check=True, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def study(data: Path, jobs: int) -> dict[str, Any]:
    """Its seconds, the threads of this process, and the mean score of each method, in which builds must agree about."""
    import torch

    from trimtab import compare, load, read
    from trimtab.tasks.holdout import limited

    tasks = []
    for name in TASKS:
        task = limited(read(data / name), ROWS, seed=0)
        rows = task.validation.take(range(ROWS))
        tasks.append(replace(task, splits={"train": task.train, "validation": rows}))
    encoder = load("minilm")
    given: Any = {} if jobs == 1 else {"jobs": jobs}  # which an older build does not know
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        found = compare(encoder, tasks, list(METHODS), SEEDS, out=out, **given)
        seconds = time.perf_counter() - began
    scores = {summary.method: round(summary.mean, 4) for summary in found.overall}
    return {"seconds": seconds, "threads": torch.get_num_threads(), "scores": scores}


if __name__ == "__main__":
    main()
