"""Texts and a task that a fit has not seen, by which what it forgot is measured; read before torch is imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, counted
from ..randomness import stream_seed
from ..tasks.holdout import draw_order
from ..tasks.read import read, read_rows, task_of
from ..tasks.task import Rows, Task
from ..tasks.text_files import read_lines
from ..training.chosen_rows import train_rows_of

MOST_TEXTS, LEAST_TEXTS, USUAL_TEXTS = 1000, 50, 800
PER_CLASS, MOST_JUDGED = 64, 1000  # rows that a probe is fitted on, and rows it is judged by
_UNLABELLED_CLASSES = 4  # as many times PER_CLASS rows where a row has no one class


@dataclass(frozen=True, eq=False)
class OtherTexts:
    """What a fit has not seen."""

    texts: tuple[str, ...] = field(repr=False)  # all different
    source: str  # where they are from
    probe: Task | None = field(
        default=None, repr=False
    )  # its training rows are those of the probe, and it is judged by validation
    notes: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Of all that a figure depends on, in hexadecimal."""
        probe = None if self.probe is None else (self.probe.name, self.probe.metric, *self.probe.rows_sha256)
        return hashlib.sha256(json.dumps([self.texts, probe]).encode()).hexdigest()


def other_texts(
    described: Mapping[str, Any], folder: Path | None, texts: Any = None, probe: Any = None, columns: str | None = None
) -> OtherTexts:  # fmt: skip
    """Texts and a probe's rows for a run of the task `described`, which lies in `folder` if it lies in one.

    `texts`: a list of texts, a Task, a file (.txt: a text a line; else `columns` names them where they are named otherwise) or
    what else `read` takes; `probe`: a Task or what `read` takes. Without either, those of the embedded helpdesk task, unless the
    run is of that; without `texts`, those of the probe. Texts that the run was trained on are left out where its rows are at
    hand. Raises InputError where there is nothing, too little, or what cannot be read.
    """
    was_helpdesk, notes = described.get("source") == "helpdesk", []
    task = None if probe is None else task_of(probe)
    if task is not None and task.validation.sha256() == described["validation_sha256"]:
        raise InputError(f"the probe {task.name!r} is the task that the run was trained on: name another one (--probe)")
    if task is None and not was_helpdesk:
        task = read("helpdesk")
        notes.append("the probe is the embedded helpdesk task, whose labels are synthetic: name one of yours (--probe)")
    if texts is not None:
        found, source = _texts_of(texts, columns)
    elif task is not None:
        found, source = list(_all_texts(task)), task.name
    else:
        raise InputError(
            "this run was trained on the embedded helpdesk task, and there are no other texts here: name a file of texts "
            "(--texts) or another task (--probe)"
        )
    return _without_seen(
        found, source, None if task is None else probe_rows(task), train_rows_of(described, folder), notes
    )


def texts_beside(texts: Any, task: Task, others: Sequence[Task] = ()) -> OtherTexts:
    """The same for a task that is going to be trained on; the probe is the first of the `others`, else helpdesk."""
    found, source = _texts_of(texts)
    probe = next((other for other in others if other is not task), None)
    if probe is None and task.source != "helpdesk":
        probe = read("helpdesk")
    return _without_seen(found, source, None if probe is None else probe_rows(probe), task.train, [])


def probe_rows(task: Task) -> Task:
    """The task with PER_CLASS training rows of each class, and at most MOST_JUDGED validation rows; labelled ones only.

    Both are the same whenever they are drawn. Raises InputError where there are none.
    """
    train = _labelled(task.train)
    judged = _labelled(task.validation) if len(_labelled(task.validation)) else _labelled(task.test)
    if not len(train) or not len(judged):
        raise InputError(f"task {task.name!r} has no labelled rows to fit a probe on, or none to judge it by")
    order = draw_order(train.labels, task.kind, 0)
    if task.kind == "single_label":
        of = np.array(train.labels)[order]
        # Of each class the first in the order.
        order = np.sort(np.concatenate([order[of == c][:PER_CLASS] for c in range(len(task.classes))]))
    else:
        order = order[: PER_CLASS * _UNLABELLED_CLASSES]
    few = draw_order(judged.labels, task.kind, 0)[:MOST_JUDGED]
    splits = {"train": train.take(order.tolist()), "validation": judged.take(few.tolist())}
    return Task(
        task.name, task.kind, task.classes, task.text_columns, task.label_column, task.metric, splits,
        reading=task.reading, decision_rule=task.decision_rule,
    )  # fmt: skip


def _without_seen(
    texts: Sequence[str], source: str, probe: Task | None, trained_on: Rows, notes: list[str]
) -> OtherTexts:
    """At most MOST_TEXTS different ones of the texts, none of which is in `trained_on`."""
    seen = set(_flat(trained_on))
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    unseen = [text for text in different if text not in seen]
    if len(unseen) < len(different):
        notes.append(
            f"{counted(len(different) - len(unseen), 'text')} of {source} left out: the run was trained on them"
        )
    if len(unseen) < LEAST_TEXTS:
        raise InputError(
            f"{counted(len(unseen), 'text')} of {source} that the run was not trained on: neighbours among fewer than "
            f"{LEAST_TEXTS} say nothing; give {USUAL_TEXTS} or more (--texts)"
        )
    if len(unseen) < USUAL_TEXTS:
        notes.append(
            f"{len(unseen)} texts are few: with {USUAL_TEXTS} and more the figures are surer, and chance is less"
        )
    chosen = np.random.default_rng(stream_seed(0, "other texts")).permutation(len(unseen))[:MOST_TEXTS]
    return OtherTexts(tuple(unseen[i] for i in sorted(chosen)), source, probe, tuple(notes))


def _texts_of(given: Any, columns: str | None = None) -> tuple[list[str], str]:
    """Texts, those of pairs one by one, and what they are called."""
    if isinstance(given, str | Path):
        path = Path(given)
        if path.is_file() and path.name.lower().removesuffix(".gz").endswith(".txt"):
            return [line.rstrip("\r\n") for _, line in read_lines(path)], path.name
        if path.is_file():
            rows = read_rows(path, columns, option="--columns")
            return [text for _, texts, odd in rows.rows if odd is None for text in texts], path.name
        given = read(str(given))
    if isinstance(given, Task):
        return list(_all_texts(given)), given.name
    texts = list(given)
    if not all(isinstance(text, str) for text in texts):
        raise InputError("texts are a list of strings, a file, or a task")
    return texts, "the texts given"


def _all_texts(task: Task) -> Iterator[str]:
    for rows in task.splits.values():
        yield from _flat(rows)


def _flat(rows: Rows) -> Iterator[str]:
    for column in rows.texts:
        yield from column


def _labelled(rows: Rows) -> Rows:
    return rows.take([i for i, label in enumerate(rows.labels) if label is not None])
