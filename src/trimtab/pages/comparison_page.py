"""A comparison in words: the three sentences that sum it up, tables as Markdown, and one self-contained HTML page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import counted
from ..files import write_text
from ..results.comparison import Comparison, Summary
from ..results.formatting import count, duration, metric_name, p_value, score, share, signed, signed_alike, size
from ..results.statistics import LEAST_ROWS
from ..tasks.metrics import METRICS
from ..tasks.task import Task
from .pareto_chart import COSTS, MOST_NAMES, drawing
from .run_page import environment


def conclusions(comparison: Comparison) -> list[str]:
    """Three sentences: which method is best, which is the smallest that keeps up with the reference, and what it costs.

    There are always three, as the page asks for each by its place; one that cannot be said is empty.
    """
    found = comparison.best_first
    if not found:
        return ["No method could be used on every task, so there is nothing to compare.", "", ""]
    # The reference may be missing here: it may have been refused on some task.
    best, reference = found[0], next((s for s in found if s.method == comparison.reference), None)
    # Where directions differ by task, methods are ordered by their mean rank and have no score.
    verb = "scores" if comparison.higher_is_better is not None else "ranks"
    first = f"{best.method} {verb} best: {_scored(best)} {_where(comparison)}"
    # Beside the best score, the one to judge it by.
    if reference is not None and reference is not best:
        first += f"; {reference.method}, the reference, has {_scored(reference)}"
    return [f"{first}.", _keeping_up(comparison, found, reference), _cheapest(comparison, found)]


def markdown(comparison: Comparison) -> str:
    """The conclusions, then a table over tasks, one per task, and what was refused."""
    lines = [*map(_plain, conclusions(comparison)), ""]
    # One task needs no table over tasks: it would say the same.
    titled = [(f"Over {len(comparison.tasks)} tasks", "", comparison.overall)] if len(comparison.tasks) > 1 else []
    titled += [
        (f"{task.name} ({metric_name(task)})", task.name, comparison.by_task[task.name]) for task in comparison.tasks
    ]
    for title, key, summaries in titled:
        lines += [f"**{_plain(title)}**", "", *_table(comparison, summaries, comparison.baselines.get(key, [])), ""]
    # What is missing from the tables, and how far to trust what is in them.
    lines += [f"- {_plain(f'{method} was refused: {why}')}" for method, why in comparison.refused.items()]
    lines += [f"- {_plain(doubt)}" for doubt in (*doubts(comparison), *comparison.notes)]
    lines += ["", _plain(how_judged(comparison))]
    return "\n".join(lines).rstrip() + "\n"


def page(comparison: Comparison) -> str:
    """The HTML page as one text, with its styles and drawings inside."""
    # Markup is not escaped again: in the drawings, matplotlib has escaped the names already.
    contents = {
        "comparison": comparison, "conclusions": conclusions(comparison), "rows": comparison.best_first,
        "charts": [(name, Markup(drawing(comparison, cost))) for cost, name in COSTS.items()] if comparison.overall else [],
        "some_named": len(comparison.overall) > MOST_NAMES,
        "fronts": {name: comparison.front(cost) for cost, name in COSTS.items()},
        "how_judged": how_judged(comparison), "doubts": [*doubts(comparison), *comparison.notes],
        "measured": any(s.neighbours_kept is not None for of in comparison.by_task.values() for s in of),
        "difference": difference_text, "scored": _scored, "kept": kept, "forgets": forgets, "metric_name": metric_name,
        "first_lines": comparison.baselines.get("" if len(comparison.tasks) > 1 else comparison.tasks[0].name, []),
        "n_rows": {task.name: len(task.validation) for task in comparison.tasks},
    }  # fmt: skip
    # Several of the values are functions: the template puts each summary or task into words where it shows it.
    text = environment().get_template("comparison.html.j2").render(contents)
    # Half a surrogate pair in somebody's class name cannot be written as UTF-8: a question mark stands for it.
    return text.encode("utf-8", "replace").decode("utf-8")


def write_page(comparison: Comparison, to: str | Path) -> Path:
    """Writes the self-contained page to `to`, and returns that; a path that ends in .md gets the tables as Markdown instead."""
    target = Path(to)
    write_text(target, markdown(comparison) if target.suffix.lower() == ".md" else page(comparison))
    return target


def how_judged(comparison: Comparison) -> str:
    """How differences were judged, in a few sentences."""
    seeds = len(comparison.seeds)
    told = next((c.forgetting for c in comparison.cells if c.forgetting), None)
    # The bootstrap knows rows alone; what training again would change is known from seeds.
    seeds_too = (
        "plus the variance over seeds"
        if seeds > 1
        else "with one seed, so what training again would change is not in them"
    )
    # The rows, the intervals and their correction: what each number in the tables rests on.
    sentences = [
        f"Differences from {comparison.reference} are on the same validation rows, {counted(seeds, 'seed')} each; "
        "positive is better, for errors too.",
        f"Confidence intervals (95%) come from a paired bootstrap over rows, {seeds_too}; p values are corrected "
        "(Holm): those over the tasks for their number, and those task by task for theirs.",
    ]
    judged = [*comparison.overall, *(s for each in comparison.by_task.values() for s in each)]
    if any(s.difference is not None and s.difference.is_cut for s in judged):
        sentences.append(
            "Confidence intervals end where scores cannot differ by more: with so few seeds they would go beyond."
        )
    if comparison.higher_is_better is None:
        sentences.append("Scores of these tasks have unlike directions or units, so nothing is tested over the tasks.")
    sentences += [
        f"The {len(task.validation)} validation rows of {task.name} are too few for any difference to be significant."
        for task in comparison.tasks
        if len(task.validation) < LEAST_ROWS
    ]
    if told is not None:
        sentences.append(forgetting_text(told))
    # A maximum over more looks is higher by luck alone: head, with 30 epochs by default, has six times those of others.
    sentences.append(
        "The best step of each run was chosen on these same rows, so scores flatter a little, and those of methods that are "
        "validated more often (with more epochs, say) flatter more."
    )
    return " ".join(sentences)


def forgetting_text(told: Mapping[str, Any]) -> str:
    """What the columns of what was forgotten say, in a few sentences, by what a cell says."""
    kept = (
        f"Neighbours kept: of the ten nearest of each of {told['n_texts']:,} texts ({told['texts_from']}) by the encoder's mean "
        f"vectors, how many still are with the trained weights; by chance {told['chance']:.1%}."
    )
    if not told["probe_task"]:
        return kept
    return f"{kept} Forgets: what a linear probe of another task ({told['probe_task']} here) on those vectors loses."


def kept(summary: Summary) -> str:
    """The share of nearest neighbours kept, in percent; nothing where it was not measured."""
    return "–" if summary.neighbours_kept is None else share(summary.neighbours_kept)


def forgets(summary: Summary) -> str:
    """What another task's probe lost, in the unit of its score; nothing where there was none."""
    return "–" if summary.forgets is None else signed(summary.forgets)


