"""The claims of arXiv 2403.20284, re-examined: movement, Fisher information, methods, subsets of LayerNorm, a global subset.

    python benchmarks/layernorm_paper/run.py --data ../shared/data           (resumes; hours on a CPU)
    python benchmarks/layernorm_paper/run.py --data ../shared/data --part methods --seeds 1
    python benchmarks/layernorm_paper/run.py --data ../shared/data --workers 16   (several processes, on a GPU)
    python benchmarks/layernorm_paper/run.py --data ../shared/data --summary (tables from the cells there are)

Run it from the root of the repository. Fits are cells under benchmarks/layernorm_paper/cells/; what was measured on each task
is one file under measured/, the global subsets are under selections/.

Two things to know of the scores. Default rates were searched on validation rows of sst2, stsb and cola
(benchmarks/first_results/tune.py), which are among the tasks here; the rates of subsets follow from those of what they are
subsets of. STS-B contains sentence pairs of MRPC, so a global subset judged on either is chosen without both.
"""

import argparse
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from trimtab.changes.fisher import Fisher, mean_of
from trimtab.changes.methods import Full, LayerNorms
from trimtab.changes.notation import parse_method
from trimtab.changes.selection import Selection
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json, write_text
from trimtab.studies.compare import compare, finished_cells
from trimtab.studies.comparison_page import markdown
from trimtab.studies.information import fisher
from trimtab.studies.movement import movement
from trimtab.studies.recommend import recommend
from trimtab.studies.summary import Comparison, summarised
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.fit import fit

HERE = Path(__file__).parent
CELLS = Path("benchmarks/layernorm_paper/cells")
SELECTIONS = Path("benchmarks/layernorm_paper/selections")  # relative: the path is a part of the method's name
LIMITS = {"mrpc": None, "cola": None, "rte": None, "sst2": 8000, "ag_news_10k": 4000, "stsb": None}  # training rows
MAX_LENGTH = 256
SHARES = (0.05, 0.1, 0.2, 0.5)
GLOBAL_SHARE = 0.2
COUNT = 9984  # elements of all LayerNorms of minilm
EXAMPLES = 1024
HEAD_STEPS = 100  # of the variant whose head is trained before measuring

RANK_ONE = "lora:rank=1,alpha=2"  # 9,216 elements: less than all LayerNorms have

PARTS_OF_NORMS = ("layer_norms:which=output", "layer_norms:which=attention")  # (b) too
METHODS = ("full", "layer_norms", "biases", "lora", f"random:count={COUNT}", "head")  # (b)
SUBSETS = tuple(  # (d)
    f"{kind}:share={share}{within}"
    for share in SHARES
    for kind, within in (("fisher_top", ""), ("random", ",within=layer_norms"))
)
EVERYWHERE = (  # (f): LayerNorm's count spent on everything; most of it falls to the pooler, unless dealt out by layer
    f"fisher_top:count={COUNT},within=full", f"fisher_top:count={COUNT},per=layer,within=full",
    f"moved_top:count={COUNT},by=gain,within=full", RANK_ONE, f"random:count={COUNT},within=biases",
)  # fmt: skip
BEYOND = (  # other ways to choose a tenth of LayerNorm, or as many elements (998) among biases too
    "fisher_top:share=0.1,given=head", f"fisher_top:share=0.1,head_steps={HEAD_STEPS},given=head",
    f"fisher_top:share=0.1,head_steps={HEAD_STEPS}", "fisher_top:share=0.1,per=layer", "fisher_top:share=0.1,per=parameter",
    "fisher_top:share=0.1,granularity=vector", "moved_top:share=0.1", "moved_top:share=0.1,by=gain",
    "fisher_top:count=998,within=(layer_norms+biases)", "moved_top:count=998,by=gain,within=(layer_norms+biases)",
    "random:count=998,within=(layer_norms+biases)", "random:count=998",
)  # fmt: skip
GLOBAL = f"global:share={GLOBAL_SHARE}"  # what the tables call a selection file, which is another one for each task
SHUFFLED = "shuffled:share=0.1"  # as many of each norm as information given the head chooses, drawn blindly
RELATED = {"mrpc": "stsb", "stsb": "mrpc"}  # tasks that share sentences
TRIALS = Path("benchmarks/layernorm_paper/trials")  # what `recommend` tries before it proposes
PARTS = ("measured", "methods", "subsets", "global", "everywhere", "beyond", "recommended")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="all by default; computed in the order they are given in"
    )
    parser.add_argument("--task", choices=LIMITS, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="minilm", help="another one, to try this script")
    parser.add_argument("--workers", type=int, default=1, help="processes that compute cells at the same time")
    parser.add_argument(
        "--most-seconds", type=float, default=float("inf"), help="stop after so long, with several workers"
    )
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    encoder, tasks = load(options.encoder), {name: read(options.data / name) for name in options.task or LIMITS}
    seeds, parts = list(range(options.seeds)), options.part or PARTS
    if options.summary:
        summarise(encoder, tasks, seeds)
    elif options.workers > 1:
        run_side_by_side(options, list(tasks), seeds, parts)
    else:
        wanted = [method for part in parts if part != "measured" for method in methods_of(part)]
        if "global" in parts:
            choose_globally(encoder, {name: read(options.data / name) for name in LIMITS})
        for name, task in tasks.items():
            prepare(encoder, name, task, parts)
        for seed in seeds:
            for name, task in tasks.items():
                named = selection_methods(name, parts) + recommended_methods(name, parts)
                run(encoder, name, task, wanted + named, seed)


