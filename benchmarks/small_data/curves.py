"""Forecasts over 8 times the labels: by how much they miss, and how many truths lie inside the range that was told.

    python benchmarks/small_data/curves.py --data ../shared/data        (resumes; frozen vectors first, then `head`)
    python benchmarks/small_data/curves.py --summary                    (curves.md and curves.json from the cells there are)

What there is is 128 rows a class, drawn three times from each task; of each the curve is what `trimtab curve` makes of it. The
truth is the mean over three draws of 1,024 rows a class, on the same validation rows. Accuracy, whatever the task's own metric.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import trimtab
from trimtab.changes.method_text import parse_method
from trimtab.results.cells import Cells
from trimtab.results.learning_curve import LEVEL, REACH
from trimtab.results.score_curves import ScoreCurve, Scores
from trimtab.studies.cell_spec import CellSpec, outcome
from trimtab.studies.curve import sizes_of
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.baselines import FrozenVectors

HERE = Path(__file__).parent
TASKS = ("sst2", "cola", "ag_news_10k", "mrpc", "rte")
METHODS = ("frozen vectors", "head")
THERE, DRAWS, POOLS = 128, 5, 3  # rows a class; draws of each size, and of what there is
LEAST = 32  # rows a class: smaller sizes are not fitted, as the curve does not use them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cells", type=Path, default=Path("runs/small_data_curves"))
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--pools", type=int, default=POOLS)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    results = HERE / "curves.json"
    rows = json.loads(results.read_text()) if results.exists() else []
    if not options.summary:
        for row in computed(options):
            rows = [each for each in rows if key_of(each) != key_of(row)] + [row]
            results.write_text(json.dumps(sorted(rows, key=key_of), indent=1) + "\n")
            print(row, flush=True)
    (HERE / "curves.md").write_text(summary(rows))


def key_of(row: dict[str, Any]) -> tuple[int, str, int]:
    return METHODS.index(row["method"]), row["task"], row["pool"]


def computed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A forecast and its truth for each method, task and pool."""
    encoder, cells = trimtab.load("minilm"), Cells(options.cells)
    for method in options.method or METHODS:
        for name in options.task or TASKS:
            task = replace(read(options.data / name).judged_by("accuracy"), name=name)
            unit = len(task.classes)

            def scored(of: Task, limit: int, seed: int, method: str = method) -> float:
                settings = trimtab.Settings(seed=seed, train_limit=limit, compute="float32")
                of_method = FrozenVectors() if method == METHODS[0] else parse_method(method)
                cell = outcome(CellSpec(encoder, of, of_method, settings), cells, waits=True, starts=lambda: None).cell
                assert cell is not None
                if cell.refused:
                    raise SystemExit(f"{method} on {of.name}: {cell.refused}")
                return cell.score

            truth = statistics.mean(scored(task, REACH * THERE * unit, seed) for seed in range(POOLS))
            for pool in range(options.pools):
                some = limited(task, THERE * unit, pool)
                sizes = [
                    Scores(size // unit, size, tuple(scored(some, size, draw) for draw in range(DRAWS)))
                    for size in sizes_of(some)
                    if size >= LEAST * unit
                ]
                curve = ScoreCurve.of(method, False, sizes, "accuracy", len(task.validation))
                found = curve.expected(REACH * THERE)
                yield {
                    "method": method, "task": name, "pool": pool, "now": curve.now.mean, "truth": truth,
                    "low": found.low, "middle": found.middle, "high": found.high,
                }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> str:
    """The table, a method and a task a line, and the means."""
    said = [
        f"Forecasts from {THERE} to {REACH * THERE:,} rows a class (minilm; accuracy x 100; `curves.py`). Aims: a mean miss",
        f"of at most 2.2 points, and {LEVEL:.0%} of truths inside the range.",
        "",
        "| method | task | now | told (first pool) | truth | mean miss | miss of \"no gain\" | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        for task in TASKS:
            of = [row for row in own if row["task"] == task]
            if of:
                told = f"{100 * of[0]['low']:.1f} to {100 * of[0]['high']:.1f}"
                now = statistics.mean(row["now"] for row in of)
                said.append(
                    f"| {method} | {task} | {100 * now:.1f} | {told} | {100 * of[0]['truth']:.1f} | {_judged(of)} |"
                )
        if own:
            said.append(f"| {method} | all | | | | {_judged(own)} |")
    missing = [
        f"{m} on {t}" for m in METHODS for t in TASKS if not any((r["method"], r["task"]) == (m, t) for r in rows)
    ]
    if missing:
        said += ["", f"Not run yet: {', '.join(missing)}."]
    said += ["", "On cola frozen vectors have the accuracy of always saying the larger class, at every size."]
    return "\n".join(said) + "\n"


def _judged(rows: list[dict[str, Any]]) -> str:
    miss, none = (100 * statistics.mean(abs(row[what] - row["truth"]) for row in rows) for what in ("middle", "now"))
    inside = sum(row["low"] <= row["truth"] <= row["high"] for row in rows)
    return f"{miss:.1f} | {none:.1f} | {inside} of {len(rows)}"


if __name__ == "__main__":
    main()
