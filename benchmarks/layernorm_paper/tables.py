"""results.md and front.svg of the study, from what is packed; nothing is computed, and no method's text is read as a method."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from archive import Packed, packed
from front import draw
from plan import (
    BEYOND,
    CONFIRMED,
    COUNT,
    EVERYWHERE,
    FILES,
    FRESH,
    GLOBAL,
    GLOBAL_SHARE,
    HERE,
    LOWEST,
    METHODS,
    PARTS,
    PARTS_OF_NORMS,
    RANK_ONE,
    SHARES,
    SHUFFLED,
    SUBSETS,
    VECTORS,
    methods_of,
    seeds_of,
    selection_method,
)

from trimtab.files import write_text
from trimtab.pages.comparison_page import markdown
from trimtab.results.comparison import Cell, Comparison, summarised
from trimtab.tasks.task import Task

METRICS_SHORT = {"accuracy": "acc.", "matthews": "MCC", "pearson": "r", "f1": "F1"}
FRONT = (*METHODS[:-1], RANK_ONE, *CONFIRMED[::-1], METHODS[-1])  # the methods of the first table
SECONDS = (
    "Seconds are of two cores that did other work too (fits whose head starts as the probe), of a GPU that 15 fits shared, or of "
    "slower processors: do not compare them. Minutes are those of a fit, the mean over the tasks of the faster seed, which other "
    "work slowed least: compare them roughly."
)
TIMED = "new"  # the head whose fits are all of one machine
TITLES = {
    "new": "Fits whose head starts as the linear probe of the frozen features",
    "old": "Fits with the head of before 2026-11-30",
}
QUESTIONS = {  # title -> methods, the one that others are compared to, and the part whose seeds it is of
    "methods": (METHODS, "full"),
    "parts": (("layer_norms", *PARTS_OF_NORMS), "layer_norms"),
    "subsets": (("layer_norms", *SUBSETS), "layer_norms"),
    "global": (
        ("layer_norms", GLOBAL, f"fisher_top:share={GLOBAL_SHARE}", f"random:share={GLOBAL_SHARE},within=layer_norms"),
        "layer_norms",
    ),
    "everywhere": (("layer_norms", f"random:count={COUNT}", *EVERYWHERE), "layer_norms"),
    "beyond": (
        ("fisher_top:share=0.1", "random:share=0.1,within=layer_norms", SHUFFLED, LOWEST, *BEYOND), "fisher_top:share=0.1",
    ),
    "fresh": (FRESH, FRESH[0]),
    "confirmed": (CONFIRMED, CONFIRMED[-1]),
    "vectors": (("layer_norms", "biases", *VECTORS), VECTORS[1]),
} | {
    f"share {each}": ((f"random:share={each},within=layer_norms", f"fisher_top:share={each}"),
                      f"random:share={each},within=layer_norms")
    for each in SHARES
}  # fmt: skip
Cells = Mapping[tuple[str, str, int], Cell]  # by task, method and seed


def summarise(tasks: dict[str, Task], seeds: list[int], heads: Sequence[str]) -> None:
    """Writes results.md, a part for each head and in it a section for each question, and front.svg."""
    rows, lines, drawn = packed(), ["# The claims of arXiv 2403.20284, tried on minilm", "", SECONDS, ""], {}
    for head in heads:
        of_head = [row for row in rows if row.head == head]
        cells = cells_of(of_head)
        front = comparison(tasks, cells, FRONT, seeds, "full")
        if front is not None:
            drawn[head] = front
        lines += [f"# {TITLES[head]}", "", *sections(tasks, cells, of_head, seeds, front)]
    write_text(HERE / "results.md", "\n".join(lines).rstrip() + "\n")
    draw({head: found for head, found in drawn.items() if len(found.tasks) == len(tasks)}, HERE / "front.svg")


def cells_of(rows: Sequence[Packed]) -> Cells:
    """The cells among `rows`, of several of one task, method and seed the last; selections are called what tables call them."""
    found: dict[tuple[str, str, int], Cell] = {}
    for row in rows:
        if row.folder == "cells":
            fields = {name: value for name, value in row.content.items() if name not in ("format", "identity")}
            cell = Cell(**fields)
            named = {
                selection_method(cell.task, what): what for what in (each for part in FILES.values() for each in part)
            }
            cell = replace(cell, method=named.get(cell.method, cell.method))
            found[cell.task, cell.method, cell.seed] = cell
    return found


def sections(
    tasks: dict[str, Task], cells: Cells, rows: Sequence[Packed], seeds: list[int], front: Comparison | None
) -> list[str]:
    """The lines of all questions that there are cells for, of one head."""
    texts = {"the front": None if front is None else pivot(front, timed=rows[0].head == TIMED)}
    for question, (methods, reference) in QUESTIONS.items():
        found = comparison(tasks, cells, methods, seeds_of(question, seeds), reference)
        texts[question] = None if found is None else markdown(found)
    texts["recommended"] = judged(tasks, cells, rows, seeds)
    texts["measured"] = measured_table(measurements(rows, "measured"))
    texts["given head"] = given_head_table(measurements(rows, "given_head"))
    texts["chosen"] = chosen_table(measurements(rows, "chosen"))
    texts["all cells"] = so_far(tasks, cells, seeds)
    return [line for title, text in texts.items() if text for line in (f"## {title}", "", text)]


def measurements(rows: Sequence[Packed], folder: str) -> dict[str, Any]:
    """Task -> what was measured on it."""
    found = {row.path.partition("/")[2].removesuffix(".json"): row.content for row in rows if row.folder == folder}
    return dict(sorted(found.items()))


def comparison(
    tasks: dict[str, Task], cells: Cells, methods: Sequence[str], seeds: Sequence[int], reference: str
) -> Comparison | None:
    """The Comparison of the methods that some task has all seeds of, on the tasks that have all of them; of fewer seeds where
    there is none; None where nothing can be compared to the reference."""
    for n in range(len(seeds), 0, -1):
        whole = {
            name: {method for method in methods if all((name, method, seed) in cells for seed in seeds[:n])}
            for name in tasks
        }
        there = [method for method in methods if any(method in of_task for of_task in whole.values())]
        done = [task for name, task in tasks.items() if whole[name].issuperset(there)]
        if done and reference in there and len(there) > 1:
            names = {task.name for task in done}
            chosen = [
                cell for key, cell in cells.items() if key[0] in names and key[1] in there and key[2] in seeds[:n]
            ]
            return summarised("minilm", done, there, list(seeds[:n]), reference, chosen)
    return None


def pivot(found: Comparison, timed: bool) -> str:
    """Methods down, tasks across: the mean main score in percent, with its standard deviation over seeds where there are several.

    With `timed`, also the minutes of a fit: the mean over the tasks of the fastest one, since other work only adds to them.
    """
    heads = [f"{task.name} ({METRICS_SHORT.get(task.metric, task.metric)})" for task in found.tasks]
    names = ["method", "parameters", *(["minutes"] if timed else []), *heads, "mean"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for number, method in enumerate(found.methods):
        of_method = [*(found.by_task[task.name][number] for task in found.tasks), found.overall[number]]
        scores = (
            f"{100 * s.mean:.1f}" + ("" if s.standard_deviation is None else f" ± {100 * s.standard_deviation:.1f}")
            for s in of_method
        )
        seconds = mean(fastest_seconds(found.cells, task.name, method) for task in found.tasks)
        minutes = f"{seconds / 60:.1f} | " if timed else ""
        lines.append(f"| {method} | {of_method[0].elements:,} | {minutes}{' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


def fastest_seconds(cells: Sequence[Cell], task: str, method: str) -> float:
    """The seconds of the fastest fit of the method on the task."""
    return min(cell.seconds for cell in cells if (cell.task, cell.method) == (task, method))


def so_far(tasks: dict[str, Task], cells: Cells, seeds: list[int]) -> str:
    """A table of every cell there is: methods by tasks, the mean score and how many seeds it is of."""
    files = [what for part in FILES.values() for what in part]
    lines = ["Mean score (seeds).", "", f"| method | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for method in dict.fromkeys([method for part in PARTS for method in methods_of(part)] + files):
        entries = []
        for name in tasks:
            scores = [cells[name, method, seed].score for seed in seeds if (name, method, seed) in cells]
            entries.append(f"{mean(scores):.3f} ({len(scores)})" if scores else "")
        if any(entries):
            lines.append(f"| {method} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def judged(tasks: dict[str, Task], cells: Cells, rows: Sequence[Packed], seeds: list[int]) -> str | None:
    """A table: what was recommended for each task against the best and the rest within the same budget, by the study's cells."""
    lines = [
        "| task | recommended | its score | LayerNorms | random subset | best within the budget |",
        "|---|---|---|---|---|---|",
    ]
    within = ("layer_norms", f"random:count={COUNT}", *EVERYWHERE, *VECTORS, "head")
    # Behind the best: what was recommended, and what always taking one of the others would be.
    behind: dict[str, list[float]] = {"recommended": [], "layer_norms": [], RANK_ONE: []}
    proposals = measurements(rows, "recommended")
    for name in tasks:
        if name not in proposals:
            continue
        proposed = proposals[name]["method"]
        # Means of other seeds are not compared: methods that are not finished are left out.
        scores = {
            method: mean(cells[name, method, seed].score for seed in seeds)
            for method in dict.fromkeys([proposed, *within])
            if all((name, method, seed) in cells for seed in seeds)
        }
        if not scores:
            continue
        best = max(scores, key=lambda method: scores[method])
        its_own = format(scores[proposed], ".3f") if proposed in scores else "not measured"
        plain = [format(scores[method], ".3f") if method in scores else "-" for method in within[:2]]
        lines.append(f"| {name} | {proposed} | {its_own} | {' | '.join(plain)} | {best} {scores[best]:.3f} |")
        if proposed not in scores:
            continue
        for taken, gaps in behind.items():
            gaps.append(scores[best] - scores[proposed if taken == "recommended" else taken])
    if not behind["recommended"]:
        return None
    sentence = ", ".join(f"{taken} {mean(gaps):.4f}" for taken, gaps in behind.items())
    n = len(behind["recommended"])
    return "\n".join(lines) + f"\n\nOn average over {n} tasks behind the best within the budget: {sentence}.\n"


