"""What it costs to leave the first half of the layers alone, as serving many tasks wants it: score and seconds of a fit.

    python benchmarks/serving/last_layers.py --data ../shared/data        (resumes; some 20 minutes on one thread)
    python benchmarks/serving/last_layers.py --summary                    (the table from the cells there are)
    python benchmarks/serving/last_layers.py --task mrpc --seed 0         (some of the cells)
    python benchmarks/serving/last_layers.py --serving                    (50 tasks of one text, of either kind; a minute)

`layer_norms:last=3` against `layer_norms` on minilm, which has six layers: tasks of the first kind share the embeddings and three
layers, of the second nothing. A cell is a task, a seed and a method at its own rates, on 1,000 rows that the seed draws.
The two methods of a task and seed follow each other; which comes first changes with the seed. Each cell starts with an empty
cache, so that what the frozen layers make of the rows is computed within its seconds; those of an epoch are those of its
optimizer steps. Cells are the entries of last_layers.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch

import torch

import trimtab
from trimtab.errors import counted
from trimtab.files import write_json
from trimtab.tasks.holdout import draw_order
from trimtab.tasks.task import Task

HERE = Path(__file__).parent
CELLS = HERE / "last_layers.json"
TASKS = ("sst2", "cola", "mrpc", "stsb", "ag_news_10k")
WHOLE, HALF = "layer_norms", "layer_norms:last=3"
SEEDS = (0, 1, 2)
ROWS, EPOCHS, MOST_VALIDATION = 1000, 3, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS)
    parser.add_argument("--cells", type=Path, default=CELLS, help="the file that keeps them")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--serving", action="store_true")
    options = parser.parse_args()
    if options.serving:
        serving(options.data)
        return
    if not options.summary:
        compute(options.data, options.task or TASKS, options.seed or SEEDS, options.cells)
    print(table(read_cells(options.cells)))


def compute(data: Path, tasks: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    """Adds the cells that are not there, one seed of all tasks before the next."""
    torch.set_num_threads(1)
    cells = read_cells(path)
    there = {(cell["task"], cell["seed"], cell["method"]) for cell in cells}
    wanted = [
        (task, seed, method)
        for seed in seeds
        for task in tasks
        for method in ((WHOLE, HALF) if seed % 2 == 0 else (HALF, WHOLE))
    ]
    todo = [key for key in wanted if key not in there]
    if not todo:
        return
    encoder = trimtab.load("minilm")
    # What the first fit of a process loads and measures is no part of any cell's seconds.
    trimtab.fit(encoder, some_rows(data, todo[0][0]), WHOLE, train_limit=32, epochs=1)
    for task, seed, method in todo:
        found = cell(encoder, some_rows(data, task), seed, method)
        cells.append({"task": task, "seed": seed, "method": method} | found)
        write_json(path, cells)
        print(f"{task} {seed} {method}: {found['score']:.4f} in {found['seconds']:.1f} s", flush=True)


def serving(data: Path) -> None:
    """Keeps in measurements.json what 50 tasks of either kind take for one text, by turns, on the texts of sst2."""
    from works import Work

    torch.set_num_threads(1)
    work, result = Work(data, 50), {}
    for dtype in ("float32", "bfloat16"):
        pools = {}
        for method in (WHOLE, HALF):
            runs = dict(zip(map(str, range(50)), work.deltas(method, 50), strict=True))
            pools[method] = trimtab.Pool(work.encoder, runs, compute=dtype)
        seconds: dict[str, list[float]] = {method: [] for method in pools}
        for number, text in enumerate(work.texts[:32]):
            for method in sorted(pools, reverse=number % 2 == 0):
                began = time.perf_counter()
                pools[method].predict_all([str(text)])
                seconds[method].append(time.perf_counter() - began)
        medians = {method: round(1e3 * statistics.median(each[4:]), 1) for method, each in seconds.items()}
        ratios = [a / b for a, b in zip(seconds[WHOLE][4:], seconds[HALF][4:], strict=True)]
        result[dtype] = {"milliseconds": medians, "times_faster": round(statistics.median(ratios), 2)}
    path = HERE / "measurements.json"
    write_json(path, json.loads(path.read_text()) | {"last_layers/serving": {"tasks": 50, "threads": 1} | result})
    print(result)


def some_rows(data: Path, name: str) -> Task:
    """The task with at most MOST_VALIDATION validation rows, in the shares of its classes; the same for all seeds."""
    task = trimtab.read(data / name)
    rows = draw_order(task.validation.labels, task.kind, 0)[:MOST_VALIDATION]
    return replace(task, splits={"train": task.train, "validation": task.validation.take(rows.tolist())})


def cell(encoder: Any, task: Task, seed: int, method: str) -> dict[str, Any]:
    """The best validation's score, and what the fit took, from an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRIMTAB_CACHE"] = cache
        cpu = time.process_time()
        run = trimtab.fit(encoder, task, method, seed=seed, train_limit=ROWS, epochs=EPOCHS)
        cpu = time.process_time() - cpu
    return {
        "metric": task.metric, "score": run.scores[task.metric], "start": run.baseline[task.metric],
        "seconds": run.seconds, "cpu_seconds": cpu, "epoch_seconds": ROWS / run.examples_per_second,
        "train_rows": ROWS, "validation_rows": len(task.validation), "epochs": EPOCHS,
        "elements": run.delta.count_body, "first_layer": run.selection.first_layer,
        "compute": run.details["settings"]["compute"], "head": run.details["settings"]["head"],
        "history": [round(entry["scores"][task.metric], 5) for entry in run.history],
    }  # fmt: skip


def read_cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.is_file() else []


def table(cells: list[dict[str, Any]]) -> str:
    """In Markdown, a line for each task: means over the seeds that have both methods, and the difference with each seed."""
    columns = (
        "task", f"score of {WHOLE}", f"of {HALF}", "difference (by seed)", "seconds of a fit", "of last=3", "times faster",
        "seconds of an epoch's steps", "of last=3", "times faster",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    means = []
    for task in TASKS:
        of = {(c["seed"], c["method"]): c for c in cells if c["task"] == task}
        seeds = [seed for seed in SEEDS if {(seed, WHOLE), (seed, HALF)} <= of.keys()]
        if not seeds:
            continue
        whole, half = ([of[seed, method] for seed in seeds] for method in (WHOLE, HALF))
        apart = [b["score"] - a["score"] for a, b in zip(whole, half, strict=True)]
        means.append(statistics.mean(apart))
        row = [
            f"{task} ({whole[0]['metric']}, {counted(len(seeds), 'seed')})", spread(whole), spread(half),
            f"{means[-1]:+.3f} ({', '.join(f'{each:+.3f}' for each in apart)})",
            *times(whole, half, "seconds"), *times(whole, half, "epoch_seconds"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    if len(means) > 1:
        lines.append(f"| mean | | | {statistics.mean(means):+.3f} | | | | | | |")
    return "\n".join(lines)


def spread(cells: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation of the scores."""
    scores = [cell["score"] for cell in cells]
    return f"{statistics.mean(scores):.3f}" + (f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else "")


def times(whole: Sequence[dict[str, Any]], half: Sequence[dict[str, Any]], name: str) -> tuple[str, str, str]:
    """The mean seconds of both, and how many times as fast the second is."""
    slow, fast = (statistics.mean(cell[name] for cell in cells) for cells in (whole, half))
    return f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.2f}"


if __name__ == "__main__":
    main()