def difference_text(summary: Summary) -> str:
    """The difference from the reference with its confidence interval: -0.012 (-0.030 to +0.006)."""
    # The reference itself, or any method where the reference was refused.
    if summary.difference is None:
        return "–"
    low, high = summary.difference.interval()
    if not math.isfinite(low):
        return f"{signed(summary.difference.mean)} (too few rows)"
    mean, low, high = signed_alike(summary.difference.mean, low, high)
    return f"{mean} ({low} to {high})"


def _keeping_up(comparison: Comparison, found: list[Summary], reference: Summary | None) -> str:
    """One sentence: the smallest change that is not worse than the reference."""
    if reference is None:
        return f"The reference {comparison.reference} was refused, so nothing is compared to it."
    name = reference.method
    # With no other method, why that is so is all there is to say.
    if len(found) == 1:
        why = "the other methods were refused" if len(comparison.methods) > 1 else "there is no other method"
        return f"Nothing else was compared to {name}: {why}."
    if comparison.higher_is_better is None:
        return _worse_nowhere(comparison, found, reference)
    # Those that do not differ significantly from the reference, and the better ones: of these the smallest is named.
    level = [s for s in found if s.verdict in ("not significantly different", "better")]
    if not level:
        return f"No other method keeps up with {name}: every one is significantly worse."
    smallest = min(level, key=lambda s: s.elements)
    # All of them may be larger than the reference; a better one is still worth naming.
    if reference.elements <= smallest.elements:
        better = [s.method for s in level if s.verdict == "better"]
        but = f", but better than it: {', '.join(better)}" if better else ""
        return (
            f"{name} itself is the smallest of the changes that are not significantly worse: "
            f"{count(reference.elements)} parameters ({_share(comparison, reference)} of the encoder){but}."
        )
    verb = "is better than" if smallest.verdict == "better" else "is not significantly different from"
    return (
        f"{smallest.method} is the smallest change that {verb} {name} here: {count(smallest.elements)} parameters "
        f"({_share(comparison, smallest)} of the encoder), difference {difference_text(smallest)}."
    )


def _worse_nowhere(comparison: Comparison, found: list[Summary], reference: Summary) -> str:
    """One sentence: the smallest change that is not significantly worse on any task, where scores have no common mean."""
    worse = {s.method for of in comparison.by_task.values() for s in of if s.verdict == "worse"}
    level = [s for s in found if s.method not in worse and s is not reference]
    if not level:
        return f"Every other method is significantly worse than {reference.method} on some task."
    smallest = min([*level, reference], key=lambda s: s.elements)
    if smallest is reference:
        return f"{reference.method} itself is the smallest of the changes that are not significantly worse on any task."
    return (
        f"{smallest.method} is the smallest change that is not significantly worse than {reference.method} on any task: "
        f"{count(smallest.elements)} parameters ({_share(comparison, smallest)} of the encoder)."
    )


