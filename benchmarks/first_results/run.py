"""Six methods on six tasks, three seeds, with each method's own defaults; the best epoch is chosen on validation.

    python benchmarks/first_results/run.py --data ../shared/data     (resumes; cells are files under benchmarks/cells/)
    python benchmarks/first_results/run.py --summary                 (the summary from the cells there are)

The random control trains as many elements of the encoder as layer_norms does. Seeds change the head, the data order, dropout,
the training rows where they are limited, and the random subset; the validation rows stay. A summary needs whole seeds:
it is made of those seeds that every method has finished on a task.
"""

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep, which a shared machine needs

from trimtab.changes.notation import parse_method
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json, write_text
from trimtab.studies.compare import compare, finished_cells
from trimtab.studies.comparison_page import markdown
from trimtab.studies.summary import Cell, summarised
from trimtab.tasks.read import read
from trimtab.tasks.task import Task

HERE = Path(__file__).parent
CELLS = HERE.parent / "cells"
LIMITS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # training rows
METHODS = ("full", "layer_norms", "biases", "lora", "random:count=9984", "head")
SEEDS = (0, 1, 2)
MAX_LENGTH = 256
SECONDS = "Seconds are those of fits that shared two cores with other work, some of which were paused: compare them roughly.\n"
METRICS_SHORT = {"accuracy": "acc.", "matthews": "MCC", "pearson": "r", "f1": "F1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--only", choices=METHODS, action="append", help="for several processes at once")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="only the first so many")
    options = parser.parse_args()
    encoder, tasks = load("minilm"), {name: read(options.data / name) for name in LIMITS}
    if not options.summary:
        run_cells(encoder, tasks, options.only or METHODS, SEEDS[: options.seeds])
    summarise(encoder, tasks)


def run_cells(
    encoder: Encoder, tasks: dict[str, Task], methods: tuple[str, ...] | list[str], seeds: tuple[int, ...]
) -> None:
    """Computes every cell that has no file yet, one seed of everything before the next."""
    chosen = [parse_method(method) for method in methods]
    for seed in seeds:
        for name, task in tasks.items():
            found = compare(encoder, [task], chosen, [seed], out=CELLS, train_limit=LIMITS[name], max_length=MAX_LENGTH)
            for cell in found.cells:
                print(f"{name} {cell.method} {seed}: {cell.score:.4f} in {cell.seconds:.0f} s", flush=True)


def summarise(encoder: Encoder, tasks: dict[str, Task]) -> None:
    """Writes results.json and table.md from the cells there are."""
    chosen = [parse_method(method) for method in METHODS]
    results, tables, every = {}, [], []
    for name, task in tasks.items():
        settings = {"train_limit": LIMITS[name], "max_length": MAX_LENGTH}
        cells = finished_cells(CELLS, encoder, task, chosen, SEEDS, **settings)
        every.append(cells)
        seeds = whole_seeds(cells)
        if seeds:
            found = summarised("minilm", [task], list(METHODS), seeds, "full", [c for c in cells if c.seed in seeds])
            results[name] = found.as_json()
            tables.append(markdown(found))
    done = [task for task, cells in zip(tasks.values(), every, strict=True) if whole_seeds(cells) == list(SEEDS)]
    if len(done) == len(tasks):
        cells = [cell for each in every for cell in each]
        found = summarised("minilm", done, list(METHODS), list(SEEDS), "full", cells)
        results["all"] = found.as_json()
        tables.insert(0, markdown(found))
        found.report(HERE / "methods.html")
    write_json(HERE / "results.json", results)
    write_text(HERE / "table.md", "\n".join([pivot(results, tasks), SECONDS, *tables]))


def pivot(results: dict[str, Any], tasks: dict[str, Task]) -> str:
    """Methods down, tasks across: the mean main score in percent, with its spread over seeds where there are several."""
    names = [name for name in tasks if name in results]
    heads = [f"{name} ({METRICS_SHORT.get(tasks[name].metric, tasks[name].metric)})" for name in names]
    lines = [f"| method | elements | {' | '.join(heads)} | seeds |", "|---" * (len(names) + 3) + "|"]
    for method in METHODS:
        cells, elements = [], 0
        for name in names:
            found = next(s for s in results[name]["by_task"][tasks[name].name] if s["method"] == method)
            spread = "" if found["spread"] is None else f" ± {100 * found['spread']:.1f}"
            cells.append(f"{100 * found['mean']:.1f}{spread}")
            elements = found["elements"]
        seeds = min((len(results[name]["seeds"]) for name in names), default=0)
        lines.append(f"| {method} | {elements:,} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines) + "\n"


def whole_seeds(cells: list[Cell]) -> list[int]:
    """The seeds that every method has finished."""
    return [seed for seed in SEEDS if {c.method for c in cells if c.seed == seed} == set(METHODS)]


if __name__ == "__main__":
    main()
