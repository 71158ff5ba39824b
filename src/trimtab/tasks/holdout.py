"""Cutting rows away from the training split: a validation split where there is none, and fewer rows on request.

Both draw from named streams of the seed, so that the rows held out do not change with the rows a limit keeps.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..randomness import stream_seed
from .near_twins import joined, near_twins
from .task import Kind, Rows, Task

# A group of more rows, of so many and of this share of all, is of a template rather than of twins.
_LEAST_LARGE, _LARGE = 5, 0.05
_MOST_COMPARED = 100_000  # rows: it takes some ten seconds


def hold_out(train: Rows, kind: Kind, share: float, seed: int, *, twins: bool = False) -> tuple[Rows, Rows, str]:
    """The rows that stay for training, those held out for validation, both in their old order, and a note that says so.

    Single-label rows are held out class by class; the last row of a class always stays in training. With `twins`, rows
    that are nearly the same stay on one side: else the score is one of rows that were learned. Raises InputError when no row can
    be spared.
    """
    chance = np.random.default_rng(stream_seed(seed, "validation split"))
    # several labels a row, or a number, give no classes to balance: all rows are one stratum
    strata = _by_class(train.labels) if kind == "single_label" else [list(range(len(train)))]
    quotas = _quotas([len(rows) for rows in strata], share, chance)
    orders = [chance.permutation(rows) for rows in strata]
    groups, alike = _groups(train) if twins and any(quotas) else (np.arange(len(train)), "")
    held = _held(orders, quotas, groups)
    if not held and any(quotas):  # every group is larger than what is wanted
        held, alike = (
            _held(orders, quotas, np.arange(len(train))),
            "; near twins on both sides, since there are no others",
        )
    if not held and kind == "single_label" and len(train) > 1:
        raise InputError(
            f"each of the {len(train)} labels occurs once, so no row can be held out for validation. Is that column the "
            "label (--label), or a quantity (--kind regression)? If it is the label, add rows, or a validation file."
        )
    if not held:
        raise InputError(
            f"{len(train)} training rows are too few to hold some out for validation. Add rows, or a validation file."
        )
    how = "stratified, " if kind == "single_label" else ""
    note = f"no validation split: {len(held)} of {len(train)} training rows held out, {how}seed {seed}{alike}"
    stay = [i for i in range(len(train)) if i not in held]
    return train.take(stay), train.take(sorted(held)), note


def _groups(train: Rows) -> tuple[np.ndarray, str]:
    """The group of near twins of each row (N,), and what is said of them."""
    n = len(train)
    if n > _MOST_COMPARED:
        return np.arange(n), f"; of more than {_MOST_COMPARED:,} rows near twins are not looked for"
    groups = near_twins(joined(train)).groups
    sizes = np.bincount(groups, minlength=n)[groups]
    # Rows of one template chain up to a group that no part can be held out of.
    template = sizes > max(_LEAST_LARGE, n * _LARGE)
    n_twins, n_template = int(((sizes > 1) & ~template).sum()), int(template.sum())
    said = f"; near twins ({n_twins:,} rows) stay on one side" if n_twins else ""
    if n_template:
        said += f"; {n_template:,} rows are too much alike for that: the score is one of rows of their kind"
    return np.where(template, np.arange(n), groups), said


def _held(orders: Sequence[np.ndarray], quotas: Sequence[int], groups: np.ndarray) -> set[int]:
    """The first rows of each order, as many as its quota, and groups whole; a row of each order stays."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    stratum = {int(row): k for k, order in enumerate(orders) for row in order}
    may, wanted = [len(order) - 1 for order in orders], [*quotas]
    held: set[int] = set()
    for k, order in enumerate(orders):
        for row in map(int, order):
            if wanted[k] < 1:
                break
            group = members[int(groups[row])]
            of = Counter(stratum[each] for each in group)
            # One that is larger than what is wanted still is passed over; those behind it come in its place.
            if row in held or any(n > min(may[j], wanted[j]) for j, n in of.items()):
                continue
            held.update(group)
            for j, n in of.items():
                may[j] -= n
                wanted[j] -= n
    return held


def limited(task: Task, train_limit: int | None, seed: int) -> Task:
    """The task with only the first `train_limit` training rows of `draw_order`, or all if there are no more.

    Draws of one seed are nested: a larger limit keeps the rows of a smaller one and adds others.
    """
    if train_limit is None or train_limit >= len(task.train):
        return task
    if train_limit < 1:
        raise InputError(f"the training limit must be at least 1 row, not {train_limit} (--train-limit)")
    order = draw_order(task.train.labels, task.kind, seed)
    rows = task.train.take(order[:train_limit].tolist())
    how = "stratified, " if task.kind == "single_label" else ""
    note = f"training limited to {train_limit} of {len(task.train)} rows, {how}seed {seed}"
    return replace(task, splits={**task.splits, "train": rows}, notes=(*task.notes, note))


def draw_order(labels: Sequence[Any], kind: Kind, seed: int) -> np.ndarray:
    """The rows (N,) in a seeded order whose beginnings are stratified by class (of single-label tasks).

    One row of every class comes first, the largest class leading; behind them each beginning holds of every class its share, to
    within a row. Of one class alone the order is a uniform permutation.
    """
    chance = np.random.default_rng(stream_seed(seed, "train limit"))
    if kind != "single_label":
        return chance.permutation(len(labels))
    # A class without a label (None) is a class here: what to do with such rows is not decided by a draw.
    strata = [chance.permutation(rows) for rows in _by_class([-1 if label is None else label for label in labels])]
    strata.sort(key=len, reverse=True)  # stable: equal classes stay in class order
    rows = np.concatenate([np.empty(0, np.int64), *strata])
    # Row k of a class of n stands at (k + u) / n of the way, with one random u a class, so that classes do not move in step.
    places = [(np.arange(len(stratum)) + chance.random()) / len(stratum) for stratum in strata]
    for place in places:
        place[0] = -1.0
    return rows[np.argsort(np.concatenate([np.empty(0), *places]), kind="stable")]


def _by_class(labels: Sequence[int]) -> list[list[int]]:
    """The rows of each class, in class order, so that the draws do not depend on which class comes first."""
    rows = defaultdict(list)
    for i, label in enumerate(labels):
        rows[label].append(i)
    return [rows[label] for label in sorted(rows)]


def _quotas(counts: Sequence[int], share: float, chance: np.random.Generator) -> list[int]:
    """How many rows each stratum gives: its part rounded down, then one more for the largest remainders, until
    share * rows are reached; ties are drawn, and one row of each stratum stays."""
    exact = np.array(counts) * share
    quotas = np.minimum(np.floor(exact), np.array(counts) - 1).astype(int)
    # at least one row, and halves up: Python's round() would take 2.5 to 2
    missing = max(1, math.floor(sum(counts) * share + 0.5)) - int(quotas.sum())
    # a stable sort of strata in random order: equal remainders stay in that random order
    ties = chance.permutation(len(counts))
    by_remainder = ties[np.argsort((quotas - exact)[ties], kind="stable")]
    spare = [i for i in by_remainder if quotas[i] < counts[i] - 1]
    quotas[spare[:missing]] += 1
    return quotas.tolist()
