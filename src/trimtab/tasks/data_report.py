"""What is in a task, counted before training: rows per split and class, and texts that occur more than once.

A validation text that is also in train makes the score too high; texts with two labels bound it from above. Both are
cheap to find before training and hard to guess after it. Texts are compared exactly, case and spaces included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import counted
from .label_parsing import in_quotes, plainly
from .metrics import named
from .task import Rows, Task

FEW = 30  # validation rows: with so many an accuracy is known to about a tenth

Texts = tuple[str, ...]
"""The text of a row, or its pair of texts."""


@dataclass(frozen=True)
class SplitCount:
    """Rows of one split: how many, how many of each class, and the range of the numbers in a regression task."""

    rows: int  # with a label or without
    labelled: int  # of those, with a label
    classes: Mapping[str, int]  # class name -> rows that have it; empty for regression
    lowest: float | None = None  # this and the next two: only in a regression with labels
    mean: float | None = None
    highest: float | None = None


@dataclass(frozen=True)
class Survey:
    """Counts of a task's rows; `repeated` holds exact duplicates, all texts of a row being the same."""

    task: str
    kind: str
    metric: str  # name of the main metric
    splits: Mapping[str, SplitCount]  # by name
    repeated: Mapping[str, int]  # "train": rows seen before in train; "validation", "test": rows that are in train too
    contradictory: int  # texts that occur in train with different labels
    notes: tuple[str, ...] = ()  # those of the task, from its reader
    positive: str | None = None  # the class that precision, recall and F1 are of, where there are two

    def lines(self) -> list[str]:
        """The survey in plain words, one finding a line."""
        lines = [f"{self.task}: {self.kind.replace('_', ' ')}, judged by {named(self.metric, self.positive)}"]
        lines += [f"{split}: {_count_in_words(count)}" for split, count in self.splits.items()]
        lines += self._warnings()
        return lines + list(self.notes)

    def as_json(self) -> dict[str, Any]:
        """The survey as JSON values."""
        return asdict(self) | {"notes": list(self.notes)}

    def _warnings(self) -> list[str]:
        """What the rows give reason to look at; nothing where they give none."""
        found = {
            "train: rows that repeat the text of an earlier row": self.repeated.get("train", 0),
            "train: texts that occur with different labels": self.contradictory,
            "validation: rows whose text is also in train": self.repeated.get("validation", 0),
            "test: rows whose text is also in train": self.repeated.get("test", 0),
        }
        lines = [f"{finding}: {n}" for finding, n in found.items() if n]
        # Classes without rows: a split whose labels are missing has nothing to say of them.
        consequences = {"train": "cannot be learned", "validation": "cannot be judged"}
        for split, consequence in consequences.items():
            count = self.splits.get(split)
            absent = [name for name, n in count.classes.items() if n == 0] if count and count.labelled else []
            if absent:
                lines.append(f"{split}: no row of {in_quotes(absent)}: what has none {consequence}")
        judged = self.splits.get("validation")
        if judged and 0 < judged.rows < FEW:
            lines.append(
                f"validation: {counted(judged.rows, 'row')} {'is' if judged.rows == 1 else 'are'} few to judge by; scores are "
                "rough"
            )
        return lines


def survey(task: Task) -> Survey:
    """The counts of the task's splits, and the rows that repeat a text within train or from train in another split."""
    train = Counter(_texts(task.train))
    # Rows less different texts: all but the first row of each text.
    repeated = {"train": len(task.train) - len(train)}
    repeated |= {name: rows_in(rows, task.train) for name, rows in task.splits.items() if name != "train"}
    # A text keeps the label of its first row, which a later row may contradict; each text counts once.
    labels: dict[Texts, Any] = {}
    contradictory = {
        text
        for text, label in zip(_texts(task.train), task.train.labels, strict=True)
        if train[text] > 1 and labels.setdefault(text, label) != label
    }
    splits = {name: _count(rows, task) for name, rows in task.splits.items()}
    return Survey(task.name, task.kind, task.metric, splits, repeated, len(contradictory), task.notes, task.positive)


def rows_in(rows: Rows, others: Rows) -> int:
    """How many of `rows` have the text (or the pair of texts) of one of the `others`."""
    known = set(_texts(others))
    return sum(text in known for text in _texts(rows))


def _texts(rows: Rows) -> list[Texts]:
    """The text or pair of texts of each row, as a key to compare by."""
    return list(zip(*rows.texts, strict=True))


def _count(rows: Rows, task: Task) -> SplitCount:
    """The counts of one split; a multi_label row counts once for each of its classes."""
    # Unlabelled rows count as rows and in nothing else.
    labels = [label for label in rows.labels if label is not None]
    if task.kind == "regression":
        span = (min(labels), sum(labels) / len(labels), max(labels)) if labels else (None, None, None)
        return SplitCount(len(rows), len(labels), {}, *span)
    # Class index -> rows; a class that does not occur is listed with 0.
    each = Counter(i for label in labels for i in (label if isinstance(label, list) else [label]))
    return SplitCount(len(rows), len(labels), {name: each[i] for i, name in enumerate(task.classes)})


def _count_in_words(count: SplitCount, limit: int = 12) -> str:
    """ "120 rows: billing 70, login 50"; of many classes, only the largest and the smallest."""
    rows = counted(count.rows, "row")
    if count.rows and not count.labelled:
        return f"{rows}, without labels"
    if count.mean is not None:
        return f"{rows}: labels from {count.lowest:.10g} to {count.highest:.10g}, mean {count.mean:.6g}"
    if not count.labelled:
        return rows
    if len(count.classes) <= limit:
        return f"{rows}: {', '.join(f'{plainly(name)} {n}' for name, n in count.classes.items())}"
    # In falling order of rows, so the first and the last are the extremes.
    (most, n_most), *_, (least, n_least) = Counter(count.classes).most_common()
    return f"{rows}, {len(count.classes)} classes: from {plainly(most)} {n_most} to {plainly(least)} {n_least}"