def run_side_by_side(options: argparse.Namespace, tasks: list[str], seeds: list[int], parts: Sequence[str]) -> None:
    """The same by several processes, each taking the next cell that nobody has begun; stopped when the time is up."""
    began = time.perf_counter()
    # What is measured goes first; then cells, part by part and one seed after the other, and last those that need the measured.
    jobs = [("global", "", "", 0)] if "global" in parts else []
    jobs += [
        ("prepare", name, part, 0) for part in ("measured", "beyond", "recommended") if part in parts for name in tasks
    ]
    for part in parts:
        wanted = [] if part == "measured" else methods_of(part)
        jobs += [("cell", name, method, seed) for seed in seeds for name in tasks for method in wanted]
    named = [part for part in ("global", "beyond", "recommended") if part in parts]
    jobs += [("named", name, part, seed) for seed in seeds for part in named for name in tasks]
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
            prepare(encoder, name, task, [each])
        else:
            named = selection_methods(name, [each]) + recommended_methods(name, [each])
            run(encoder, name, task, [each] if what == "cell" else named, seed)
    except Exception:
        traceback.print_exc()


def prepare(encoder: Encoder, name: str, task: Task, parts: list[str] | tuple[str, ...]) -> None:
    """What the parts need of a task before its cells: measurements, selections, a recommendation."""
    if "measured" in parts:
        measure(encoder, name, task)
    if "beyond" in parts:
        look_given_head(encoder, name, task)
    if "recommended" in parts:
        ask(encoder, name, task)


def methods_of(part: str) -> tuple[str, ...]:
    return {"methods": (*METHODS, *PARTS_OF_NORMS), "subsets": SUBSETS, "everywhere": EVERYWHERE, "beyond": BEYOND}.get(
        part, ()
    )


def selection_methods(task: str, parts: list[str] | tuple[str, ...]) -> list[str]:
    """The global subset that was chosen without `task`, and the shuffled choice of `task`."""
    paths = {"global": selection_path(task, GLOBAL), "beyond": selection_path(task, SHUFFLED)}
    return [f"selection:file={path}" for part, path in paths.items() if part in parts]


def recommended_methods(task: str, parts: list[str] | tuple[str, ...]) -> list[str]:
    """What `recommend` proposed for `task`, once it was asked."""
    path = HERE / "recommended" / f"{task}.json"
    return [json.loads(path.read_text())["method"]] if "recommended" in parts and path.is_file() else []


def ask(encoder: Encoder, name: str, task: Task) -> None:
    """Has `recommend` propose what to train within the budget of all LayerNorms, from trials on training rows of one seed."""
    path = HERE / "recommended" / f"{name}.json"
    if path.is_file():
        return
    seen = limited(task, LIMITS[name], seed=0)
    found = recommend(encoder, seen, str(COUNT), seeds=1, out=TRIALS / name, max_length=MAX_LENGTH)
    write_json(path, found.as_json())
    print(f"{name}: {found.method}", flush=True)


