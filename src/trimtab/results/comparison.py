"""What the cells of a study come to: means, standard deviations and ranks, differences from a reference, and their p values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks.losses import label_tensor
from ..tasks.metrics import METRICS
from ..tasks.task import Task
from .cells import Cell
from .resampled_scores import of_probabilities, resampled_score
from .statistics import Difference, difference, holm, over_tasks

ALPHA = 0.05  # the chance of any false alarm among the comparisons over tasks, and among those task by task, at most


@dataclass(frozen=True)
class Summary:
    """One method on one task, over its seeds."""

    method: str
    mean: float  # of the main score
    standard_deviation: float | None  # of it, over seeds; None for one seed
    rank: int  # among the methods of the task, or of those that did all tasks; 1 is best
    elements: int  # of the backbone, trained
    seconds: float  # of a fit, mean over seeds
    delta_bytes: int
    difference: Difference | None = None  # from the reference method, positive is better; None for itself
    p: float | None = None  # of the difference, corrected for all comparisons over the tasks, or task by task
    mean_rank: float | None = None  # over tasks whose scores have unlike directions or units, where `mean` says nothing
    neighbours_kept: float | None = None  # mean share of nearest neighbours kept; None where it was not measured
    forgets: float | None = None  # what another task's probe lost, mean, in the unit of its metric; None likewise
    loss: float = 0.0  # the mean loss, which decides between equals; 0 over tasks whose losses have units of their own

    @property
    def verdict(self) -> str:
        """better, worse or not significantly different (from the reference); "" for the reference itself."""
        if self.difference is None or self.p is None:
            return ""
        return "not significantly different" if self.p >= ALPHA else "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all cells of a study say: read `by_task` and `overall`, or have `pages.comparison_page` say it."""

    encoder: str
    tasks: list[Task]
    methods: list[str]
    seeds: list[int]
    reference: str  # the method the others are compared to
    cells: list[Cell]
    by_task: Mapping[str, list[Summary]]  # in the order of the methods; refused ones are left out
    overall: list[Summary]  # means over tasks, of the methods that did all of them; `rank` is by mean, or by mean rank
    notes: tuple[str, ...] = ()  # sentences: what there is to know of where the cells come from
    # task, or "" for the means over several -> those of baselines, which have no rank and are not tested
    baselines: Mapping[str, list[Summary]] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, str]:
        """method -> why, of those left out of some task: refused there, if only with one seed, or without a cell of some seed."""
        whys = {method: self._why_left_out(method) for method in self.methods}
        return {method: why for method, why in whys.items() if why}

    @property
    def higher_is_better(self) -> bool | None:
        """The direction of the main scores; None where several tasks have scores of both, or errors in units of their own."""
        return _direction(self.tasks)

    @property
    def best_first(self) -> list[Summary]:
        """`overall` by rank; of equals the one with the lowest loss, and of those the one that trains fewest elements."""
        return sorted(self.overall, key=lambda summary: (summary.rank, summary.loss, summary.elements))

    def front(self, cost: str) -> list[str]:
        """The methods that no other outranks at the same or a lower `cost` (elements, seconds, delta_bytes)."""
        found, best = [], np.inf
        # Equal scores have equal ranks, of which the cheapest is enough.
        for summary in sorted(self.overall, key=lambda s: (getattr(s, cost), s.rank)):
            if summary.rank < best:
                found.append(summary.method)
                best = summary.rank
        return found

    def as_json(self) -> dict[str, Any]:
        """Cells and summaries, for other programs."""
        return {
            "encoder": self.encoder, "reference": self.reference, "seeds": self.seeds,
            "higher_is_better": self.higher_is_better,
            "cells": [cell.as_json() for cell in self.cells],
            "by_task": {task: [_summary_json(s) for s in found] for task, found in self.by_task.items()},
            "overall": [_summary_json(s) for s in self.overall],
            "baselines": {task: [_summary_json(s) for s in found] for task, found in self.baselines.items() if task},
            "refused": self.refused, "notes": list(self.notes),
        }  # fmt: skip

    def _why_left_out(self, method: str) -> str | None:
        """Why the method is not counted somewhere, with the first place where it is not; None where it is counted everywhere."""
        found = {(c.task, c.method, c.seed): c.refused for c in self.cells}
        for task in self.tasks:
            whys = {seed: found.get((task.name, method, seed), "there is no such cell") for seed in self.seeds}
            refusals = {seed: why for seed, why in whys.items() if why}
            if refusals:
                seed, why = next(iter(refusals.items()))
                # A method that refuses everything on a lone task needs no place.
                if len(refusals) == len(self.seeds):
                    return why if len(self.tasks) == 1 else f"on {task.name}: {why}"
                return f"on {task.name} with seed {seed}: {why}"
        return None


