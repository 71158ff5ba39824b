"""Six methods on six tasks, three seeds, with each method's own defaults; the best epoch is chosen on validation.

    python benchmarks/first_results/run.py --data ../shared/data     (resumes; cells are files under cells/)
    python benchmarks/first_results/run.py --summary                 (results.json, table.md and figure.svg from the cells)

The random control trains as many elements of the encoder as layer_norms does. Seeds change the head, the data order, dropout,
the training rows where they are limited, and the random subset; the validation rows stay.
"""

import argparse
import json
import statistics
from pathlib import Path

from cells import cell

from trimtab.encoders.encoder import load
from trimtab.files import write_json, write_text
from trimtab.tasks.read import read

HERE = Path(__file__).parent
TASKS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # train limits
METHODS = {
    "full": "full",
    "lora": "lora",
    "biases": "biases",
    "layer_norms": "layer_norms",
    "random": "random:count=9984",  # as many as layer_norms on this encoder
    "head": "head",
}
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--only", choices=METHODS, action="append", help="for several processes at once")
    options = parser.parse_args()
    if not options.summary:
        run_cells(options.data, options.only or list(METHODS))
    summarise()


def run_cells(data: Path, methods: list[str]) -> None:
    """Computes every cell that has no file yet, one seed of everything before the next."""
    encoder, tasks = load("minilm"), {name: read(data / name) for name in TASKS}
    for seed in SEEDS:
        for task, limit in TASKS.items():
            for label in methods:
                settings = {"seed": seed, "train_limit": limit, "max_length": 256}
                cell(HERE / "cells", f"{task}-{label}-{seed}", encoder, tasks[task], METHODS[label], **settings)


def summarise() -> None:
    """Writes results.json and table.md from the cells there are."""
    results = {}
    for task in TASKS:
        for label in METHODS:
            found = [json.loads(path.read_text()) for path in sorted((HERE / "cells").glob(f"{task}-{label}-?.json"))]
            if found:
                results.setdefault(task, {})[label] = summary_of(found)
    write_json(HERE / "results.json", {"seeds": len(SEEDS), "tasks": results})
    write_text(HERE / "table.md", table(results))


def summary_of(found: list[dict]) -> dict:
    """Mean and spread over seeds of the cells of one task and method."""
    metric = found[0]["metric"]
    scores = [one["scores"][metric] for one in found]
    return {
        "metric": metric, "seeds": len(found), "mean": statistics.mean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "scores": scores, "elements": found[0]["elements"], "share": found[0]["share"],
        "seconds": statistics.mean(one["seconds"] for one in found),
    }  # fmt: skip


def table(results: dict) -> str:
    """A Markdown table: methods by tasks, 100 times the main score, mean and standard deviation over seeds."""
    tasks = [task for task in TASKS if task in results]
    heads = [f"{task} ({next(iter(results[task].values()))['metric']})" for task in tasks]
    lines = [f"| method | elements trained | {' | '.join(heads)} |", "|---|---|" + "---|" * len(tasks)]
    for label in METHODS:
        shown = [results[task].get(label) for task in tasks]
        body = next((one["elements"]["body"] for one in shown if one), None)
        if body is not None:
            lines.append(f"| {label} | {body:,} | {' | '.join(map(score_text, shown))} |")
    return "\n".join(lines) + "\n"


def score_text(one: dict | None) -> str:
    if one is None:
        return "-"
    spread = f" ± {100 * one['sd']:.1f}" if one["sd"] is not None else f" ({one['seeds']} seed)"
    return f"{100 * one['mean']:.1f}{spread}"


if __name__ == "__main__":
    main()
