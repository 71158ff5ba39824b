"""Task: what an encoder learns. Rows of text with labels, and how they are judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from .decision_rule import USUAL, DecisionRule
from .reading import AS_WRITTEN, HELD_OUT, Origin, Reading

# One class a row, any number of classes a row, or a number.
Kind = Literal["single_label", "multi_label", "regression"]
KINDS: tuple[str, ...] = get_args(Kind)
SPLITS = ("train", "validation", "test")  # in the order in which a Task keeps them

Label = int | float | list[int] | None
"""A class index (single_label), a number (regression), sorted class indices (multi_label), None where unlabelled."""


@dataclass(frozen=True)
class Rows:
    """Rows of one split, kept by column: `texts` holds one list of texts, or two of equal length for pairs."""

    texts: tuple[list[str], ...]
    labels: list[Any]  # of Label, one per row
    # Of the rows in their source, counted from 1, and what is counted there: a "row", or a "line" of a text file.
    numbers: list[int] | None = field(default=None, repr=False, compare=False)
    unit: str = field(default="row", compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row `i` as {"text", "label"} or {"text_a", "text_b", "label"}."""
        # Not the names of the source's columns: rows of all tasks look alike.
        names = ("text",) if len(self.texts) == 1 else ("text_a", "text_b")
        return {name: column[i] for name, column in zip(names, self.texts, strict=True)} | {"label": self.labels[i]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int]) -> Rows:
        """The rows at `indices`, in that order."""
        numbers = None if self.numbers is None else [self.numbers[i] for i in indices]
        texts = tuple([column[i] for i in indices] for column in self.texts)
        return Rows(texts, [self.labels[i] for i in indices], numbers, self.unit)

    def sha256(self) -> str:
        """Of all texts and labels in their order, in hexadecimal: equal for equal rows and nothing else."""
        # As JSON, so that where one text ends and the next begins is hashed too.
        return hashlib.sha256(json.dumps([*self.texts, self.labels]).encode()).hexdigest()


_PLAIN = (  # fields of a Task that are JSON values as they are
    "name", "kind", "label_column", "metric", "source", "validation_share", "split_seed",
)  # fmt: skip


def positive_class(kind: str, classes: Sequence[str], named: str | None) -> str | None:
    """The class `named`, or the second of two classes, as GLUE has it; None where a row has several classes, or none."""
    return (named or classes[1]) if kind == "single_label" and len(classes) == 2 else None


EMPTY = Rows(([],), [])  # stands for a split that is not there


@dataclass(frozen=True)
class Task:
    """Text columns, a label, its kind and class names, the main metric, and the rows of each split."""

    name: str
    kind: Kind
    classes: tuple[str, ...]  # class names in index order; empty for regression
    text_columns: tuple[str, ...]  # one name, or two for pairs, as in the source
    label_column: str
    metric: str  # name of the main metric
    splits: Mapping[str, Rows] = field(default_factory=dict, repr=False)
    source: str = ""  # what `read` was given, so that a recipe can read it again
    reading: Reading = AS_WRITTEN  # how the rows were read; reading again must do the same
    validation_share: float = HELD_OUT  # of the training rows held out where there is no validation split, and
    split_seed: int = 0  # the seed they were drawn with; reading again must do the same
    decision_rule: DecisionRule = USUAL  # which classes a multi_label row is given
    notes: tuple[str, ...] = ()  # what the reader did to the rows, in plain words

    @property
    def origin(self) -> Origin:
        """What `read_again` makes the same task of."""
        return Origin(
            **vars(self.reading), task=self.source, text=self.text_columns, label=self.label_column, kind=self.kind,
            metric=self.metric, validation_share=self.validation_share, split_seed=self.split_seed,
        )  # fmt: skip

    @property
    def positive(self) -> str | None:
        """The class whose precision, recall and F1 are told, where there are two; None where they are means over classes."""
        return positive_class(self.kind, self.classes, self.reading.positive)

    @property
    def positive_index(self) -> int | None:
        """The number of that class, 0 or 1."""
        return None if self.positive is None else self.classes.index(self.positive)

    @property
    def n_outputs(self) -> int:
        """How many numbers the head puts out: one per class, or one for regression."""
        return max(1, len(self.classes))

    @property
    def centre(self) -> float:
        """The mean label of the training rows of a regression, which its head starts from; 0 for other kinds."""
        return self._centre_and_deviation[0]

    @property
    def standard_deviation(self) -> float:
        """The standard deviation of those labels, the unit of the head's steps; 1 for other kinds, and where it is 0."""
        return self._centre_and_deviation[1]

    @cached_property
    def _centre_and_deviation(self) -> tuple[float, float]:
        """Once, because a column of labels may be long and is asked for with every model."""
        if self.kind != "regression":
            return 0.0, 1.0
        labels = np.array([label for label in self.train.labels if label is not None], dtype=np.float64)
        if not len(labels):
            return 0.0, 1.0
        # Equal labels are asked for by themselves: rounding gives them a deviation that is not quite 0.
        return float(labels.mean()), float(labels.std()) if np.ptp(labels) else 1.0

    @cached_property
    def rows_sha256(self) -> tuple[str, str]:
        """The hashes of the rows of train and validation, once: every cell of a study asks for them."""
        return self.train.sha256(), self.validation.sha256()

    @property
    def train(self) -> Rows:
        """The rows to learn from; none where there is no such split."""
        return self.splits.get("train", EMPTY)

    @property
    def validation(self) -> Rows:
        """The rows by which the best step is chosen; none where there is no such split."""
        return self.splits.get("validation", EMPTY)

    @property
    def test(self) -> Rows:
        """The rows that neither training nor its best step rests on; none where there is no such split."""
        return self.splits.get("test", EMPTY)

    def judged_by(self, metric: str) -> Task:
        """The same task with another main metric."""
        return self if metric == self.metric else replace(self, metric=metric)

    def description(self) -> dict[str, Any]:
        """All but the rows, as JSON values: what a delta carries."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": list(self.classes),
            "text_columns": list(self.text_columns),
            "label_column": self.label_column,
            "metric": self.metric,
            "source": self.source,
            **self.reading.as_json(),
            "positive": self.positive,  # said also where it was not chosen
            **self.decision_rule.as_json(self.kind),
            "validation_share": self.validation_share,
            "split_seed": self.split_seed,
            "validation_sha256": self.validation.sha256(),  # tells later whether the data has changed
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Task:
        """The task without rows that `description()` described; raises InputError when a field is missing or odd."""
        try:
            values = {name: description[name] for name in _PLAIN}
            classes, text_columns = description["classes"], description["text_columns"]
        except KeyError as error:
            raise InputError(
                f"the task description lacks {error}; the file is damaged or from another program"
            ) from None
        if values["kind"] not in KINDS:
            raise InputError(f"unknown task kind {values['kind']!r}; known kinds: {', '.join(KINDS)}")
        reading = Reading.from_json(description)
        return cls(
            **values, classes=tuple(classes), text_columns=tuple(text_columns), reading=reading,
            decision_rule=DecisionRule.from_json(description),
        )  # fmt: skip
