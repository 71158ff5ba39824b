"""What the head's start is worth: few rows and all rows, before and after, beside frozen vectors and SetFit.

    python benchmarks/head/run.py --data ../shared/data                    (resumes; hours on two cores)
    python benchmarks/head/run.py --before SRC --part few --draws 1        (cells of an older build, whose src/ is SRC)
    python benchmarks/head/run.py --size 512 --task mrpc --task rte --method layer_norms --set 'pairs="apart"'    (and "together")
    python benchmarks/head/run.py --seconds                                (what `head` costs beside one pass over its rows)
    python benchmarks/head/run.py --summary                                (table.md and figure.svg from the cells there are)

Cells are lines of cells.jsonl. Draws are the beginnings of `draw_order`, so many rows of each class: nested and the same for
every contestant. Each worker has one thread; seconds are CPU seconds of the fit, its validations included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from trimtab.tasks.holdout import draw_order
from trimtab.tasks.read import read
from trimtab.tasks.task import Task

HERE = Path(__file__).parent
CELLS = HERE / "cells.jsonl"
TASKS = ("sst2", "ag_news_10k", "cola", "mrpc", "stsb")
MORE = ("rte", "imdb")  # where they are asked for
SIZES = (8, 32, 128, 512)  # rows per class; of stsb rows
METHODS = ("head", "layer_norms", "biases", "lora")
PEERS = ("sklearn", "setfit")
KEY = ("build", "encoder", "task", "size", "draw", "method", "options")

_LOCK = threading.Lock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--before", type=Path, help="the src/ of an older build, whose cells are computed")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--task", action="append", choices=(*TASKS, *MORE))
    parser.add_argument("--size", action="append", type=int)
    parser.add_argument("--method", action="append")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="a setting of the fits")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if options.seconds:
        (HERE / "seconds.json").write_text(json.dumps(seconds(options.data), indent=2) + "\n")
        return
    if options.summary:
        cells = read_cells(options.cells)
        (HERE / "table.md").write_text(summary([cell for cell in cells if not cell["options"]]) + settings_table(cells))
        figure([cell for cell in cells if not cell["options"]], HERE / "figure.svg")
        return
    settings = {name: json.loads(value) for name, _, value in (each.partition("=") for each in options.set)}
    build = "before" if options.before else "after"
    wanted = [
        {
            "build": build, "encoder": options.encoder, "task": task, "size": size, "draw": draw, "method": method,
            "options": settings,
        }
        for draw in range(options.draws)
        for size in options.size or SIZES
        for task in options.task or TASKS
        for method in options.method or METHODS
    ]  # fmt: skip
    done = {key_of(cell) for cell in read_cells(options.cells)}
    todo = [cell for cell in wanted if key_of(cell) not in done]
    print(f"{len(todo)} of {len(wanted)} cells to do", flush=True)
    run_cells(todo, options)


def run_cells(todo: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Computes the cells, `options.jobs` at a time, each appended to the file when it is done."""
    tasks: dict[str, Task] = {}
    threads = [threading.Thread(target=_work, args=(todo, tasks, options)) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work(todo: list[dict[str, Any]], tasks: dict[str, Task], options: argparse.Namespace) -> None:
    """Takes cells from `todo` until there are none, and has one worker process fit them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if options.before:
        environment["PYTHONPATH"] = str(options.before)
    command = [sys.executable, str(HERE / "worker.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        while True:
            with _LOCK:
                if not todo:
                    break
                cell = todo.pop(0)
                name = cell["task"]
                if name not in tasks:
                    tasks[name] = read(options.data / name)
            request = {
                "task": str(options.data / name), "rows": drawn(tasks[name], cell["size"], cell["draw"]),
                "method": cell["method"], "seed": cell["draw"], "encoder": cell["encoder"], "settings": cell["options"],
            }  # fmt: skip
            print(json.dumps(request), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            if not line:
                raise SystemExit(f"the worker died at {cell}")
            found = json.loads(line)
            with _LOCK, options.cells.open("a") as file:
                file.write(json.dumps(cell | found) + "\n")
            print(*(cell[name] for name in KEY), f"{found['score']:.4f} {found['cpu_seconds']:.1f} s", flush=True)
        worker.stdin.close()


def drawn(task: Task, size: int | str, draw: int) -> list[int] | None:
    """The numbers of the training rows: `size` of each class (or altogether, of a regression), nested in larger draws."""
    order = draw_order(task.train.labels, task.kind, draw).tolist()
    if task.kind == "regression":
        return order[: int(size)]
    counts = dict.fromkeys(range(len(task.classes)), 0)
    rows = []
    for row in order:
        label = task.train.labels[row]
        if counts[label] < int(size):
            counts[label] += 1
            rows.append(row)
    return rows


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of the file; a line cut off by an interruption is left out."""
    if not path.is_file():
        return []
    cells = []
    for line in path.read_text().splitlines():
        try:
            cells.append(json.loads(line))
        except ValueError:
            continue
    return cells


def summary(cells: list[dict[str, Any]]) -> str:
    """Markdown: a row for each encoder, task and size, a column for each contestant; score x 100 over draws, CPU seconds."""
    columns = sorted({(cell["method"], cell["build"]) for cell in cells}, key=lambda each: (each[1] in PEERS, each))
    groups: dict[tuple[str, str, int], dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for cell in cells:
        row = groups.setdefault((cell["encoder"], cell["task"], cell["size"]), {})
        row.setdefault((cell["method"], cell["build"]), []).append(cell)
    heads = [build if build in PEERS else f"{method}, {build}" for method, build in columns]
    lines = [f"| encoder | task | rows per class | {' | '.join(heads)} |", f"|{'---|' * (3 + len(heads))}"]
    for (encoder, task, size), row in sorted(groups.items()):
        lines.append(
            f"| {encoder} | {task} | {size} | {' | '.join(_entry(row.get(column, [])) for column in columns)} |"
        )
    return "\n".join(lines) + "\n"


def _entry(cells: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over draws (how many, where they are not three), and CPU seconds of one."""
    if not cells:
        return ""
    scores = [100 * cell["score"] for cell in cells]
    deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    count = f" ({len(scores)})" if len(scores) != 3 else ""
    return f"{statistics.mean(scores):.1f}{deviation}{count}, {statistics.median(cell['cpu_seconds'] for cell in cells):.0f} s"


def settings_table(cells: list[dict[str, Any]]) -> str:
    """Markdown: two values of a setting on the same rows, and their difference with its 95% confidence interval over draws."""
    from scipy.stats import t as student

    found: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for cell in cells:
        for name, value in cell["options"].items():
            row = (cell["encoder"], cell["task"], cell["size"], cell["method"], name)
            found.setdefault(row, {}).setdefault(str(value), {})[cell["draw"]] = 100 * cell["score"]
    lines = []
    for row, values in sorted(found.items()):
        if len(values) != 2:
            continue
        (a, mine), (b, other) = sorted(values.items())
        gaps = [mine[draw] - other[draw] for draw in sorted(mine.keys() & other.keys())]
        if len(gaps) < 2:
            continue
        half = student.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
        mean = statistics.mean(gaps)
        both = (f"{statistics.mean(each.values()):.1f}" for each in (mine, other))
        low, high = mean - half, mean + half
        cells_of_row = (
            *row,
            f"{a}: {next(both)}",
            f"{b}: {next(both)}",
            f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
            len(gaps),
        )
        lines.append(f"| {' | '.join(map(str, cells_of_row))} |")
    if not lines:
        return ""
    head = "| encoder | task | rows per class | method | setting | one | other | difference (95%) | draws |"
    return "\n".join(["", head, f"|{'---|' * 9}", *lines]) + "\n"


SHOWN = {
    ("layer_norms", "after"): "LayerNorms", ("layer_norms", "before"): "LayerNorms, before", ("head", "after"): "head",
    ("lora", "after"): "LoRA", ("sklearn", "sklearn"): "scikit-learn", ("setfit", "setfit"): "SetFit",
}  # fmt: skip


def figure(cells: list[dict[str, Any]], to: Path) -> None:
    """Draws the scores over the rows per class, a panel for each task of minilm."""
    import matplotlib
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(11, 3.2), layout="constrained")
    panels = drawing.subplots(1, len(TASKS))
    for panel, task in zip(panels, TASKS, strict=True):
        for (method, build), name in SHOWN.items():
            scores: dict[int, list[float]] = {}
            for cell in cells:
                if (cell["encoder"], cell["task"], cell["method"], cell["build"]) == ("minilm", task, method, build):
                    scores.setdefault(cell["size"], []).append(100 * cell["score"])
            sizes = sorted(scores)
            panel.plot(sizes, [statistics.mean(scores[size]) for size in sizes], label=name, marker="o", markersize=3)
        panel.set(xscale="log", title=task, xlabel="rows" if task == "stsb" else "rows per class")
        panel.set_xticks(SIZES, labels=map(str, SIZES))
        panel.minorticks_off()
    panels[0].set_ylabel("score x 100")
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "head", "svg.fonttype": "none"}):
        drawing.savefig(to, metadata={"Date": None})


def seconds(data: Path) -> dict[str, float]:
    """CPU seconds of one pass over 5,000 reviews and their validation rows, and of a whole fit of `head` on them."""
    import time

    import torch

    import trimtab
    from trimtab.changes.methods import Head
    from trimtab.results.recipe import Settings
    from trimtab.training.linear_probe import head_inputs
    from trimtab.training.set_up import set_up

    torch.set_num_threads(1)
    encoder, task = trimtab.load("minilm"), read(data / "imdb")
    settings: dict[str, Any] = {"train_limit": 5000, "cache_gb": 0}
    bench = set_up(encoder, task, Head(), Settings(**settings))
    spent: dict[str, float] = {"rows": len(bench.train), "validation_rows": len(bench.validation)}
    for name in ("encoding", "fit"):
        began = time.process_time()
        if name == "encoding":
            bench.model.eval()
            for examples in (bench.train, bench.validation):
                head_inputs(bench.prepared, examples.inputs, bench.memory.tokens)
        else:
            trimtab.fit(encoder, task, Head(), **settings)
        spent[f"{name}_cpu_seconds"] = round(time.process_time() - began, 2)
        print(name, spent[f"{name}_cpu_seconds"], flush=True)
    return spent


def key_of(cell: dict[str, Any]) -> str:
    """What a cell is known by."""
    return json.dumps([cell[name] for name in KEY], sort_keys=True)


if __name__ == "__main__":
    main()