def scored_by(task: Task, cell: Cell) -> Cell:
    """The cell with the task's main metric as its own, whichever its fit was given; its score is computed where it has none.

    Raises ValueError where that takes probabilities and the cell has none.
    """
    if cell.refused or task.metric in cell.scores:
        return cell if cell.metric == task.metric else replace(cell, metric=task.metric)
    labels = label_tensor(task, task.validation).numpy()
    score = float(
        resampled_score(
            task.metric, labels, _said(task, cell), np.ones((1, len(labels))), len(task.classes), _positive(task)
        )[0]
    )
    return replace(cell, metric=task.metric, scores=dict(cell.scores) | {task.metric: score})


def lacks_probabilities(task: Task, cell: Cell) -> bool:
    """Whether the cell cannot be compared by the task's metric: one of before probabilities were kept."""
    return not cell.refused and cell.outputs is None and of_probabilities(task.metric, task.kind)


def _said(task: Task, cell: Cell) -> NDArray:
    """What the cell says of the validation rows, as `resampled_score` takes it for the task's metric."""
    if not of_probabilities(task.metric, task.kind):
        return np.asarray(cell.answers)
    if (logits := cell.logits) is None:
        raise ValueError(f"a cell of {cell.method} on {cell.task} has no probabilities, of which {task.metric} is")
    return logits


def _positive(task: Task) -> int:
    return 1 if task.positive_index is None else task.positive_index


def summarised(
    encoder: str, tasks: list[Task], methods: list[str], seeds: list[int], reference: str, cells: list[Cell]
) -> Comparison:
    """The Comparison of finished cells; a method counts on a task where it has a cell of every seed and none was refused."""
    # What counts: found has, for each task, the methods with a cell of every seed.
    done = {(c.task, c.method, c.seed): c for c in cells if c.refused is None}
    found = {task.name: [m for m in methods if all((task.name, m, s) in done for s in seeds)] for task in tasks}
    differences: dict[tuple[str, str], Difference] = {}
    for task in tasks:
        # Predictions for the same rows with the same seeds are paired, which takes most of the variance out of a difference.
        labels = label_tensor(task, task.validation).numpy()
        mine = {m: [_said(task, done[task.name, m, seed]) for seed in seeds] for m in found[task.name]}
        for method in found[task.name]:
            if method != reference and reference in mine:
                differences[task.name, method] = difference(
                    task.metric, labels, mine[method], mine[reference], len(task.classes), positive=_positive(task)
                )
    # A mean over tasks is only for methods that did all of them.
    everywhere = [m for m in methods if all(m in found[task.name] for task in tasks)]
    # The mean of an accuracy and an error, or of errors in euros and in metres, is none.
    alike = len(tasks) > 1 and _direction(tasks) is not None
    for method in everywhere:
        if alike and method != reference and reference in everywhere:
            # The empty name stands for all tasks together.
            differences["", method] = over_tasks([differences[task.name, method] for task in tasks])
    # Two questions, each with an error rate of its own: which methods differ over the tasks, and where they do.
    corrected = {}
    for over_all in (True, False):
        family = {key: d.p for key, d in differences.items() if (key[0] == "") == over_all}
        corrected |= zip(family, holm(list(family.values())), strict=True)

    # Only now the summaries, which carry the corrected p values.
    by_task = {}
    for task in tasks:
        of = {m: [done[task.name, m, seed] for seed in seeds] for m in found[task.name]}
        by_task[task.name] = _judged([_over_seeds(m, of[m]) for m in of], [task], task.name, differences, corrected)
    # Ranks among the methods that did all tasks: one that was refused elsewhere has no say in who is best.
    ranks = {
        task: _ranks([s for s in each if s.method in everywhere], tasks[i : i + 1])
        for i, (task, each) in enumerate(by_task.items())
    }
    overall = [
        _over_tasks(
            m, [s for each in by_task.values() for s in each if s.method == m], tasks, [of[m] for of in ranks.values()]
        )
        for m in everywhere
    ]
    key = "" if len(tasks) > 1 else tasks[0].name
    return Comparison(
        encoder, tasks, methods, seeds, reference, cells, by_task,
        _judged(overall, tasks, key, differences, corrected),
    )  # fmt: skip


def baselines_of(tasks: list[Task], cells: Iterable[Cell]) -> dict[str, list[Summary]]:
    """The Summaries of the cells of baselines, those of a refused one left out, by task; over several tasks under ""."""
    found: dict[str, dict[str, list[Cell]]] = {task.name: {} for task in tasks}
    for cell in cells:
        if not cell.refused:
            found[cell.task].setdefault(cell.method, []).append(cell)
    by_task = {task: [_over_seeds(name, own) for name, own in of.items()] for task, of in found.items()}
    # Ranks are among methods, so that there is no mean of them.
    if len(tasks) > 1 and _direction(tasks) is not None:
        of_all = {name: [s for of in by_task.values() for s in of if s.method == name] for name in found[tasks[0].name]}
        by_task[""] = [_over_tasks(name, of, tasks, []) for name, of in of_all.items() if len(of) == len(tasks)]
    return by_task