def judged(encoder: Encoder, tasks: dict[str, Task], seeds: list[int]) -> str | None:
    """A table: what was recommended for each task against the best and the rest within the same budget, by the study's cells."""
    lines = [
        "| task | recommended | its score | LayerNorms | random subset | best within the budget |",
        "|---|---|---|---|---|---|",
    ]
    within = ("layer_norms", f"random:count={COUNT}", *EVERYWHERE, "head")
    for name, task in tasks.items():
        proposed = recommended_methods(name, PARTS)
        chosen = [parse_method(method) for method in dict.fromkeys([*proposed, *within])]
        cells = finished_cells(CELLS, encoder, task, chosen, seeds, train_limit=LIMITS[name], max_length=MAX_LENGTH)
        scores = {
            method: mean([cell.score for cell in cells if cell.method == method and cell.score is not None])
            for method in dict.fromkeys(cell.method for cell in cells)
        }
        if not proposed or proposed[0] not in scores:
            continue
        best = max(scores, key=lambda method: scores[method])
        plain = [format(scores[method], ".3f") if method in scores else "-" for method in within[:2]]
        lines.append(
            f"| {name} | {proposed[0]} | {scores[proposed[0]]:.3f} | {' | '.join(plain)} | {best} {scores[best]:.3f} |"
        )
    return "\n".join(lines) + "\n" if len(lines) > 2 else None


def selection_path(task: str, what: str) -> Path:
    return SELECTIONS / f"{'without' if what == GLOBAL else 'shuffled'}-{task}.safetensors"


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


def look_given_head(encoder: Encoder, name: str, task: Task) -> None:
    """What the head leaves of LayerNorm's information, layer by layer; and from its choice a control, as many of each norm drawn.

    The control asks whether it is the elements that matter, or how many of them each norm has.
    """
    path, control = HERE / "given_head" / f"{name}.json", selection_path(name, SHUFFLED)
    if path.is_file() and control.is_file():
        return
    seen = limited(task, LIMITS[name], seed=0)
    plain, left = (
        fisher(encoder, seen, LayerNorms(), examples=EXAMPLES, given=given, max_length=MAX_LENGTH)
        for given in ("nothing", "head")
    )
    chosen = left.top(share=0.1)
    draw = np.random.default_rng(0)
    drawn = {
        each: np.sort(
            draw.choice(left.parts[each].count, left.parts[each].count if at is None else len(at), replace=False)
        )
        for each, at in chosen.elements.items()
    }
    Selection(left.parts, drawn).save(control)
    sums = [sum(value for value, _ in info.sums().values()) for info in (plain, left)]
    same = (chosen & plain.top(share=0.1)).count / chosen.count
    result = {"left": sums[1] / sums[0], "same_top_tenth": same}
    by_layer = {"plain": plain.by("layer"), "given_head": left.by("layer")}
    write_json(path, {"rows": EXAMPLES} | result | {"by_layer": by_layer})


def summarise(encoder: Encoder, tasks: dict[str, Task], seeds: list[int]) -> None:
    """Writes a table, a page and a JSON per question, from the cells there are."""
    share, random_share = f"fisher_top:share={GLOBAL_SHARE}", f"random:share={GLOBAL_SHARE},within=layer_norms"
    questions = {
        "methods": (METHODS, "full"),
        "parts": (("layer_norms", *PARTS_OF_NORMS), "layer_norms"),
        "subsets": (("layer_norms", *SUBSETS), "layer_norms"),
        "global": (("layer_norms", GLOBAL, share, random_share), "layer_norms"),
        "everywhere": (("layer_norms", f"random:count={COUNT}", *EVERYWHERE), "layer_norms"),
        "beyond": (
            ("fisher_top:share=0.1", "random:share=0.1,within=layer_norms", SHUFFLED, *BEYOND), "fisher_top:share=0.1",
        ),
    } | {
        f"share_{each}": ((f"random:share={each},within=layer_norms", f"fisher_top:share={each}"),
                          f"random:share={each},within=layer_norms")
        for each in SHARES
    }  # fmt: skip
    for question, (methods, reference) in questions.items():
        found = comparison(encoder, tasks, methods, seeds, reference)
        if found is not None:
            write_json(HERE / f"{question}.json", found.as_json())
            write_text(HERE / f"{question}.md", markdown(found))
            found.report(HERE / f"{question}.html")
    write_text(HERE / "so_far.md", so_far(encoder, tasks, seeds))
    table = judged(encoder, tasks, seeds)
    if table is not None:
        write_text(HERE / "recommended.md", table)
    measured = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "measured").glob("*.json"))}
    if measured:
        write_json(HERE / "measured.json", measured)
        write_text(HERE / "measured.md", measured_table(measured))


