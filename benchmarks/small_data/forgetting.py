"""What each method forgets of minilm while it learns a task: neighbours kept, another task's probe, and the score, over seeds.

    python benchmarks/small_data/forgetting.py --data ../shared/data            (resumes; one to three minutes a cell on one core)
    python benchmarks/small_data/forgetting.py --data ../shared/data --task sst2 --seeds 1
    python benchmarks/small_data/forgetting.py --summary                        (forgetting.md from the cells there are)

Cells are lines of forgetting.jsonl; the first seed of a task comes before the second. All are fits of 2,000 training rows
with the head that suits the encoder (linear, on the mean of the token states), by each method's own rates and epochs but where
a setting says otherwise. Texts are 1,000 of the validation rows of cola, rte and stsb, which no fit here sees; the probe is AG
News, and sst2 where AG News is the task.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trimtab
from trimtab.changes.method_text import parse_method
from trimtab.studies.forgetting import Yardstick
from trimtab.studies.other_texts import OtherTexts, probe_rows, texts_beside
from trimtab.tasks.task import Task

HERE = Path(__file__).parent
CELLS = HERE / "forgetting.jsonl"
TASKS = ("sst2", "mrpc", "ag_news_10k")
TEXTS = ("cola", "rte", "stsb")
ROWS = 2000
# Method, and settings that differ from its own: rates about a third and a tenth, fewer epochs, upper layers only.
CONTESTANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("layer_norms", {}), ("lora", {}), ("last_layers", {}), ("full", {}), ("biases", {}), ("head", {}),
    ("layer_norms", {"lr_factor": 1 / 3}), ("layer_norms:last=3", {}), ("lora", {"lr_factor": 1 / 3}),
    ("layer_norms", {"lr_factor": 1 / 10}), ("layer_norms", {"epochs": 2}), ("lora:last=3", {}),
    ("full", {"lr_factor": 1 / 3}), ("biases", {"lr_factor": 1 / 3}), ("lora", {"head": "default"}),
    ("layer_norms", {"head": "default"}),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        compute(options.data, options.task or TASKS, options.seeds)
    (HERE / "forgetting.md").write_text(summary(read_cells()))


def compute(data: Path, names: Sequence[str], seeds: int) -> None:
    """Fits and measures the cells that are not there, and appends each to the file when it is done."""
    encoder, done = trimtab.load("minilm"), {key_of(cell) for cell in read_cells()}
    texts = [text for name in TEXTS for column in trimtab.read(data / name).validation.texts for text in column]
    yardsticks: dict[str, Yardstick] = {}
    for name in names:
        for seed in range(seeds):
            for method, settings in CONTESTANTS:
                cell = {"task": name, "seed": seed, "method": method, "settings": settings}
                if key_of(cell) in done:
                    continue
                task = trimtab.read(data / name)
                if name not in yardsticks:
                    probe = trimtab.read(data / ("sst2" if name == "ag_news_10k" else "ag_news_10k"))
                    beside = texts_beside(texts, task)
                    yardsticks[name] = Yardstick(encoder, OtherTexts(beside.texts, "+".join(TEXTS), probe_rows(probe)))
                found = measured(encoder, task, yardsticks[name], cell)
                with CELLS.open("a") as file:
                    file.write(json.dumps(cell | found) + "\n")
                print(name, seed, method, settings, f"{found['score']:.3f} kept {found['kept']:.3f}", flush=True)


def measured(encoder: Any, task: Task, yardstick: Yardstick, cell: dict[str, Any]) -> dict[str, Any]:
    """The fit's score, and what its delta has kept."""
    method, settings = parse_method(cell["method"]), dict(cell["settings"])
    began = time.process_time()
    if factor := settings.pop("lr_factor", None):
        own = trimtab.Settings(head=settings.get("head", "auto")).for_method(method, ROWS, encoder.config.hidden_size)
        assert own.lr is not None
        settings["lr"] = own.lr * factor
    run = trimtab.fit(encoder, task, method, seed=cell["seed"], train_limit=ROWS, cache_gb=0, **settings)
    fitted = time.process_time()
    found = yardstick.of(run.delta)
    return {
        "score": run.scores[task.metric], "metric": task.metric, "start": run.baseline[task.metric],
        "lr": run.details["settings"]["lr"], "epochs": run.details["settings"]["epochs"], "elements": run.delta.count_body,
        "kept": found.neighbours_kept, "forgetting": found.as_json(), "fit_cpu_seconds": round(fitted - began, 1),
        "measuring_cpu_seconds": round(time.process_time() - fitted, 1),
    }  # fmt: skip


def read_cells() -> list[dict[str, Any]]:
    """The cells of the file; a line cut off by an interruption is left out."""
    cells = []
    for line in CELLS.read_text().splitlines() if CELLS.is_file() else ():
        try:
            cells.append(json.loads(line))
        except ValueError:
            continue
    return cells


def key_of(cell: dict[str, Any]) -> str:
    """What a cell is known by."""
    return json.dumps([cell[name] for name in ("task", "seed", "method", "settings")], sort_keys=True)


def summary(cells: list[dict[str, Any]]) -> str:
    """Markdown: a row for each task, method and setting; means and standard deviations over seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        said = ", ".join(f"{name} {_said(value)}" for name, value in cell["settings"].items())
        groups.setdefault((cell["task"], cell["method"], said), []).append(cell)
    lines = [
        "| task | method | setting | parameters | lr | epochs | score | neighbours kept | probe lost | CKA, last layer | seeds |",
        f"|{'---|' * 11}",
    ]
    order = sorted(groups.items(), key=lambda each: (each[0][0], -statistics.mean(c["kept"] for c in each[1])))
    for (task, method, setting), of in order:
        figures = (
            _entry([100 * cell["score"] for cell in of]), _entry([100 * cell["kept"] for cell in of], "%"),
            _entry([100 * cell["forgetting"]["probe"]["lost"] for cell in of]),
            _entry([cell["forgetting"]["similarity"][-1] for cell in of], digits=2),
        )  # fmt: skip
        one = of[0]
        lines.append(
            f"| {task} | {method} | {setting or 'its own'} | {one['elements']:,} | {one['lr']:.2g} | {one['epochs']} | "
            f"{' | '.join(figures)} | {len(of)} |"
        )
    return "\n".join(lines) + "\n"


def _said(value: Any) -> str:
    return f"x {value:.2f}" if isinstance(value, float) else str(value)


def _entry(values: list[float], unit: str = "", digits: int = 1) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{unit}{deviation}"


if __name__ == "__main__":
    main()
