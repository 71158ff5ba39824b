"""From labels as written to a kind, class names and numbers: one coding, decided on the training rows.

The kind is given, declared by the source, or can only be one; where labels could mean a class or a quantity the user is
asked, because a wrong guess trains without complaint and is noticed late. Classes are sorted, so that the same labels
give the same indices whatever the order of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError, suggestion
from .label_parsing import (
    LIST_AS_TEXT,
    MEASURED,
    POSSIBLE_SEPARATORS,
    WHOLE,
    as_whole,
    finite_numbers,
    form_of,
    in_quotes,
    one_spelling,
    split_at,
    words_by_row,
)
from .raw_rows import RawRows
from .task import Kind, Label, Task

MANY_CLASSES, MANY_CLASSES_SHARE = 100, 0.05
"""A label column with more different values than both of these is more likely an id, a measurement or a text."""

SOME_CLASSES, FEW_ROWS = 20, 5
"""So is one with more different values than the first of these, and on average fewer rows of each than the second."""


_SMALLEST, _LARGEST = (
    1e-15,
    1e15,
)  # standard deviation of such labels: its square and that of an error must be float32 numbers
_STEPS = 1000  # of float32 that the labels of a regression must span, in standard deviations


@dataclass(frozen=True)
class Declared:
    """What the source says about its labels, in labels.json or in the features of a hub data set."""

    kind: Kind | None = None  # None: to be found from the labels
    classes: tuple[str, ...] | None = None  # in index order; None: to be learned from the training rows


UNDECLARED = Declared()
"""A source that says nothing of its labels: a single file, or a folder without labels.json."""


@dataclass(frozen=True)
class Coding:
    """How labels become numbers: a class index, sorted class indices, or a float."""

    kind: Kind
    classes: tuple[str, ...] = ()  # in index order; empty for regression
    index: Mapping[str, int] = field(default_factory=dict)  # a label as written -> the index of its class
    numbered: bool = False  # whether "1", "+1" and "1.0" are the same label
    declared: bool = False  # whether the class names come from the source, not from the training rows
    by_index: bool = False  # whether labels are numbers that count classes with other names

    def encode(self, raw: RawRows) -> list[Label]:
        """The encoded label of each row; raises InputError listing the rows whose label has no meaning here."""
        if self.kind == "regression":
            return list(finite_numbers(raw))
        # Spelled as the keys of the index are, or 1.0 would be unknown where 1 is a class.
        rows = [[as_whole(word) if self.numbered else word for word in words] for words in words_by_row(raw, self.kind)]
        unknown = {i: word for i, words in enumerate(rows) for word in words if word not in self.index}
        if unknown:
            raise self._unknown(raw, unknown)
        # For single_label, words_by_row gives each row exactly one word.
        if self.kind == "single_label":
            return [self.index[word] for (word,) in rows]
        codes = [sorted(self.index[word] for word in words) for words in rows]
        _refuse_repeats(raw, codes)
        return list(codes)

    def _unknown(self, raw: RawRows, unknown: Mapping[int, str]) -> InputError:
        """The InputError for labels (by row) that are no class."""
        place, words, known = raw.at(list(unknown)), in_quotes(unknown.values()), in_quotes(self.index, limit=10)
        if len({*unknown.values()}) == 1:
            words += suggestion(next(iter(unknown.values())), map(str, self.index), shown=repr)
        # Learned classes grow with the training rows, declared ones do not.
        if self.declared:
            return InputError(
                f"{place}: {words} is none of the classes {known}, which the data declares or the run was trained with. "
                "Correct these labels."
            )
        return InputError(
            f"{place}: {words} is not among the labels of the training rows, {known}. Correct these labels, or add "
            "training rows that have them."
        )


def decide_kind(raw: RawRows, kind: Kind | None, declared: Declared) -> Kind:
    """The kind that the user says, or else the source, or else the labels; raises InputError where they leave it open."""
    return kind or declared.kind or _guess_kind(raw, declared)


def learn_coding(raw: RawRows, kind: Kind, declared: Declared) -> Coding:
    """The coding of the training rows; raises InputError when their labels do not fit the kind, or are all alike."""
    coding = Coding(kind) if kind == "regression" else _class_coding(raw, kind, declared.classes)
    codes = coding.encode(raw)
    # one label for all rows would be learned at once, and perfectly, whatever the column holds
    different = {tuple(code) if isinstance(code, list) else code for code in codes}
    if len(different) == 1:
        raise InputError(
            f"{raw.table.place}: every row has the label {raw.labels[0]!r:.40}, so there is nothing to learn. "
            "Check the label column (--label), or add rows with other labels."
        )
    if kind == "regression":
        refuse_unresolved(raw.table.place, [code for code in codes if isinstance(code, float)])
    return coding


def coding_like(task: Task, raw: RawRows, declared: Declared) -> Coding:
    """The coding that gives labels written in `raw`, as names or indices, the task's class indices.

    Indices count the classes the source declares, or else the task's, where those have an order that somebody meant. Raises
    InputError for classes the task lacks, and for indices of classes that were put in alphabetical order.
    """
    if task.kind == "regression" or raw.unlabelled:  # without labels there is nothing to spell
        return Coding(task.kind, task.classes)
    # The source may list its classes in another order, so indices are matched through the names.
    names = declared.classes or task.classes
    of_task = {one_spelling(name): i for i, name in enumerate(task.classes)}
    if lacking := [name for name in names if one_spelling(name) not in of_task]:
        raise InputError(
            f"{raw.table.place} declares the classes {in_quotes(lacking)}, which task {task.name!r} does not have; it "
            f"has {in_quotes(task.classes, limit=10)}."
        )
    # First as the source means its labels, then from its indices to the task's.
    coding = _class_coding(raw, task.kind, names)
    # Then 0 may be the lowest of low, medium and high, and is the first of high, low and medium.
    if not declared.classes and coding.by_index and sorted(names) == list(names):
        raise InputError(
            f"{raw.table.place}: the labels are numbers, and the run's classes are {in_quotes(names, limit=10)}, which numbers "
            "could count in any order. Write the names, or put the file into a folder with a labels.json that lists the classes."
        )
    index = {word: of_task[one_spelling(names[i])] for word, i in coding.index.items()}
    return replace(coding, classes=task.classes, index=index)


def refuse_unresolved(place: str, labels: Sequence[float]) -> None:
    """Raises InputError for numbers that float32, in which models compute, hardly distinguishes, or cannot square."""
    centre = sum(labels) / len(labels)
    deviation = (sum((label - centre) ** 2 for label in labels) / len(labels)) ** 0.5
    if deviation and not _SMALLEST < deviation < _LARGEST:
        raise InputError(
            f"{place}: the labels differ by about {deviation:.3g}, whose square is beyond float32. "
            "Use another unit, in which they differ by about 1."
        )
    if deviation < _STEPS * 2**-24 * max(map(abs, labels)):
        raise InputError(
            f"{place}: the labels differ by about {deviation:.3g} at a size of {abs(centre):.3g}, which float32 hardly "
            f"distinguishes. Subtract a number near {centre:.6g} from all of them, and add it to the predictions."
        )


def _class_coding(raw: RawRows, kind: Kind, declared: tuple[str, ...] | None) -> Coding:
    """The coding by declared class names, or by indices of them; without a declaration, by the sorted labels."""
    words = {word for row in words_by_row(raw, kind) for word in row}
    index = _index_of(declared or (), raw)
    if declared and words <= set(index):  # names first: a label that is a name is never an index
        return Coding(kind, declared, index, _all_whole(declared), declared=True)
    form = form_of(words)
    # 1.0 may be a whole number from a float column; what has a true fraction is no class.
    if form == "numbers":
        _refuse_fractions(raw, kind)
    numbered = form != "words"
    if declared:
        # Where the names are "1" to "5", then 1.0 is the first name in another spelling; as an index it would be the second.
        by_index = numbered and not _all_whole(declared)
        if by_index:
            index = {str(i): i for i in range(len(declared))}
        return Coding(kind, declared, index, numbered, declared=True, by_index=by_index)
    # By value where they are numbers: class 10 comes after class 9.
    classes = tuple(sorted({as_whole(word) for word in words}, key=int) if numbered else sorted(words))
    return Coding(kind, classes, {name: i for i, name in enumerate(classes)}, numbered)


def _all_whole(names: Sequence[str]) -> bool:
    """Whether every class is named by a whole number."""
    return all(WHOLE.fullmatch(name) for name in names)


def _guess_kind(raw: RawRows, declared: Declared) -> Kind:
    """The kind the labels can only mean; raises InputError when they could mean another."""
    # A list can only hold the classes of one row.
    if any(isinstance(label, list) for label in raw.labels):
        if not declared.classes:
            _refuse_many_items(raw)
        return "multi_label"
    # Declared names say that the labels are classes, however they are spelled.
    if declared.classes:
        return "single_label"
    words = [word for (word,) in words_by_row(raw, "single_label")]
    _refuse_several(raw, words)
    form = form_of(words)
    _refuse_measured(raw, words)
    if form == "numbers":
        # show a true fraction where there is one; 1.0 may only be a whole number that passed through a float column
        odd = [i for i, word in enumerate(words) if not WHOLE.fullmatch(word)]
        i = next((i for i in odd if not WHOLE.fullmatch(as_whole(words[i]))), odd[0])
        raise InputError(
            f"{raw.at([i])}: the label {words[i]!r} is written as a float. If column {raw.label_column!r} is a quantity, "
            'pass kind="regression" (--kind regression); if it is a class, kind="single_label" (--kind single_label), '
            "with whole numbers or words."
        )
    # Whole numbers and words are classes, unless there are too many different ones.
    n_different = len(set(words))
    if _too_many(n_different, len(words)):
        quantity = 'if it is a quantity, kind="regression" (--kind regression); ' if form == "whole numbers" else ""
        raise InputError(
            f"{raw.table.place}: column {raw.label_column!r} holds {n_different} different values in {len(raw)} rows, "
            f'which is ambiguous. If it is a class, pass kind="single_label" (--kind single_label); {quantity}'
            "if it is not the label, name the right column (--label)."
        )
    return "single_label"


def _refuse_measured(raw: RawRows, words: Sequence[str]) -> None:
    """Raises InputError where every label is a number as people write it, such as 62.225,00 €: a quantity, not a class."""
    different = list(dict.fromkeys(words))
    # Without a fraction it may be a class (5 %, 10 %, 20 %), unless there are many.
    fraction = next((word for word in different if re.search(r"[0-9][.,'][0-9]", word)), None)
    if form_of(different) != "words" or not all(MEASURED.fullmatch(word) for word in different):
        return
    if fraction is not None or _too_many(len(different), len(words)):
        i = words.index(fraction or different[0])
        raise InputError(
            f"{raw.at([i])}: the label {words[i]!r} looks like a quantity. If column {raw.label_column!r} is one, write plain "
            'numbers (1234.5, without a currency, a unit and separators of thousands) and pass kind="regression" (--kind '
            'regression); if these are names of classes, kind="single_label" (--kind single_label).'
        )


def _refuse_several(raw: RawRows, words: Sequence[str]) -> None:
    """Raises InputError for a label that may be several classes: a list written as text, or "a|b" beside "a" and "b"."""
    different = dict.fromkeys(words)
    for word in different:
        divisions = [split_at(word, mark) for mark in (None, *POSSIBLE_SEPARATORS)]
        beside = any(len(parts) > 1 and different.keys() >= set(parts) for parts in divisions)
        if LIST_AS_TEXT.fullmatch(word) or beside:
            raise InputError(
                f"{raw.at([words.index(word)])}: the label {word!r:.40} may be one class or several. If several, pass "
                'kind="multi_label" (--kind multi_label), for which rows without a label are rows of no class; if one, '
                'kind="single_label" (--kind single_label).'
            )


def _too_many(n_different: int, n_values: int) -> bool:
    """Whether so many different values among `n_values` are hardly classes."""
    # Many at all and for the number of rows; or fewer, but hardly any rows of each to learn from.
    return n_different > max(MANY_CLASSES, MANY_CLASSES_SHARE * n_values) or (
        n_different > SOME_CLASSES and n_values < FEW_ROWS * n_different
    )


def _refuse_many_items(raw: RawRows) -> None:
    """Raises InputError where lists hold so many different items that they are hardly classes."""
    # Counted over all lists: a row adds as many values as it has items.
    items = [word for words in words_by_row(raw, "multi_label") for word in words]
    if _too_many(len(set(items)), len(items)):
        raise InputError(
            f"{raw.table.place}: the lists in column {raw.label_column!r} hold {len(set(items))} different items in "
            f'{len(raw)} rows, which is ambiguous. If they are classes, pass kind="multi_label" (--kind multi_label); if '
            "this is not the label, name the right column (--label)."
        )


def _index_of(names: Sequence[str], raw: RawRows) -> dict[str, int]:
    """The index of each class by its name in one spelling; raises InputError where two names are the same label."""
    whole = _all_whole(names)
    index: dict[str, int] = {}
    for i, name in enumerate(names):
        # Where the spelling is taken already, this is the index of the name that has it.
        first = index.setdefault(as_whole(name) if whole else one_spelling(name), i)
        if first != i:
            raise InputError(
                f"{raw.table.place}: the classes {names[first]!r} and {name!r} are one label in two spellings. Keep one of them."
            )
    return index


def _refuse_fractions(raw: RawRows, kind: Kind) -> None:
    """Raises InputError listing the rows with a label such as 0.5, where classes are meant."""
    fractions = {
        i: word
        for i, words in enumerate(words_by_row(raw, kind))
        for word in words
        if not WHOLE.fullmatch(as_whole(word))
    }
    if fractions:
        quantity = ', or pass kind="regression" (--kind regression)' if kind == "single_label" else ""
        raise InputError(
            f"{raw.at(list(fractions))}: the label {in_quotes(fractions.values())} is a float in a classification task. "
            f"Use whole numbers or words{quantity}."
        )


def _refuse_repeats(raw: RawRows, codes: Sequence[list[int]]) -> None:
    """Raises InputError listing the rows whose list names a class twice: [0, 1, 1] is a vector of flags."""
    # Flags, taken for the classes 0 and 1, would be learned without a word.
    wrong = [i for i, code in enumerate(codes) if len(set(code)) < len(code)]
    if wrong:
        raise InputError(
            f"{raw.at(wrong)}: a list names a class twice. A list holds the classes of the row, each once; flags of "
            "0 and 1 belong in one column per class (--label red,blue)."
        )