def so_far(encoder: Encoder, tasks: dict[str, Task], seeds: list[int]) -> str:
    """A table of every cell there is: methods by tasks, the mean score and how many seeds it is of."""
    every = dict.fromkeys([method for part in PARTS for method in methods_of(part)] + [GLOBAL, SHUFFLED])
    lines = ["Mean score (seeds).", "", f"| method | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for method in every:
        entries = []
        for name, task in tasks.items():
            path = selection_path(name, method) if method in (GLOBAL, SHUFFLED) else None
            if path is not None and not path.is_file():
                entries.append("")
                continue
            chosen = [parse_method(method if path is None else f"selection:file={path}")]
            found = finished_cells(CELLS, encoder, task, chosen, seeds, train_limit=LIMITS[name], max_length=MAX_LENGTH)
            scores = [cell.score for cell in found if cell.score is not None]
            entries.append(f"{mean(scores):.3f} ({len(scores)})" if scores else "")
        if any(entries):
            lines.append(f"| {method} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def comparison(
    encoder: Encoder, tasks: dict[str, Task], methods: tuple[str, ...], seeds: list[int], reference: str
) -> Comparison | None:
    """The Comparison on the tasks whose cells are all there, or None."""
    done, cells = [], []
    for name, task in tasks.items():
        files = {what: selection_path(name, what) for what in (GLOBAL, SHUFFLED) if what in methods}
        if not all(path.is_file() for path in files.values()):
            continue
        # The name of a file's selection is another one for each task; in the tables it has one.
        named = {f"selection:file={path}": what for what, path in files.items()}
        chosen = [parse_method(f"selection:file={files[each]}" if each in files else each) for each in methods]
        found = finished_cells(CELLS, encoder, task, chosen, seeds, train_limit=LIMITS[name], max_length=MAX_LENGTH)
        if len(found) == len(methods) * len(seeds):
            done.append(task)
            cells += [replace(cell, method=named.get(cell.method, cell.method)) for cell in found]
    return summarised("minilm", done, list(methods), seeds, reference, cells) if done else None


def measured_table(measured: dict[str, Any]) -> str:
    """Movement and information by kind, against the mean element of the body, averaged over tasks; then what foresaw what."""
    tasks = list(measured.values())
    label = next(iter(tasks[0]["information"]))
    kinds = [kind for kind in tasks[0]["movement"]["by_kind"] if kind != "head"]
    lines = [
        f"Full fine-tuning of minilm on {', '.join(measured)}; information: {label}.", "",
        "| kind | elements | mean absolute change, against the body's mean | norm of change over norm | largest change "
        "| information per element, against the body's mean | share of the information |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in kinds:
        moved = [task["movement"]["by_kind"] for task in tasks]
        infos = [task["information"][label]["by_kind"] for task in tasks]
        cells = (
            f"{moved[0][kind]['elements']:,}",
            f"{mean(relative(each, kind) for each in moved):.2f}",
            f"{mean(each[kind]['relative'] for each in moved):.2%}",
            f"{mean(each[kind]['largest'] for each in moved):.4f}",
            f"{mean(relative(each, kind) for each in infos):.2f}",
            f"{mean(each[kind]['share'] for each in infos):.2%}",
        )
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += [
        "", "Rank correlation of information and movement, element by element: of all that have information (-: not measured), "
        "of the norms behind the feed-forward maps; and the part of the 5% with most information that is among the 5% that move "
        "farthest.",
        "", f"| information | {' | '.join(measured)} |", "|---" * (len(measured) + 1) + "|",
    ]  # fmt: skip
    for each in tasks[0]["information"]:
        found = [task["information"][each]["foresees_movement"] for task in tasks]
        entries = (
            f"{'-' if one['rank_correlation'] is None else format(one['rank_correlation'], '.2f')}, "
            f"{one['by_kind']['output_norm']:.2f}; {one['overlap']['0.05']['found']:.1%}"
            for one in found
        )
        lines.append(f"| {each} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def relative(by_kind: dict[str, Any], kind: str) -> float:
    """The mean of a kind's elements over the mean of all elements of the body."""
    body = [entry for name, entry in by_kind.items() if name != "head"]
    of_all = sum(e["mean"] * e["elements"] for e in body) / sum(e["elements"] for e in body)
    return by_kind[kind]["mean"] / of_all


if __name__ == "__main__":
    main()
