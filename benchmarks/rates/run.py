"""The search for each method's default learning rate and epochs, on the validation rows of two tasks.

    python benchmarks/rates/run.py --data ../shared/data

For the head alone, at 30 epochs: its rate. For every other method, at 5 epochs: the rate of the backbone with the head at
0.01, then the rate of the head at the best rate of the backbone, then 10 epochs at the best of both. Rates found so on few rows
were too high for more rows of a harder task (LoRA fell to a constant prediction on CoLA), so in the end the best rate and those
below it are tried on all of CoLA, with the head at 0.01, and the best mean over the three tasks decides; of rates that are as
good to 0.001 the lowest is taken. Each cell is one
line of cells.jsonl.gz, so the search resumes; the summary is results.md.
"""

import argparse
import gzip
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep, which a shared machine needs

from trimtab.changes.method_text import parse_method
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_text
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.fit import fit

HERE = Path(__file__).parent
CELLS = HERE / "cells.jsonl.gz"
LIMITS = {"sst2": 2500, "stsb": 1500}
LAST_TASK = "cola"  # all of its rows
TIE = 0.001
LAST_RATES = 3  # the best one and the two below it
HEAD_ALONE = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
HEAD_EPOCHS = 30  # cheap: the encoder is run once
HEAD_RATES = (1e-2, 3e-2)  # beside a trained backbone; the first one while the rate of the backbone is sought
RATES = {
    "full": (2e-5, 5e-5, 1e-4, 2e-4, 5e-4),
    "layer_norms": (1e-3, 3e-3, 5e-3, 1e-2, 2e-2),
    "biases": (1e-3, 3e-3, 1e-2, 2e-2),
    "lora": (5e-4, 1e-3, 2e-3, 3e-3, 6e-3),
    "random:count=9984": (3e-3, 1e-2, 2e-2, 4e-2, 8e-2),
    # For subsets of vectors: chosen at random, and by information, since what matters more may want smaller steps.
    "random:share=0.1,within=layer_norms": (3e-3, 6e-3, 1.2e-2, 2.5e-2, 5e-2, 1e-1),
    "fisher_top:share=0.1": (3e-3, 6e-3, 1.2e-2, 2.5e-2, 5e-2),
}
EPOCHS = (5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=("head", *RATES), action="append", help="for several processes at once")
    options = parser.parse_args()
    data = options.data
    encoder, tasks = load("minilm"), {name: read(str(data / name)) for name in (*LIMITS, LAST_TASK)}

    def score(task_name: str, method: str, epochs: int, **rates: float) -> float:
        """The main score of the best validation."""
        task, rate = tasks[task_name], "-".join(f"{key}-{value:g}" for key, value in rates.items())
        name = f"{task.name}-{method.replace(':', '-').replace('=', '-')}-{rate}-epochs-{epochs}"
        limit = LIMITS.get(task_name)
        result = cell(name, encoder, task, method, epochs=epochs, train_limit=limit, **rates)
        return result["scores"][task.metric]

    def mean_score(method: str, epochs: int, **rates: float) -> float:
        """The mean over the first two tasks."""
        return sum(score(name, method, epochs, **rates) for name in LIMITS) / len(LIMITS)

    summary: dict = {}
    if "head" in (options.only or ["head"]):
        alone = {rate: mean_score("head", HEAD_EPOCHS, head_lr=rate) for rate in HEAD_ALONE}
        summary["head"] = {"by_head_lr": alone, "head_lr": best(alone)}
        print("head", summary["head"], flush=True)
    for method, rates in RATES.items():
        if method not in (options.only or RATES):
            continue
        by_lr = {rate: mean_score(method, 5, lr=rate, head_lr=HEAD_RATES[0]) for rate in rates}
        lr = best(by_lr)
        by_head_lr = {rate: mean_score(method, 5, lr=lr, head_lr=rate) for rate in HEAD_RATES}
        head_lr = best(by_head_lr)
        by_epochs = {epochs: mean_score(method, epochs, lr=lr, head_lr=head_lr) for epochs in EPOCHS}
        last = [rate for rate in sorted(rates) if rate <= lr][-LAST_RATES:]
        on_last = {rate: score(LAST_TASK, method, 5, lr=rate, head_lr=HEAD_RATES[0]) for rate in last}
        over_three = {rate: (2 * by_lr[rate] + on_last[rate]) / 3 for rate in last}
        lowest = min(rate for rate, mean in over_three.items() if mean > max(over_three.values()) - TIE)
        summary[method] = {
            "by_lr": by_lr, "lr": lr, "by_head_lr": by_head_lr, "head_lr": head_lr, "by_epochs": by_epochs,
            f"by_lr_on_{LAST_TASK}": on_last, "by_lr_over_three": over_three, "decided_lr": lowest,
        }  # fmt: skip
        if not options.only:
            write_text(HERE / "results.md", table(summary))
        print(method, summary[method], flush=True)


def cell(name: str, encoder: Encoder, task: Task, method: str, **settings: Any) -> dict[str, Any]:
    """The result of fitting `method` on `task`, computed now or read from the cells under `name`."""
    there = cells().get(name)
    if there is not None:
        return there
    run = fit(encoder, task, parse_method(method), **settings)
    result = {
        "task": task.name, "method": method, "settings": settings, "metric": task.metric, "scores": run.scores,
        "baseline": run.baseline, "history": [entry["scores"][task.metric] for entry in run.history],
        "elements": run.details["elements"], "share": run.details["share"], "seconds": run.seconds,
        "examples_per_second": run.examples_per_second, "rates": {k: run.details["settings"][k] for k in ("lr", "head_lr")},
    }  # fmt: skip
    # Behind the others, as a part of its own: several processes can add to one file.
    with CELLS.open("ab") as file:
        file.write(gzip.compress((json.dumps({"name": name} | result) + "\n").encode()))
    main_score = f"{task.metric} {run.baseline[task.metric]:.4f} -> {run.scores[task.metric]:.4f}"
    print(f"{name}: {main_score} in {run.seconds:.0f} s ({run.examples_per_second:.0f} texts/s)", flush=True)
    return result


def cells() -> dict[str, dict[str, Any]]:
    """Name -> cell, of all there are."""
    if not CELLS.is_file():
        return {}
    with gzip.open(CELLS, "rt", encoding="utf-8") as lines:
        return {cell.pop("name"): cell for cell in map(json.loads, lines)}


def table(summary: dict[str, Any]) -> str:
    """A line for each method: the mean score of every rate that was tried, and what was decided."""
    columns = (
        "method",
        "by rate",
        "by rate of the head",
        "by epochs",
        f"by rate on {LAST_TASK}",
        "over three tasks",
        "decided",
    )
    lines = [
        f"Main scores on validation rows: the mean over {' and '.join(LIMITS)}, then {LAST_TASK}.", "",
        f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
    ]  # fmt: skip
    for method, found in summary.items():
        tried = [
            ", ".join(f"{rate:g}: {score:.4f}" for rate, score in found.get(key, {}).items())
            for key in ("by_lr", "by_head_lr", "by_epochs", f"by_lr_on_{LAST_TASK}", "by_lr_over_three")
        ]
        decided = f"head {found['head_lr']:g}" if "lr" not in found else f"{found['decided_lr']:g}"
        lines.append(f"| {method} | {' | '.join(tried)} | {decided} |")
    return "\n".join(lines) + "\n"


def best(scores: dict[float, float]) -> float:
    """The rate with the highest mean score."""
    return max(scores, key=scores.__getitem__)


if __name__ == "__main__":
    main()
