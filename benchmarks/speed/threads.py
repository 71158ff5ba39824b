"""What waiting threads cost: a fit and one-text predictions, alone and beside a process that keeps one core busy.

    python benchmarks/speed/threads.py --data ../shared/data        (writes threads.json; about ten minutes)

The fit is LayerNorms on 2,000 rows of sst2, one epoch; a prediction is that of one sentence by a Predictor that predicted before.
Each contestant is a process of its own, whose environment decides before torch is imported: `ours` (nothing set: the spin count
and the threads that trimtab's commands take), `torch` (OpenMP's own spin count), `passive` (OMP_WAIT_POLICY), `one thread`, and
spin counts between.
Seconds are wall-clock, the best of `--rounds`, contestants in turn.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from trimtab.files import write_json

HERE = Path(__file__).parent
SETTINGS = {
    "ours": {},
    "torch": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own, where there are as many cores as threads
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORK = """
import json, sys, time
from dataclasses import replace
import trimtab, torch
from trimtab.threads import share_cores
encoder, task = trimtab.load("minilm"), trimtab.read({task!r})
rows = {rows}
small = replace(task, splits={{"train": task.train.take(range(rows)), "validation": task.validation.take(range(64))}})
if {shares}:
    share_cores()
trimtab.fit(encoder, replace(small, splits=small.splits | {{"train": task.train.take(range(64))}}), trimtab.LayerNorms(),
            epochs=1, cache_gb=0)
began = time.perf_counter()
run = trimtab.fit(encoder, small, trimtab.LayerNorms(), epochs=1, cache_gb=0)
fit = time.perf_counter() - began
predictor = trimtab.Predictor(run, encoder)
texts = small.validation.texts[0]
times = []
for text in texts[:50]:
    time.sleep(0.02)
    began = time.perf_counter()
    trimtab.predict(predictor, [text])
    times.append(time.perf_counter() - began)
times = sorted(times[10:])
print(json.dumps({{"fit_seconds": fit, "median_ms": 1e3 * times[len(times) // 2], "worst_ms": 1e3 * times[-1]}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--spin", type=int, action="append", default=[], help="one more spin count to try")
    parser.add_argument("--out", type=Path, default=HERE / "threads.json")
    options = parser.parse_args()
    settings = SETTINGS | {f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in options.spin}
    found: dict[str, dict[str, dict[str, float]]] = {"alone": {}, "beside": {}}
    for _ in range(options.rounds):
        for place, best in found.items():
            for name, environment in settings.items():
                measured = measure(str(options.data / "sst2"), options.rows, environment, place == "beside")
                best[name] = {key: min(value, best.get(name, measured)[key]) for key, value in measured.items()}
                print(place, name, measured, flush=True)
    write_json(options.out, {"rows": options.rows, "cores": os.cpu_count(), **found})


def measure(task: str, rows: int, environment: dict[str, str], beside: bool) -> dict[str, float]:
    """Seconds of a fit and milliseconds of a prediction in a process of its own."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
    try:
        done = subprocess.run(
            [sys.executable, "-c", WORK.format(task=task, rows=rows, shares=not environment)],
            env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        if busy:
            busy.kill()
            busy.wait()
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