def doubts(comparison: Comparison) -> list[str]:
    """What a reader should know of the scores, a sentence for each method: constant predictions, and nothing learned."""
    said = []
    for method in comparison.methods:
        alike, worse = [], []
        for task in comparison.tasks:
            cells = [c for c in comparison.cells if (c.task, c.method) == (task.name, method) and not c.refused]
            # Rows that are all of one class cannot tell a constant from a model.
            varied = len({repr(label) for label in task.validation.labels}) > 1
            of = f" (in {{}} of {len(cells)} fits)" if len(cells) > 1 else ""
            if n := sum(varied and len({repr(each) for each in c.answers}) == 1 for c in cells):
                alike.append(task.name + of.format(n))
            elif n := sum(METRICS[c.metric].better(c.baseline.get(c.metric, math.nan), c.score) for c in cells):
                worse.append(task.name + of.format(n))
        if alike:
            said.append(
                f"{method} predicts the same for every row of {', '.join(alike)}: the score is that of a constant."
            )
        if worse:
            said.append(f"{method} scores worse than before training on {', '.join(worse)}.")
    return said + [each for task in comparison.tasks for each in _as_good(comparison, task)]


def _as_good(comparison: Comparison, task: Task) -> Iterator[str]:
    """A sentence for each baseline that no method scores better than."""
    metric = METRICS[task.metric]
    for each in comparison.baselines.get(task.name, []):
        methods = comparison.by_task[task.name]
        if methods and not any(metric.better(s.mean, each.mean) for s in methods):
            yield f"No method scores better than {each.method} on {task.name} ({score(each.mean)}), which takes seconds."


def _cheapest(comparison: Comparison, found: list[Summary]) -> str:
    """One sentence: the quickest method and the smallest delta."""
    # Of equals the better ranked, as `found` begins with the best.
    quickest = min(found, key=lambda s: s.seconds)
    smallest = min(found, key=lambda s: s.delta_bytes)
    # What its speed costs, unless it is also the best.
    worse = f", at {_scored(quickest)}" if quickest.rank > 1 else ""
    makes = "makes" if smallest is quickest else f"{smallest.method} makes"
    return (
        f"{quickest.method} is quickest ({duration(quickest.seconds)} a fit{worse}), and {makes} the smallest delta "
        f"({size(smallest.delta_bytes)})."
    )


def _table(comparison: Comparison, summaries: Sequence[Summary], baselines: Sequence[Summary]) -> list[str]:
    """The lines of a Markdown table, a method each, below the baselines."""
    against = _in_table(comparison.reference)
    measured = any(s.neighbours_kept is not None for s in summaries)
    more = " neighbours kept | forgets |" if measured else ""
    lines = [
        f"| method | parameters | score | rank | difference from {against} (95%) | p | seconds | delta |{more}",
        f"|---|---|---|---|---|---|---|---|{'---|---|' if measured else ''}",
    ]
    lines += [f"| {_in_table(s.method)} | – | {_scored(s)} | – | – | – | {s.seconds:.0f} | – |" for s in baselines]
    for s in summaries:
        p = p_value(s.p)
        cells = [
            _in_table(s.method),
            f"{s.elements:,}",
            _scored(s),
            str(s.rank),
            difference_text(s),
            p,
            f"{s.seconds:.0f}",
            size(s.delta_bytes),
            *([kept(s), forgets(s)] if measured else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plain(text: str) -> str:
    """`text` in Markdown, where names may hold what would be HTML or code."""
    return re.sub(r"([<`])", r"\\\1", text)


def _in_table(name: str) -> str:
    """A name for a cell of a Markdown table, which a bar would end."""
    return _plain(name).replace("|", "\\|")


def _where(comparison: Comparison) -> str:
    """The end of the first sentence of the conclusions: on which tasks, and by which score."""
    names = [task.name for task in comparison.tasks]
    if comparison.higher_is_better is None:
        return f"over {len(names)} tasks (of ranks, not of scores, which have unlike directions or units)"
    if len(names) == 1:
        return f"on {names[0]} ({metric_name(comparison.tasks[0])})"
    return f"on average over {len(names)} tasks" + ("" if comparison.higher_is_better else " (lower is better)")


def _scored(summary: Summary) -> str:
    """The mean score with its standard deviation over seeds, or the mean rank, in words."""
    if summary.mean_rank is not None:
        return f"mean rank {summary.mean_rank:.2f}"
    return score(summary.mean) + (
        "" if summary.standard_deviation is None else f" ± {score(summary.standard_deviation)}"
    )


def _share(comparison: Comparison, summary: Summary) -> str:
    """The share of the encoder that the method trains, in percent, as its first cell has it."""
    return share(next(cell.share for cell in comparison.cells if cell.method == summary.method and not cell.refused))
