"""Who predicts rows, here or behind a URL, and the texts that it may be asked for. Known without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol

from ..encoders.unknown_tokens import Unknown
from ..errors import InputError
from ..tasks.predictions import Prediction
from ..tasks.raw_rows import is_blank
from ..tasks.task import Rows, Task

EMPTY = "empty text"  # why a row has no prediction: a model would predict that too, by a guess


class Predicted(NamedTuple):
    """What is said of some rows."""

    predictions: list[Prediction]  # one per row; of those with a reason they mean nothing
    rows_cut: int  # rows that are longer than what is read of a text
    unknown: Unknown | None  # to the encoder; None where that is not known
    reasons: Mapping[int, str]  # why rows have no prediction, by their place


class RowPredictor(Protocol):
    """A Predictor, or what stands for a task of a server."""

    @property
    def task(self) -> Task:
        """Its task, without rows."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens that it reads of a text."""
        ...

    def predicted(self, rows: Rows) -> Predicted:
        """What it says of rows, of which there is at least one; raises InputError where it cannot say anything."""
        ...


def predict_texts(predictor: RowPredictor, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
    """One Prediction for each text, or pair of texts for a pair task; raises InputError when the shapes do not match."""
    _check_list(texts)
    task = predictor.task
    # Checked one by one, so that the message can say which text it is.
    rows = [_checked(task, i, text) for i, text in enumerate(texts, 1)]
    if not rows:
        return []
    columns = tuple([row[k] for row in rows] for k in range(len(task.text_columns)))
    found = predictor.predicted(Rows(columns, [None] * len(rows)))
    if found.reasons:
        first = min(found.reasons)
        why = f"has no prediction: {found.reasons[first]}"
        if found.reasons[first] == EMPTY:
            why = "is empty: the encoder's tokenizer leaves nothing of it; a prediction would be a guess"
        raise InputError(f"text {first + 1} {why}")
    return found.predictions


def _checked(task: Task, number: int, text: Any) -> tuple[str, ...]:
    """The text or the pair, for a task; raises InputError where it is no such thing."""
    row = tuple(text) if isinstance(text, list | tuple) else (text,)
    if not all(isinstance(part, str) for part in row):
        raise InputError(f"text {number} is {text!r:.40}, which is no text")
    if len(row) != len(task.text_columns):
        raise InputError(f"text {number} has {len(row)} part(s); task {task.name!r} takes {len(task.text_columns)}")
    for part in row:
        if is_blank(part):
            raise InputError(f"text {number} is empty: a prediction for it would be a guess")
        try:
            part.encode()
        except UnicodeEncodeError:  # half a character, as the shell hands over bytes of another encoding
            raise InputError(f"text {number} is not UTF-8: {part!r:.60}") from None
    return row


def _check_list(texts: Any) -> None:
    """Raises InputError for what gives something else than its texts, or in no order, where it is gone through."""
    # A string is a sequence too, whose letters would each be predicted.
    if isinstance(texts, str):
        raise InputError("predict takes a list of texts; for one text write [text]")
    # The names of the columns would be predicted.
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise InputError(
            f"predict takes a list of texts, and not a table ({type(texts).__name__}): give its column, as in table['text'], or "
            "for pairs list(zip(table['a'], table['b']))"
        )
    if isinstance(texts, Set):
        raise InputError(
            "predict takes a list of texts; a set has no order, by which predictions could be told from each other"
        )
