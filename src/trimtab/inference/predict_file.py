"""Predict a file row by row into another file, in bounded memory: columns and row order kept, predictions added."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import InputError
from ..files import replacing
from ..tasks.read import PredictionRows, read_rows
from ..tasks.reading import AS_WRITTEN, Reading
from ..tasks.table import Row
from ..tasks.tables import open_table
from ..tasks.task import Rows, Task
from .row_files import check_ending, row_writer

# Not before the first prediction: files are looked at, and slips told, without waiting for torch.
if TYPE_CHECKING:
    from ..encoders.unknown_tokens import Unknown
    from ..tasks.predictions import Prediction
    from .row_predictor import RowPredictor

CHUNK_ROWS = 4096  # held in memory at once; within a chunk, texts of similar length run together
REASON = "not_predicted"  # the column that says why a row has no prediction
Texts = tuple[str, ...]  # the text of a row, or its pair of texts
ReadRow = tuple[Row, Texts, str | None]  # with what is wrong with it, if anything


class Counts(NamedTuple):
    """What became of the rows of a file."""

    rows: int
    unanswered: int  # of them: without a text, or not of the form of the table
    cut: int  # of them: longer than what the run reads of a text
    tokens: int | None = (
        0  # of the texts, special ones not counted; None where that is not known, as of a server's task
    )
    unknown: int | None = 0  # of those, to the encoder; None as well
    unknown_line: str = ""  # what to say of them

    def odd(self, max_length: int) -> str:
        """What a person should know of them, in plain words; `max_length` is how many tokens the run reads."""
        told = ""
        if self.unanswered:
            told += f", {self.unanswered:,} of them without a prediction (column {REASON} says why)"
        if self.cut:
            told += f", {self.cut:,} of them longer than the run's {max_length} tokens and read in part"
        if self.unknown_line:
            told += f"; {self.unknown_line}"
        return told


def predict_file(
    predictor: RowPredictor,
    source: Path,
    to: Path,
    columns: str | Sequence[str] | None = None,
    *,
    reading: Reading = AS_WRITTEN,
    overwrite: bool = False,
    progress: bool = False,
) -> Counts:
    """Writes every row of `source` to `to` with the prediction added.

    A row without a text has none, nor has one that is not of the form of the table; `not_predicted` says why. `to` ends in
    .csv, .tsv, .jsonl or .parquet, and all but the last may have .gz behind them. Added are `predicted_label` and
    `probability_CLASS` for each class (for multi_label `predicted_labels` too, a list; where unsure rows have no label
    `best_guess`), or `predicted_value` for a regression.
    `columns` names the text column, or two as "a,b"; by default those of the task the run was trained on, where the file has
    them, or else the usual ones. Raises InputError, before anything is computed, for a file that cannot be read to its end, a
    missing column, an unknown ending, an output column that the file already has, one file as both, and a file that is at `to`
    already, unless it holds predictions and `overwrite` is true.
    """
    found = open_rows(predictor.task, source, to, columns, reading=reading, overwrite=overwrite)
    return predict_rows(predictor, found, source, to, progress=progress)


def open_rows(
    task: Task,
    source: Path,
    to: Path,
    columns: str | Sequence[str] | None = None,
    *,
    reading: Reading = AS_WRITTEN,
    overwrite: bool = False,
) -> PredictionRows:
    """The rows that `predict_file` would predict with a run of `task`; raises InputError as it does, without a model."""
    check_ending(to)
    # Or the predictions would take the place of the rows, and the file could not be predicted again.
    if to.resolve() == source.resolve():
        raise InputError(f"{to} is the file to be predicted. Name another file for the predictions (--out).")
    added = prediction_columns(task)
    _check_free(to, [*added][:1], overwrite)
    found = read_rows(source, columns or None, reading, preferred=task.text_columns, option="--columns")
    # Checked before anything is computed: an hour of predictions should not end in a name clash.
    clash = [name for name in added if name in found.table.columns]
    if clash:
        raise InputError(f"{source} already has the column {clash[0]!r}: rename it, so that nothing is overwritten")
    return found


def predict_rows(
    predictor: RowPredictor, found: PredictionRows, source: Path, to: Path, *, progress: bool = False
) -> Counts:
    """Writes the rows `found` of `source` to `to` with the predictions added, as `predict_file` says."""
    from ..encoders.unknown_tokens import Unknown

    added = prediction_columns(predictor.task)
    count = n_empty = n_cut = 0
    unknown: Unknown | None = Unknown(0, 0, 0, 0)  # None from the first chunk on of which it is not known
    # Written under another name and moved into place: a file that is there is whole.
    with (
        replacing(to) as temporary,
        row_writer(temporary, to, found.table, added) as write,
        _bar(progress, found.n_rows) as advance,
    ):
        for chunk in _chunks(found.rows):
            said = _predictions(predictor, chunk)
            unknown = None if unknown is None or said.unknown is None else unknown + said.unknown
            for (row, _, _), prediction, reason in zip(chunk, said.predictions, said.reasons, strict=True):
                # None is an empty cell in a table and null in JSON.
                cells = (
                    [None] * (len(added) - 1) if prediction is None else prediction_values(predictor.task, prediction)
                )
                write(row | dict(zip(added, [*cells, reason], strict=True)))
            count, n_empty, n_cut = count + len(chunk), n_empty + said.predictions.count(None), n_cut + said.rows_cut
            advance(len(chunk))
    if unknown is None:
        return Counts(count, n_empty, n_cut, None, None)
    return Counts(count, n_empty, n_cut, unknown.tokens, unknown.unknown, "".join(unknown.lines(source.name)))


def _check_free(to: Path, own: list[str], overwrite: bool) -> None:
    """Raises InputError for a file at `to`: of earlier predictions, which have the columns `own`, unless `overwrite` is true."""
    if not to.is_file() or not to.stat().st_size:
        return
    try:
        ours = {*own} <= {*open_table(to).columns}
    except InputError:
        ours = False
    if not ours:
        raise InputError(f"{to} holds something else than predictions, which would be lost: name another file (--out)")
    if not overwrite:
        raise InputError(
            f"{to} is there already: name another file (--out), or replace it with overwrite=True (--overwrite)"
        )


def prediction_columns(task: Task) -> dict[str, str]:
    """The columns that are added, by name, each with its Arrow type; probabilities are in the order of the classes."""
    if task.kind == "regression":
        return {"predicted_value": "double", REASON: "string"}
    several = {"predicted_labels": "strings"} if task.kind == "multi_label" else {}
    if task.decision_rule.abstain_below is not None:
        several = {"best_guess": "string"}
    likely = {f"probability_{name}": "double" for name in task.classes}
    return {"predicted_label": "string", **several, **likely, REASON: "string"}


def prediction_values(task: Task, prediction: Prediction) -> list[Any]:
    """The cells of `prediction_columns` but the last; the classes of a multi_label row are joined by "|", and are a list too."""
    if task.kind == "regression":
        return [prediction.value]
    assert prediction.probabilities is not None
    likely = [round(p, 6) for p in prediction.probabilities.values()]
    if task.decision_rule.abstain_below is not None:  # of rows without an answer the label is an empty cell
        return [prediction.label, prediction.guess, *likely]
    if task.kind == "single_label":
        return [prediction.label, *likely]
    # A row of no class has an empty cell; a name may hold a "|" itself, so that only the list can be taken apart again.
    names = list(prediction.label or ())
    return ["|".join(names), names, *likely]


class _Said(NamedTuple):
    """Of a chunk of rows."""

    predictions: list[Prediction | None]  # None where there is none
    reasons: list[str | None]  # why there is none
    rows_cut: int
    unknown: Unknown | None


def _predictions(predictor: RowPredictor, rows: list[ReadRow]) -> _Said:
    """What is said of rows: nothing where a text is missing, or nothing of it is left to the encoder.

    Raises InputError where the rows have more or fewer texts than those of the run's task.
    """
    from ..encoders.unknown_tokens import Unknown

    # All rows of a file have as many texts as the first one.
    n_texts = len(predictor.task.text_columns)
    if len(rows[0][1]) != n_texts:
        raise InputError(
            f"the run takes {n_texts} text(s) per row, not {len(rows[0][1])}. Name as many columns (--columns)."
        )
    reasons = [reason for _, _, reason in rows]
    full = [i for i, reason in enumerate(reasons) if reason is None]
    found: list[Prediction | None] = [None] * len(rows)
    if not full:
        return _Said(found, reasons, 0, Unknown(0, 0, 0, 0))
    columns = tuple([rows[i][1][k] for i in full] for k in range(n_texts))
    predicted = predictor.predicted(Rows(columns, [None] * len(full)))
    for k, i in enumerate(full):
        if k in predicted.reasons:
            reasons[i] = predicted.reasons[k]
        else:
            found[i] = predicted.predictions[k]
    return _Said(found, reasons, predicted.rows_cut, predicted.unknown)


def _chunks(rows: Iterator[ReadRow]) -> Iterator[list[ReadRow]]:
    """The rows in lists of CHUNK_ROWS, read as they are needed."""
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


@contextmanager
def _bar(shown: bool, n_rows: int) -> Iterator[Callable[[int], None]]:
    """Shows how many rows are predicted, on a terminal; the block tells of each chunk."""
    columns = (TextColumn("[bold]predicted"), BarColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not (shown and sys.stderr.isatty())) as bar:
        row = bar.add_task("", total=n_rows)
        yield lambda count: bar.advance(row, count)
