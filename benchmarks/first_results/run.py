"""Six methods on six tasks, three seeds, with each method's own defaults; the best epoch is chosen on validation.

    python benchmarks/first_results/run.py --data ../shared/data     (resumes; cells are files under benchmarks/cells/)
    python benchmarks/first_results/run.py --summary                 (the summary from the cells there are)

The random control trains as many elements of the encoder as layer_norms does. Seeds change the head, the data order, dropout,
the training rows where they are limited, and the random subset; the validation rows stay. A summary is made of
the seeds that every method has finished on every task.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep, which a shared machine needs

from trimtab.changes.notation import parse_method
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json, write_text
from trimtab.studies.compare import compare, finished_cells
from trimtab.studies.comparison_page import markdown
from trimtab.studies.summary import Comparison, summarised
from trimtab.tasks.read import read
from trimtab.tasks.task import Task

HERE = Path(__file__).parent
CELLS = HERE.parent / "cells"
LIMITS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # training rows
METHODS = ("full", "layer_norms", "biases", "lora", "random:count=9984", "head")
CONTROLLED = ("layer_norms", "random:count=9984")
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
    """Writes results.json, table.md and methods.html from the seeds that every method has finished on every task."""
    chosen, cells = [parse_method(method) for method in METHODS], []
    for name, task in tasks.items():
        cells += finished_cells(CELLS, encoder, task, chosen, SEEDS, train_limit=LIMITS[name], max_length=MAX_LENGTH)
    seeds = [seed for seed in SEEDS if sum(cell.seed == seed for cell in cells) == len(METHODS) * len(tasks)]
    if seeds:
        whole = [cell for cell in cells if cell.seed in seeds]
        found = summarised("minilm", list(tasks.values()), list(METHODS), seeds, "full", whole)
        of_control = [cell for cell in whole if cell.method in CONTROLLED]
        control = summarised("minilm", list(tasks.values()), list(CONTROLLED), seeds, CONTROLLED[0], of_control)
        write_json(HERE / "results.json", {"all": found.as_json(), "control": control.as_json()})
        parts = [pivot(found), SECONDS, markdown(found), "# Against the random control\n", markdown(control)]
        write_text(HERE / "table.md", "\n".join(parts))
        found.report(HERE / "methods.html")


def pivot(found: Comparison) -> str:
    """Methods down, tasks across: the mean main score in percent, with its spread over seeds where there are several."""
    heads = [f"{task.name} ({METRICS_SHORT.get(task.metric, task.metric)})" for task in found.tasks]
    lines = [f"| method | elements | {' | '.join(heads)} | mean |", "|---" * (len(heads) + 3) + "|"]
    for number, method in enumerate(found.methods):
        of_method = [*(found.by_task[task.name][number] for task in found.tasks), found.overall[number]]
        scores = (f"{100 * s.mean:.1f}" + ("" if s.spread is None else f" ± {100 * s.spread:.1f}") for s in of_method)
        lines.append(f"| {method} | {of_method[0].elements:,} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