def _over_seeds(method: str, cells: list[Cell]) -> Summary:
    """Mean and sample standard deviation (over n - 1); rank and difference are filled in by `_judged`."""
    scores = [cell.score for cell in cells]
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    seconds = _mean(cell.seconds for cell in cells)
    loss = _mean(cell.scores.get("loss", 0.0) for cell in cells)
    kept, lost = ([figure(cell.forgetting) for cell in cells if cell.forgetting] for figure in (_kept, _lost))
    return Summary(
        method, _mean(scores), deviation, 0, cells[0].elements["body"], seconds, cells[0].delta_bytes, loss=loss,
        neighbours_kept=_mean_of_all(kept, len(cells)), forgets=_mean_of_all(lost, len(cells)),
    )  # fmt: skip


def _kept(forgetting: Mapping[str, Any]) -> float | None:
    return forgetting["neighbours_kept"]


def _lost(forgetting: Mapping[str, Any]) -> float | None:
    return forgetting["probe"] and forgetting["probe"]["lost"]


def _mean_of_all(values: Iterable[float | None], count: int) -> float | None:
    """The mean of `count` values; None where some were not measured."""
    there = [value for value in values if value is not None]
    return _mean(there) if there and len(there) == count else None


def _mean(values: Iterable[float]) -> float:
    """Rounded once, so that the same values in another order have the same mean: equal scores share a rank."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _over_tasks(method: str, summaries: list[Summary], tasks: list[Task], ranks: list[int]) -> Summary:
    """Means over tasks; the standard deviation is of the mean over seeds, tasks being independent. `ranks` are those on each."""
    n = len(summaries)
    deviations = [s.standard_deviation for s in summaries if s.standard_deviation is not None]
    deviation = float(np.sqrt(np.square(deviations).sum()) / n) if deviations else None
    mean, seconds = (_mean(getattr(s, name) for s in summaries) for name in ("mean", "seconds"))
    elements, size = (round(np.mean([getattr(s, name) for s in summaries])) for name in ("elements", "delta_bytes"))
    # The mean of an accuracy and an error is neither: each task has a vote by its ranks instead.
    mean_rank = _mean(ranks) if _direction(tasks) is None else None
    # That of a regression is in the unit of its labels.
    alike = len(tasks) == 1 or all(task.kind != "regression" for task in tasks)
    loss = _mean(s.loss for s in summaries) if alike else 0.0
    kept, lost = (_mean_of_all((getattr(s, name) for s in summaries), n) for name in ("neighbours_kept", "forgets"))
    return Summary(
        method, mean, deviation, 0, elements, seconds, size, mean_rank=mean_rank, loss=loss, neighbours_kept=kept, forgets=lost
    )  # fmt: skip


def _judged(
    summaries: list[Summary], tasks: list[Task], key: str, differences: Mapping[tuple[str, str], Difference],
    corrected: Mapping[tuple[str, str], float],
) -> list[Summary]:  # fmt: skip
    """The summaries with their ranks and their differences from the reference.

    `key` is the task's name in `differences` and `corrected`, or "" over several. Equal scores share the better rank.
    """
    ranks = _ranks(summaries, tasks)
    return [
        replace(s, rank=ranks[s.method], difference=differences.get((key, s.method)), p=corrected.get((key, s.method)))
        for s in summaries
    ]


def _ranks(summaries: list[Summary], tasks: list[Task]) -> dict[str, int]:
    """Method -> rank, 1 for the best."""
    higher = _direction(tasks)
    # What orders them, lowest first.
    keys = [s.mean_rank if s.mean_rank is not None else -s.mean if higher else s.mean for s in summaries]
    order = sorted(keys)
    return {s.method: 1 + order.index(k) for s, k in zip(summaries, keys, strict=True)}


def _direction(tasks: list[Task]) -> bool | None:
    """Whether higher main scores are better; None where several tasks differ in that, or have errors in their own units."""
    found = [METRICS[task.metric] for task in tasks]
    # An error has no upper end, and so a unit: that of the labels.
    if len(tasks) > 1 and any(metric.high is None for metric in found):
        return None
    return found[0].higher_is_better if len({metric.higher_is_better for metric in found}) == 1 else None


def _summary_json(summary: Summary) -> dict[str, Any]:
    """The summary with the bounds of its difference, which only the object can compute."""
    found = {name: getattr(summary, name) for name in ("method", "mean", "rank", "elements", "seconds", "delta_bytes")}
    if summary.neighbours_kept is not None:
        found |= {"neighbours_kept": summary.neighbours_kept, "forgets": summary.forgets}
    found["spread"] = summary.standard_deviation  # a key that other programs read
    if summary.mean_rank is not None:
        found |= {"mean": None, "spread": None, "mean_rank": summary.mean_rank}
    if summary.difference is not None:
        low, high = summary.difference.interval()
        found |= {
            "difference": summary.difference.mean,
            "interval": [low, high] if math.isfinite(low) else None,  # where there are too few rows
            "p": summary.p,
            "verdict": summary.verdict,
        }
    return found
