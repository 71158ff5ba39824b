"""Fits cells for run.py under whichever build of trimtab PYTHONPATH names: requests on stdin, results on stdout.

A request is a JSON object with `task` (a folder), `rows` (numbers of training rows, or null for all), `method`, `seed`,
`encoder` and `settings`; the result is one line of JSON with the score of the best validation and the CPU seconds of the fit.
"""

import json
import os
import sys
import time
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep

import torch

import trimtab
from trimtab.changes.method_text import parse_method


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    encoders: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, folder = request["encoder"], request["task"]
        encoder = encoders[name] = encoders.get(name) or trimtab.load(name)
        task = tasks[folder] = tasks.get(folder) or trimtab.read(folder)
        if request["rows"] is not None:
            task = replace(task, splits={**task.splits, "train": task.train.take(request["rows"])})
        cpu, wall = time.process_time(), time.perf_counter()
        run = trimtab.fit(
            encoder, task, parse_method(request["method"]), seed=request["seed"], cache_gb=0, **request["settings"]
        )  # fmt: skip
        result = {
            "score": run.scores[task.metric], "metric": task.metric, "start": run.baseline[task.metric],
            "scores": run.scores, "cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall,
            "steps": run.details["steps"], "best_step": run.details["best_step"],
            "head": run.details["settings"]["head"], "pairs": run.details["settings"].get("pairs"),
            "history": [round(entry["scores"][task.metric], 5) for entry in run.history],
        }  # fmt: skip
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
