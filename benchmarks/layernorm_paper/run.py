"""The claims of arXiv 2403.20284, re-examined: movement, Fisher information, methods, subsets of LayerNorm, a global subset.

    python benchmarks/layernorm_paper/run.py --data ../shared/data           (resumes; days on a CPU)
    python benchmarks/layernorm_paper/run.py --data ../shared/data --part methods --seeds 1
    python benchmarks/layernorm_paper/run.py --data ../shared/data --workers 16   (several processes, on a GPU)
    python benchmarks/layernorm_paper/run.py --data ../shared/data --summary   (results.md and front.svg from the cells there are)
    python benchmarks/layernorm_paper/run.py --data ../shared/data --pack [FOLDER]   (adds the cells of another machine)

Run it from the root of the repository. cells.parquet holds every finished fit and measurement; they are unpacked into cells/,
measured/ and so on, where the study goes on, and packed again when it ends, by --pack and by --summary.

Two things to know of the scores. Default rates were searched on validation rows of sst2, stsb and cola
(benchmarks/rates/run.py), which are among the tasks here; the rates of subsets follow from those of what they are
subsets of. STS-B contains sentence pairs of MRPC, so a global subset judged on either is chosen without both.
"""

import argparse
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from archive import FILE, HEADS, pack, unpack
from plan import (
    CELLS,
    CONFIRMED,
    COUNT,
    EXAMPLES,
    GLOBAL,
    GLOBAL_SHARE,
    HEAD_STEPS,
    HERE,
    LIMITS,
    LOWEST,
    MAX_LENGTH,
    PARTS,
    RELATED,
    TRIALS,
    methods_of,
    named_methods,
    runs,
    seeds_of,
    selection_path,
)
from tables import summarise

from trimtab.changes.fisher import Fisher, mean_of
from trimtab.changes.method_text import parse_method
from trimtab.changes.methods import Full, LayerNorms
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json
from trimtab.results.recipe import Settings
from trimtab.studies.compare import compare
from trimtab.studies.measure_fisher import fisher
from trimtab.studies.movement import movement
from trimtab.studies.recommend import recommend
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

