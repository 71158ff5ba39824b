"""One cell of a benchmark: a fit whose result is one small JSON file, written whole, so that a killed study resumes."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep, which a shared machine needs

from trimtab.changes.notation import parse_method
from trimtab.encoders.encoder import Encoder
from trimtab.files import write_json
from trimtab.tasks.task import Task
from trimtab.training.fit import fit


def cell(folder: Path, name: str, encoder: Encoder, task: Task, method: str, **settings: Any) -> dict[str, Any]:
    """The result of fitting `method` on `task`, computed now or read from `folder`/`name`.json."""
    path = folder / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    run = fit(encoder, task, parse_method(method), **settings)
    result = {
        "task": task.name, "method": method, "settings": settings, "metric": task.metric, "scores": run.scores,
        "baseline": run.baseline, "history": [entry["scores"][task.metric] for entry in run.history],
        "elements": run.details["elements"], "share": run.details["share"], "seconds": run.seconds,
        "examples_per_second": run.examples_per_second, "rates": {k: run.details["settings"][k] for k in ("lr", "head_lr")},
    }  # fmt: skip
    write_json(path, result)
    main_score = f"{task.metric} {run.baseline[task.metric]:.4f} -> {run.scores[task.metric]:.4f}"
    print(f"{name}: {main_score} in {run.seconds:.0f} s ({run.examples_per_second:.0f} texts/s)", flush=True)
    return result
