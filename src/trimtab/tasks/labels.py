"""From labels as written to a kind, class names and numbers: one coding, decided on the training rows.

The kind is given, declared by the source, or can only be one; where labels could mean a class or a quantity the user is
asked, because a wrong guess trains without complaint and is noticed late. Classes are sorted, so that the same labels
give the same indices whatever the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .raw import RawRows
from .task import Kind, Label, Task
from .words import WHOLE, as_whole, finite_numbers, form_of, in_quotes, words_by_row

MANY_CLASSES, MANY_CLASSES_SHARE = 100, 0.05
"""A label column with more different values than both of these is more likely an id, a measurement or a text."""


@dataclass(frozen=True)
class Declared:
    """What the source says about its labels, in labels.json or in the features of a hub data set."""

    kind: Kind | None = None
    classes: tuple[str, ...] | None = None


UNDECLARED = Declared()
"""A source that says nothing of its labels: a single file, or a folder without labels.json."""


@dataclass(frozen=True)
class Coding:
    """How labels become numbers: a class index, sorted class indices, or a float."""

    kind: Kind
    classes: tuple[str, ...] = ()
    index: Mapping[str, int] = field(default_factory=dict)  # a label as written -> the index of its class
    numbered: bool = False  # whether "1", "+1" and "1.0" are the same label
    declared: bool = False  # whether the class names come from the source, not from the training rows

    def encode(self, raw: RawRows) -> list[Label]:
        """The encoded label of each row; raises InputError listing the rows whose label has no meaning here."""
        if self.kind == "regression":
            return list(finite_numbers(raw))
        rows = [[as_whole(word) if self.numbered else word for word in words] for words in words_by_row(raw, self.kind)]
        unknown = {i: word for i, words in enumerate(rows) for word in words if word not in self.index}
        if unknown:
            raise self._unknown(raw, unknown)
        if self.kind == "single_label":
            return [self.index[word] for (word,) in rows]
        codes = [sorted(self.index[word] for word in words) for words in rows]
        _refuse_repeats(raw, codes)
        return list(codes)

    def _unknown(self, raw: RawRows, unknown: Mapping[int, str]) -> InputError:
        """The InputError for labels (by row) that are no class."""
        place, words, known = raw.at(list(unknown)), in_quotes(unknown.values()), in_quotes(self.index, limit=10)
        if self.declared:
            return InputError(f"{place}: {words} is not among the declared classes {known}. Correct one or the other.")
        return InputError(
            f"{place}: {words} is not among the labels of the training rows, {known}. Correct these labels, or add "
            "training rows that have them."
        )


def learn_coding(raw: RawRows, kind: Kind | None, declared: Declared) -> Coding:
    """The coding of the training rows; raises InputError when their labels leave the kind open, or are all alike."""
    kind = kind or declared.kind or _guess_kind(raw, declared)
    coding = Coding(kind) if kind == "regression" else _class_coding(raw, kind, declared.classes)
    # one label for all rows would be learned at once, and perfectly, whatever the column holds
    different = {tuple(code) if isinstance(code, list) else code for code in coding.encode(raw)}
    if len(different) == 1:
        raise InputError(
            f"{raw.table.place}: every row has the label {raw.labels[0]!r:.40}, so there is nothing to tell apart. "
            "Check the label column (--label), or add rows with other labels."
        )
    return coding


def coding_like(task: Task, raw: RawRows, declared: Declared) -> Coding:
    """The coding that gives labels written in `raw`, as names or indices, the task's class indices.

    Indices count the classes the source declares, or else the task's. Raises InputError for classes the task lacks.
    """
    if task.kind == "regression":
        return Coding(task.kind)
    names = declared.classes or task.classes
    if lacking := [name for name in names if name not in task.classes]:
        raise InputError(
            f"{raw.table.place} declares the classes {in_quotes(lacking)}, which task {task.name!r} does not have; it "
            f"has {in_quotes(task.classes, limit=10)}."
        )
    coding = _class_coding(raw, task.kind, names)
    index = {word: task.classes.index(names[i]) for word, i in coding.index.items()}
    return replace(coding, classes=task.classes, index=index)


def _class_coding(raw: RawRows, kind: Kind, declared: tuple[str, ...] | None) -> Coding:
    """The coding by declared class names, or by indices of them; without a declaration, by the sorted labels."""
    words = {word for row in words_by_row(raw, kind) for word in row}
    if declared and words <= set(declared):  # names first: the names may themselves be numbers, such as "1" to "5"
        return Coding(kind, declared, {name: i for i, name in enumerate(declared)}, declared=True)
    numbered = all(WHOLE.fullmatch(as_whole(word)) for word in words)
    if form_of(words) == "numbers" and kind == "single_label":
        _refuse_fractions(raw)
    if declared:
        index = {str(i) if numbered else name: i for i, name in enumerate(declared)}
        return Coding(kind, declared, index, numbered, declared=True)
    classes = tuple(sorted({as_whole(word) for word in words}, key=int) if numbered else sorted(words))
    return Coding(kind, classes, {name: i for i, name in enumerate(classes)}, numbered)


def _guess_kind(raw: RawRows, declared: Declared) -> Kind:
    """The kind the labels can only mean; raises InputError when they could mean another."""
    if any(isinstance(label, list) for label in raw.labels):
        return "multi_label"
    if declared.classes:
        return "single_label"
    words = [word for (word,) in words_by_row(raw, "single_label")]
    form = form_of(words)
    if form == "numbers":
        # show a true fraction where there is one; 1.0 may only be a whole number that passed through a float column
        i = next((i for i, word in enumerate(words) if not WHOLE.fullmatch(as_whole(word))), 0)
        raise InputError(
            f"{raw.at([i])}: the label {words[i]!r} is written as a float. If column {raw.label_column!r} is a quantity, "
            'pass kind="regression" (--kind regression); if it is a class, kind="single_label" (--kind single_label), '
            "with whole numbers or words."
        )
    n_different = len(set(words))
    if n_different > max(MANY_CLASSES, MANY_CLASSES_SHARE * len(raw)):
        quantity = 'if it is a quantity, kind="regression" (--kind regression); ' if form == "whole numbers" else ""
        raise InputError(
            f"{raw.table.place}: column {raw.label_column!r} holds {n_different} different values in {len(raw)} rows, "
            f'which is ambiguous. If it is a class, pass kind="single_label" (--kind single_label); {quantity}'
            "if it is not the label, name the right column (--label)."
        )
    return "single_label"


def _refuse_fractions(raw: RawRows) -> None:
    """Raises InputError listing the rows with a label such as 0.5, where classes are meant."""
    words = [as_whole(word) for (word,) in words_by_row(raw, "single_label")]
    wrong = [i for i, word in enumerate(words) if not WHOLE.fullmatch(word)]
    if wrong:
        raise InputError(
            f"{raw.at(wrong)}: the label {in_quotes(words[i] for i in wrong)} is a float in a classification task. "
            'Use whole numbers or words, or pass kind="regression" (--kind regression).'
        )


def _refuse_repeats(raw: RawRows, codes: Sequence[list[int]]) -> None:
    """Raises InputError listing the rows whose list names a class twice: [0, 1, 1] is a vector of flags."""
    wrong = [i for i, code in enumerate(codes) if len(set(code)) < len(code)]
    if wrong:
        raise InputError(
            f"{raw.at(wrong)}: a list names a class twice. A list holds the classes of the row, each once; flags of "
            "0 and 1 belong in one column per class (--label red,blue)."
        )