PREPARED = ("recommended", "measured", "beyond", "chosen")  # parts that need something of each task before their cells
NAMED = ("global", "recommended", "beyond")  # parts with methods of single tasks, which need what was prepared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="all by default; computed in the order they are given in"
    )
    parser.add_argument("--task", choices=LIMITS, action="append")
    parser.add_argument("--method", action="append", help="of the parts' methods, only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="minilm", help="another one, to try this script")
    parser.add_argument("--workers", type=int, default=1, help="processes that compute cells at the same time")
    parser.add_argument(
        "--most-seconds", type=float, default=float("inf"), help="stop after so long, with several workers"
    )
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--head", choices=HEADS, help="with --summary: only the fits with this head")
    parser.add_argument("--pack", type=Path, nargs="?", const=CELLS, metavar="FOLDER")
    options = parser.parse_args()
    if options.pack or options.summary:
        print(f"{pack(options.pack)} new files in {FILE.name}")
        if options.summary:
            tasks = {name: read(options.data / name) for name in options.task or LIMITS}
            summarise(tasks, list(range(options.seeds)), [options.head] if options.head else HEADS[::-1])
        return
    unpack()
    compute(options)
    pack()


def compute(options: argparse.Namespace) -> None:
    """All that was asked for and is not there yet."""
    encoder, tasks = load(options.encoder), {name: read(options.data / name) for name in options.task or LIMITS}
    seeds, parts = list(range(options.seeds)), options.part or PARTS
    if options.workers > 1:
        run_side_by_side(options, list(tasks), seeds, parts)
    else:
        if "global" in parts:
            choose_globally(encoder, {name: read(options.data / name) for name in LIMITS})
        for part in parts:
            for name, task in tasks.items():
                prepare(encoder, name, task, part)
        for part in parts:
            for seed in seeds_of(part, seeds):
                for name, task in tasks.items():
                    run(
                        encoder,
                        name,
                        task,
                        wanted([*methods_of(part), *named_methods(part, name)], options.method),
                        seed,
                    )


def wanted(methods: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """Those of `methods` that were asked for, in the order of the plan; all where nothing was. Retired ones are left out."""
    return [method for method in methods if runs(method) and (not only or method in only)]


def run_side_by_side(options: argparse.Namespace, tasks: list[str], seeds: list[int], parts: Sequence[str]) -> None:
    """The same by several processes, each taking the next cell that nobody has begun; stopped when the time is up."""
    began = time.perf_counter()
    # What cells need goes first; then part by part, as they were asked for: what is finished when the time is up is whole.
    jobs = [("global", "", "", 0)] if "global" in parts else []
    jobs += [("prepare", name, part, 0) for part in PREPARED if part in parts for name in tasks]
    for part in parts:
        for seed in seeds_of(part, seeds):
            jobs += [
                ("cell", name, method, seed) for name in tasks for method in wanted(methods_of(part), options.method)
            ]
            jobs += [("named", name, part, seed) for name in tasks if part in NAMED]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _begin, (options.encoder, options.data)) as pool:
        done = pool.imap_unordered(_work, jobs)
        for _ in jobs:
            left = options.most_seconds - (time.perf_counter() - began)
            try:
                done.next(None if left == float("inf") else max(0.0, left))
            except multiprocessing.TimeoutError:
                print("the time is up: cells that are not finished are left for another time", flush=True)
                return


_OF_WORKER: dict[str, Any] = {}  # what a process keeps from one job to the next: the encoder, and tasks once read


def _begin(encoder: str, data: Path) -> None:
    torch.set_num_threads(1)
    _OF_WORKER.update(encoder=load(encoder), data=data)


def _work(job: tuple[str, str, str, int]) -> None:
    """One job of `run_side_by_side`; one that fails says so, and the others go on."""
    what, name, each, seed = job
    encoder, data = _OF_WORKER["encoder"], _OF_WORKER["data"]
    try:
        if what == "global":
            choose_globally(encoder, {name: read(data / name) for name in LIMITS})
            return
        task = _OF_WORKER[name] = _OF_WORKER.get(name) or read(data / name)
        if what == "prepare":
            prepare(encoder, name, task, each)
        else:
            run(encoder, name, task, [each] if what == "cell" else wanted(named_methods(each, name), None), seed)
    except Exception:
        traceback.print_exc()


def prepare(encoder: Encoder, name: str, task: Task, part: str) -> None:
    """What `part` needs of a task before its cells: measurements, selections, a recommendation."""
    if part == "measured":
        measure(encoder, name, task)
    elif part == "beyond":
        choose_lowest(encoder, name, task)
    elif part == "chosen":
        look_at_choices(encoder, name, task)
    elif part == "recommended":
        ask(encoder, name, task)


def ask(encoder: Encoder, name: str, task: Task) -> None:
    """Has `recommend` propose what to train within the budget of all LayerNorms, from trials on training rows of one seed."""
    path = HERE / "recommended" / f"{name}.json"
    if path.is_file():
        return
    seen = limited(task, LIMITS[name], seed=0)
    found = recommend(encoder, seen, str(COUNT), seeds=1, out=TRIALS / name, max_length=MAX_LENGTH)
    write_json(path, found.as_json())
    print(f"{name}: {found.method}", flush=True)


def run(encoder: Encoder, name: str, task: Task, methods: list[str], seed: int) -> None:
    """Computes the cells of one task and seed that are not there yet."""
    if not methods:
        return
    chosen = [parse_method(method) for method in dict.fromkeys(methods)]
    found = compare(encoder, [task], chosen, [seed], out=CELLS, train_limit=LIMITS[name], max_length=MAX_LENGTH)
    for cell in found.cells:
        print(
            f"{name} {cell.method} {seed}: {cell.refused or format(cell.score, '.4f')} in {cell.seconds:.0f} s",
            flush=True,
        )


def measure(encoder: Encoder, name: str, task: Task) -> None:
    """(a) and (c): information before full fine-tuning, movement by it, and whether the one foresaw the other."""
    path = HERE / "measured" / f"{name}.json"
    if path.is_file():
        return
    result: dict[str, Any] = {"rows": EXAMPLES}
    infos, seen = {}, limited(task, LIMITS[name], seed=0)  # information on rows that the fit sees
    for estimator in ("empirical", "exact"):
        for steps in (0, HEAD_STEPS):
            info = fisher(
                encoder, seen, Full(), examples=EXAMPLES, estimator=estimator, head_steps=steps, max_length=MAX_LENGTH,
                compute="auto",
            )  # fmt: skip
            infos[f"{estimator}, head {'trained' if steps else 'as initialised'}"] = info
    tuned = fit(encoder, task, Full(), train_limit=LIMITS[name], max_length=MAX_LENGTH, seed=0)
    moved = movement(tuned, encoder)
    result["movement"] = {"by_kind": moved.by("kind"), "by_layer": moved.by("layer")}
    result["information"] = {
        label: {
            "stability": info.stability, "by_kind": info.by("kind"), "by_layer": info.by("layer"),
            "foresees_movement": moved.foreseen_by(info),
        }
        for label, info in infos.items()
    }  # fmt: skip
    write_json(path, result)
    print(f"measured {name}", flush=True)


def choose_globally(encoder: Encoder, tasks: dict[str, Task]) -> None:
    """(e): for each task, the top of the mean LayerNorm information of the others, but for those that share its sentences."""
    if all(selection_path(name, GLOBAL).is_file() for name in tasks):
        return
    infos: dict[str, Fisher] = {
        name: fisher(
            encoder, limited(task, LIMITS[name], seed=0), LayerNorms(), examples=EXAMPLES, max_length=MAX_LENGTH
        )
        for name, task in tasks.items()
    }
    for name in tasks:
        others = mean_of([info for other, info in infos.items() if other not in (name, RELATED.get(name))])
        others.top(share=GLOBAL_SHARE).save(selection_path(name, GLOBAL))


def choose_lowest(encoder: Encoder, name: str, task: Task) -> None:
    """A control, as a selection: the tenth of LayerNorm with the least information.

    (given_head/ and the control `shuffled` are of an earlier version, which could take the head out of the information.)
    """
    lowest = selection_path(name, LOWEST)
    if not lowest.is_file():
        seen = limited(task, LIMITS[name], seed=0)
        info = fisher(encoder, seen, LayerNorms(), examples=EXAMPLES, max_length=MAX_LENGTH)
        (info.within.backbone - info.top(share=0.9)).save(lowest)


def look_at_choices(encoder: Encoder, name: str, task: Task) -> None:
    """Where in LayerNorm the tenth lies that each way to choose takes, and how much of it they share (chance: a tenth)."""
    path = HERE / "chosen" / f"{name}.json"
    if path.is_file():
        return
    settings = Settings(max_length=MAX_LENGTH, train_limit=LIMITS[name])
    chosen = {method: set_up(encoder, task, parse_method(method), settings).selection.backbone for method in CONFIRMED}
    found: dict[str, Any] = {}
    for method, selection in chosen.items():
        counts = selection.counts()
        entry: dict[str, Any] = {"elements": selection.count}
        for key in ("layer", "role"):
            groups = sorted({getattr(selection.parts[each], key) for each in counts})
            entry[key] = {
                str(group): sum(n for each, n in counts.items() if getattr(selection.parts[each], key) == group)
                / selection.count
                for group in groups
            }
        entry["shared_with"] = {
            other: (selection & another).count / selection.count for other, another in chosen.items() if other != method
        }
        found[method] = entry
    write_json(path, found)


if __name__ == "__main__":
    main()
