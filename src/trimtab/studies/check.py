"""Whether the data is sound, before anything is trained: near twins, likely label errors, shortcuts, classes too small."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, counted, shortened
from ..files import write_text
from ..pages.check_page import ShownRow, page
from ..results.formatting import share
from ..results.recipe import Settings, settings_from
from ..tasks.corrections import COLUMNS
from ..tasks.data_report import Survey, survey
from ..tasks.label_suspects import Suspect, label_suspects, label_suspects_of_many, number_suspects
from ..tasks.near_twins import joined, near_twins
from ..tasks.read import task_of
from ..tasks.shortcuts import Shortcut, shortcuts
from ..tasks.task import SPLITS, Rows, Task

if TYPE_CHECKING:  # without an encoder nothing needs torch
    from ..encoders.encoder import Encoder

LEARNABLE, JUDGEABLE = 8, 5  # rows of a class, to learn it from and to judge it by
VERY_NEAR = 0.9
_FOLDS = 5


@dataclass(frozen=True)
class Twin:
    """Two rows that are nearly the same."""

    first: tuple[str, int]  # the split and the place in it, from 0
    second: tuple[str, int]
    similarity: float  # the cosine of their sets of shingles


@dataclass(frozen=True, eq=False)
class Check:
    """What `check` found."""

    task: Task = field(repr=False)
    survey: Survey
    disagreeing: tuple[Twin, ...]  # near twins with different labels, the most alike first
    twins_in_train: int  # training rows that have a near twin in train
    across: dict[
        str, tuple[int, int]
    ]  # other split -> rows with a near twin in train, and with one of at least VERY_NEAR
    small: tuple[str, ...]  # sentences: classes that can hardly be learned, or judged
    majority: tuple[str, float] | None  # the largest class of the training rows, and its share of the judged ones
    shortcuts: tuple[Shortcut, ...]
    suspects: tuple[Suspect, ...] | None = None  # training rows whose label is likely wrong; None without an encoder
    probe_accuracy: float | None = None  # of the probabilities that they rest on, by the labels as they are
    unknown: tuple[str, ...] = ()  # what is said of tokens that the encoder does not know

    def lines(self) -> list[str]:
        """In plain words, a finding a line."""
        lines = self.survey.lines() + list(self.small)
        if self.majority is not None:
            lines.append(f"always saying {self.majority[0]!r} is right of {share(self.majority[1])}")
        if self.disagreeing:
            lines.append(f"{counted(len(self.disagreeing), 'pair')} of near twins with different labels: one of the two is a "
                         "mistake, or a difference that is hard to see")  # fmt: skip
        if self.twins_in_train:
            lines.append(f"train: {counted(self.twins_in_train, 'row')} with a near twin in train")
        for split, (n, very) in self.across.items():
            if n:
                lines.append(
                    f"{split}: {counted(n, 'row')} with a near twin in train, {very:,} of them at a cosine of {VERY_NEAR} and "
                    "more: a score is higher there than on new rows"
                )
        lines += [
            f"shortcut: {each.what} alone predicts the label of {share(each.accuracy)} (the largest class is right of "
            f"{share(each.majority)})"
            for each in self.shortcuts
        ]
        lines += self.unknown
        if self.suspects is not None:
            lines.append(self._suspects_line())
        return lines

    def _suspects_line(self) -> str:
        assert self.suspects is not None
        if not self.suspects:
            return "no label is unlikely, by frozen vectors"
        judged = "" if self.probe_accuracy is None else f", which are right of {share(self.probe_accuracy)}"
        return (
            f"{counted(len(self.suspects), 'training row')} with a label that is unlikely by frozen vectors{judged}; some are "
            "mistakes of the labels and some of the vectors: look at them from the top of the list"
        )

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        train = self.task.train
        return {
            "survey": self.survey.as_json(),
            "disagreeing": [asdict(twin) for twin in self.disagreeing], "twins_in_train": self.twins_in_train,
            "across": {split: {"rows": n, "very_near": very} for split, (n, very) in self.across.items()},
            "small": list(self.small), "shortcuts": [each._asdict() for each in self.shortcuts],
            "majority": None if self.majority is None else {"label": self.majority[0], "share": self.majority[1]},
            "suspects": None if self.suspects is None else [
                {"row": _number(train, each.row), "label": self.written(train.labels[each.row]),
                 "suggested": self.written(each.suggested), "probability": each.probability}
                for each in self.suspects
            ],
        }  # fmt: skip

    def written(self, label: Any) -> str:
        """A label as its file has it; several classes divided by ", "."""
        if label is None:
            return ""
        if self.task.kind == "regression":
            return f"{label:.6g}"
        return ", ".join(self.task.classes[i] for i in (label if isinstance(label, list | tuple) else [label]))

    def page(self) -> str:
        """An HTML page of the lines, the twins with different labels and the unlikely labels."""
        twins = [(self._shown(*twin.first), self._shown(*twin.second), twin.similarity) for twin in self.disagreeing]
        suspects = (
            None
            if self.suspects is None
            else [
                (self._shown("train", each.row), self.written(each.suggested), self._why(each))
                for each in self.suspects
            ]
        )
        return page(self.task.name, self.lines(), twins, suspects)

    def _shown(self, split: str, row: int) -> ShownRow:
        rows = self.task.splits[split]
        return ShownRow(_where(rows, row, split), _text(rows, row), self.written(rows.labels[row]))

    def _why(self, suspect: Suspect) -> str:
        if self.task.kind == "regression":
            return f"{suspect.distance:.1f} spreads from what is predicted"
        return f"its label has a probability of {suspect.probability:.3f}"

    def corrections(self) -> str:
        """A CSV of rows to look at: whoever fills in `corrected` hands it to `--corrections`.

        First rows whose near twin has another label, then those with an unlikely label; a row that is both comes once.
        """
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        seen: set[tuple[str, int]] = set()
        for twin in self.disagreeing:
            for (split, row), (other_split, other) in ((twin.first, twin.second), (twin.second, twin.first)):
                if split == "train" and (split, row) not in seen:
                    seen.add((split, row))
                    there = self.task.splits[other_split]
                    why = f"{_where(there, other, other_split)} is nearly the same, and has another label"
                    self._write(writer, row, self.written(there.labels[other]), why)
        for each in self.suspects or ():
            if ("train", each.row) not in seen:
                self._write(writer, each.row, self.written(each.suggested), self._why(each))
        return table.getvalue()

    def _write(self, writer: Any, row: int, suggested: str, why: str) -> None:
        train = self.task.train
        writer.writerow([_number(train, row), _text(train, row), self.written(train.labels[row]), suggested, "", why])


def check(data: Any, encoder: Encoder | str | Path | None = None, **settings: Any) -> Check:
    """What there is to know of a task's rows before anything is trained of them.

    `data` is what `read` takes, or a Task. With an encoder also which labels are unlikely, by a linear probe on frozen vectors
    that has not seen the row (nor a near twin of it), and what its tokenizer does not know. `settings` are fields of Settings,
    such as max_length. Raises InputError for what cannot be read.
    """
    chosen, task = settings_from(settings), task_of(data)
    splits = [name for name in SPLITS if name in task.splits]
    places = [(name, i) for name in splits for i in range(len(task.splits[name]))]
    found = near_twins([text for name in splits for text in joined(task.splits[name])])
    n_train = len(task.train)
    disagreeing, across = [], {name: (set[int](), set[int]()) for name in splits if name != "train"}
    for pair in found.pairs:
        (one, i), (two, j) = places[pair.first], places[pair.second]
        labels = task.splits[one].labels[i], task.splits[two].labels[j]
        if None not in labels and labels[0] != labels[1]:
            disagreeing.append(Twin((one, i), (two, j), pair.similarity))
        if one == "train" and two != "train":
            across[two][0].add(j)
            if pair.similarity >= VERY_NEAR:
                across[two][1].add(j)
    sizes = np.bincount(found.groups[:n_train], minlength=1)
    suspects, accuracy, unknown = (
        (None, None, ()) if encoder is None else _by_encoder(encoder, task, chosen, found.groups)
    )
    return Check(
        task, survey(task), tuple(sorted(disagreeing, key=lambda twin: -twin.similarity)), int(sizes[sizes > 1].sum()),
        {name: (len(near), len(very)) for name, (near, very) in across.items()}, _small(task), _majority(task),
        tuple(shortcuts(task.train)) if task.kind == "single_label" else (), suspects, accuracy, unknown,
    )  # fmt: skip


def check_free(path: Path, option: str = "--out") -> None:
    """Raises InputError where `path` exists: somebody may have filled it in."""
    if path.exists():
        raise InputError(f"{path} exists, and may hold corrections: choose another {option}, or remove it first")


def write_corrections(found: Check, to: Path) -> None:
    """Writes the CSV of rows to look at; raises InputError where `to` exists, or cannot be written."""
    check_free(to)
    write_text(to, found.corrections())


def _by_encoder(
    encoder: Encoder | str | Path, task: Task, settings: Settings, groups: np.ndarray
) -> tuple[tuple[Suspect, ...], float | None, tuple[str, ...]]:
    """The suspects among the training rows, the accuracy of what they rest on, and what is unknown to the encoder."""
    from ..encoders.encoder import encoder_of
    from ..encoders.unknown_tokens import unknown_tokens
    from ..training.frozen import frozen_vectors, out_of_fold

    encoder = encoder_of(encoder)
    labelled = [i for i, label in enumerate(task.train.labels) if label is not None]
    rows = task.train.take(labelled)
    inputs = encoder.inputs(rows.texts, min(settings.max_length, encoder.max_length), most_bytes=settings.cache_bytes)
    unknown = tuple(unknown_tokens(inputs, rows.texts, encoder.tokenizer).lines("train"))
    if len(rows) < 2 * _FOLDS:
        return (), None, (*unknown, f"{counted(len(rows), 'training row')}: too few to say which labels are unlikely")
    vectors = frozen_vectors(encoder, task, rows, settings)
    likely = out_of_fold(vectors, task, rows, groups[: len(task.train)][labelled], _FOLDS)
    accuracy = None
    if task.kind == "single_label":
        labels = np.array(rows.labels)
        accuracy, suspects = float(np.mean(likely.argmax(1) == labels)), label_suspects(likely, labels)
    elif task.kind == "multi_label":
        present = np.zeros(likely.shape, int)
        for i, label in enumerate(rows.labels):
            present[i, label] = 1
        suspects = label_suspects_of_many(likely, present)
    else:
        suspects = number_suspects(likely, np.array(rows.labels, np.float64))
    return tuple(each._replace(row=labelled[each.row]) for each in suspects), accuracy, unknown


def _small(task: Task) -> tuple[str, ...]:
    """Sentences on classes that are there, and too small."""
    said = []
    for split, least, what in (
        ("train", LEARNABLE, "can hardly be learned"),
        ("validation", JUDGEABLE, "can hardly be judged"),
    ):
        rows = task.splits.get(split)
        if rows is None or task.kind == "regression":
            continue
        of = [i for label in rows.labels if label is not None for i in (label if isinstance(label, list) else [label])]
        counts = np.bincount(of, minlength=len(task.classes))
        few = [f"{task.classes[i]!r} ({counts[i]})" for i in range(len(counts)) if 0 < counts[i] < least]
        if few:
            said.append(f"{split}: fewer than {least} rows of {shortened(few)}: what is so rare {what}")
    return tuple(said)


def _majority(task: Task) -> tuple[str, float] | None:
    """The largest class of the training rows, and the share of validation rows (else of those) that have it."""
    labels = [label for label in task.train.labels if label is not None]
    if task.kind != "single_label" or not labels:
        return None
    largest = int(np.bincount(labels).argmax())
    judged = [label for label in task.splits.get("validation", task.train).labels if label is not None] or labels
    return task.classes[largest], float(np.mean(np.array(judged) == largest))


def _number(rows: Rows, i: int) -> int:
    """Of a row in its source, counted from 1."""
    return i + 1 if rows.numbers is None else rows.numbers[i]


def _text(rows: Rows, i: int) -> str:
    return "\n".join(column[i] for column in rows.texts)


def _where(rows: Rows, i: int, split: str) -> str:
    return f"{rows.unit} {_number(rows, i)}" + ("" if split == "train" else f" of {split}")
