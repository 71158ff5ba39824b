"""Tables and pages of the study, from the cells and measurements there are; nothing is computed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from plan import (
    BEYOND,
    BLIND,
    CELLS,
    CONFIRMED,
    COUNT,
    EVERYWHERE,
    FILES,
    GLOBAL,
    GLOBAL_SHARE,
    HERE,
    LIMITS,
    LOWEST,
    MAX_LENGTH,
    METHODS,
    PARTS,
    PARTS_OF_NORMS,
    RANK_ONE,
    SHARES,
    SHUFFLED,
    SUBSETS,
    VECTORS,
    methods_of,
    named_methods,
    seeds_of,
    selection_path,
)

from trimtab.changes.notation import parse_method
from trimtab.encoders.encoder import Encoder
from trimtab.files import write_json, write_text
from trimtab.studies.compare import finished_cells
from trimtab.studies.comparison_page import markdown
from trimtab.studies.summary import Comparison, summarised
from trimtab.tasks.task import Task

PAGES = (
    "methods",
    "subsets",
    "everywhere",
    "beyond",
)  # questions that get a page; the others compare two or three methods
METRICS_SHORT = {"accuracy": "acc.", "matthews": "MCC", "pearson": "r", "f1": "F1"}
FRONT = (*METHODS[:-1], RANK_ONE, *CONFIRMED[::-1], METHODS[-1])  # the methods of README's table
SECONDS = "Seconds are of a GPU that 15 fits shared, and some of slower processors: do not compare them."


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
            ("fisher_top:share=0.1", "random:share=0.1,within=layer_norms", SHUFFLED, LOWEST, *BEYOND), "fisher_top:share=0.1",
        ),
        "blind": (BLIND, BLIND[0]),
        "confirmed": (CONFIRMED, CONFIRMED[-1]),
        "vectors": (("layer_norms", "biases", *VECTORS), VECTORS[1]),
    } | {
        f"share_{each}": ((f"random:share={each},within=layer_norms", f"fisher_top:share={each}"),
                          f"random:share={each},within=layer_norms")
        for each in SHARES
    }  # fmt: skip
    for question, (methods, reference) in questions.items():
        found = comparison(encoder, tasks, methods, seeds_of(question, seeds), reference)
        if found is not None:
            write_json(HERE / f"{question}.json", found.as_json())
            write_text(HERE / f"{question}.md", f"{SECONDS}\n\n{markdown(found)}")
            if question in PAGES:
                found.report(HERE / f"{question}.html")
    of_front = comparison(encoder, tasks, FRONT, seeds, "full")
    if of_front is not None:
        write_text(HERE / "table.md", pivot(of_front))
    write_text(HERE / "so_far.md", so_far(encoder, tasks, seeds))
    table = judged(encoder, tasks, seeds)
    if table is not None:
        write_text(HERE / "recommended.md", table)
    measured = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "measured").glob("*.json"))}
    if measured:
        write_json(HERE / "measured.json", measured)
        write_text(HERE / "measured.md", measured_table(measured))


def pivot(found: Comparison) -> str:
    """Methods down, tasks across: the mean main score in percent, with its spread over seeds where there are several."""
    heads = [f"{task.name} ({METRICS_SHORT.get(task.metric, task.metric)})" for task in found.tasks]
    lines = [f"| method | elements | {' | '.join(heads)} | mean |", "|---" * (len(heads) + 3) + "|"]
    for number, method in enumerate(found.methods):
        of_method = [*(found.by_task[task.name][number] for task in found.tasks), found.overall[number]]
        scores = (f"{100 * s.mean:.1f}" + ("" if s.spread is None else f" ± {100 * s.spread:.1f}") for s in of_method)
        lines.append(f"| {method} | {of_method[0].elements:,} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


def so_far(encoder: Encoder, tasks: dict[str, Task], seeds: list[int]) -> str:
    """A table of every cell there is: methods by tasks, the mean score and how many seeds it is of."""
    files = [what for part in FILES.values() for what in part]
    every = dict.fromkeys([method for part in PARTS for method in methods_of(part)] + files)
    lines = ["Mean score (seeds).", "", f"| method | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for method in every:
        entries = []
        for name, task in tasks.items():
            path = selection_path(name, method) if method in files else None
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
    encoder: Encoder, tasks: dict[str, Task], methods: tuple[str, ...], seeds: Sequence[int], reference: str
) -> Comparison | None:
    """The Comparison on the tasks whose cells are all there, or None."""
    done, cells = [], []
    for name, task in tasks.items():
        files = {what: selection_path(name, what) for what in (GLOBAL, SHUFFLED, LOWEST) if what in methods}
        if not all(path.is_file() for path in files.values()):
            continue
        # The name of a file's selection is another one for each task; in the tables it has one.
        named = {f"selection:file={path}": what for what, path in files.items()}
        chosen = [parse_method(f"selection:file={files[each]}" if each in files else each) for each in methods]
        found = finished_cells(CELLS, encoder, task, chosen, seeds, train_limit=LIMITS[name], max_length=MAX_LENGTH)
        if len(found) == len(methods) * len(seeds):
            done.append(task)
            cells += [replace(cell, method=named.get(cell.method, cell.method)) for cell in found]
    return summarised("minilm", done, list(methods), list(seeds), reference, cells) if done else None


def judged(encoder: Encoder, tasks: dict[str, Task], seeds: list[int]) -> str | None:
    """A table: what was recommended for each task against the best and the rest within the same budget, by the study's cells."""
    lines = [
        "| task | recommended | its score | LayerNorms | random subset | best within the budget |",
        "|---|---|---|---|---|---|",
    ]
    within = ("layer_norms", f"random:count={COUNT}", *EVERYWHERE, *VECTORS, "head")
    behind: dict[str, list[float]] = {
        "recommended": [],
        "layer_norms": [],
        RANK_ONE: [],
    }  # what always taking one would be
    for name, task in tasks.items():
        proposed = named_methods("recommended", name)
        chosen = [parse_method(method) for method in dict.fromkeys([*proposed, *within])]
        cells = finished_cells(CELLS, encoder, task, chosen, seeds, train_limit=LIMITS[name], max_length=MAX_LENGTH)
        by_seed: dict[str, list[float]] = {}
        for cell in cells:
            if cell.score is not None:
                by_seed.setdefault(cell.method, []).append(cell.score)
        # Means of other seeds are not compared: methods that are not finished are left out.
        scores = {method: mean(found) for method, found in by_seed.items() if len(found) == len(seeds)}
        if not proposed or not scores:
            continue
        best = max(scores, key=lambda method: scores[method])
        its_own = format(scores[proposed[0]], ".3f") if proposed[0] in scores else "not measured"
        plain = [format(scores[method], ".3f") if method in scores else "-" for method in within[:2]]
        lines.append(f"| {name} | {proposed[0]} | {its_own} | {' | '.join(plain)} | {best} {scores[best]:.3f} |")
        if proposed[0] not in scores:
            continue
        for taken, gaps in behind.items():
            gaps.append(scores[best] - scores[proposed[0] if taken == "recommended" else taken])
    if not behind["recommended"]:
        return None
    sentence = ", ".join(f"{taken} {mean(gaps):.4f}" for taken, gaps in behind.items())
    n = len(behind["recommended"])
    return "\n".join(lines) + f"\n\nOn average over {n} tasks behind the best within the budget: {sentence}.\n"


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