def measured_table(measured: dict[str, Any]) -> str | None:
    """Movement and information by kind, against the mean of the backbone, averaged over tasks; then what foresaw what."""
    if not measured:
        return None
    tasks = list(measured.values())
    label = next(iter(tasks[0]["information"]))
    kinds = [kind for kind in tasks[0]["movement"]["by_kind"] if kind != "head"]
    lines = [
        f"Full fine-tuning of minilm on {', '.join(measured)}; information: {label}.", "",
        "| kind | parameters | mean absolute change, against the backbone's mean | norm of change over norm | largest change "
        "| information per parameter, against the backbone's mean | share of the information |",
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
        "", "Rank correlation of information and movement by parameter: of all that have information (-: not "
        "measured), of the norms behind the feed-forward maps; and the part of the 5% with most information that is among the 5% "
        "that move farthest.",
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
    """The mean of a kind's parameters over the mean of all of the backbone."""
    backbone = [entry for name, entry in by_kind.items() if name != "head"]
    of_all = sum(e["mean"] * e["elements"] for e in backbone) / sum(e["elements"] for e in backbone)
    return by_kind[kind]["mean"] / of_all


def given_head_table(found: dict[str, Any]) -> str | None:
    """What is left of LayerNorm's information when that is taken out which the head could have had itself."""
    if not found:
        return None
    layers = list(next(iter(found.values()))["by_layer"]["plain"])
    lines = [
        "| task | information left given the head | its tenth shared with the plain one's | share of the plain information in "
        f"layer {', '.join(layers)} (-1: the embeddings' norm) | given the head |",
        "|---|---|---|---|---|",
    ]
    for task, each in found.items():
        shares = [[f"{of[layer]['share']:.2f}" for layer in layers] for of in each["by_layer"].values()]
        cells = (f"{each['left']:.1%}", f"{each['same_top_tenth']:.1%}", *map(" ".join, shares))
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def chosen_table(found: dict[str, Any]) -> str | None:
    """Where in LayerNorm the tenth lies that each way to choose takes (seed 0), and how much of it another way takes too."""
    if not found:
        return None
    layers = list(next(iter(next(iter(found.values())).values()))["layer"])
    lines = [
        f"| task | tenth | elements | share of it in layer {', '.join(layers)} (-1: embeddings) | biases | shared with |",
        "|---|---|---|---|---|---|",
    ]
    for task, of_task in found.items():
        for method, each in of_task.items():
            shared = ", ".join(f"{other} {share:.1%}" for other, share in each["shared_with"].items())
            shares = " ".join(f"{each['layer'].get(layer, 0):.2f}" for layer in layers)
            cells = (task, method, f"{each['elements']:,}", shares, f"{each['role'].get('bias', 0):.1%}", shared)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
