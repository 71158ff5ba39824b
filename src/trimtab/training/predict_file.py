"""Answer a file row by row into another file, in bounded memory: columns and row order kept, answers added."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files import replacing
from ..tasks.answers import Answer
from ..tasks.read import read_rows
from ..tasks.task import Rows, Task
from .use import Predictor

CHUNK_ROWS = 4096  # held in memory at once; within a chunk, texts of similar length run together
Row = dict[str, Any]
Writer = Callable[[Row], None]


def predict_file(predictor: Predictor, source: Path, to: Path, columns: str | None = None) -> int:
    """Writes every row of `source` to `to` (.csv, .tsv or .jsonl) with the answer added, and returns how many there were.

    Added are `predicted_label` and `probability_CLASS` for each class, or `predicted_value` for a regression. `columns`
    names the text column, or two as "a,b"; by default those of the task the run was trained on, where the file has them.
    Raises InputError for a missing column, an unknown ending, or an output column that the file already has.
    """
    writer_of = _writer_for(to)
    names, rows = read_rows(source, columns or _known_columns(predictor.task, source))
    # Checked before anything is computed: an hour of answers should not end in a name clash.
    added = answer_columns(predictor.task)
    clash = [name for name in added if name in names]
    if clash:
        raise InputError(f"{source} already has the column {clash[0]!r}: rename it, so that nothing is overwritten")
    count = 0
    # Written under another name and moved into place: a file that is there is whole.
    with replacing(to) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write = writer_of(file, [*names, *added])
        for chunk in _chunks(rows):
            texts = tuple([row[1][k] for row in chunk] for k in range(len(chunk[0][1])))
            if len(texts) != len(predictor.task.text_columns):
                raise InputError(f"the run takes {len(predictor.task.text_columns)} text(s) per row, not {len(texts)}")
            for (row, _), answer in zip(chunk, predictor.answers(Rows(texts, [None] * len(chunk))), strict=True):
                write(row | dict(zip(added, answer_values(predictor.task, answer), strict=True)))
            count += len(chunk)
    return count


def answer_columns(task: Task) -> list[str]:
    """The names of the columns that hold an answer."""
    if task.kind == "regression":
        return ["predicted_value"]
    return ["predicted_label", *(f"probability_{name}" for name in task.classes)]


def answer_values(task: Task, answer: Answer) -> list[Any]:
    """The cells of `answer_columns`; the classes of a multi_label row are joined by "|"."""
    if task.kind == "regression":
        return [answer.value]
    assert answer.probabilities is not None
    label = answer.label if isinstance(answer.label, str) else "|".join(answer.label or ())
    return [label, *(round(p, 6) for p in answer.probabilities.values())]


def _known_columns(task: Task, source: Path) -> tuple[str, ...] | None:
    """The text columns of the training data where `source` has them all; None lets the reader find them by name."""
    if not source.is_file():
        return None
    names, rows = read_rows(source, task.text_columns)
    del rows
    return task.text_columns if set(task.text_columns) <= set(names) else None


def _chunks(rows: Iterator[tuple[Row, tuple[str, ...]]]) -> Iterator[list[tuple[Row, tuple[str, ...]]]]:
    """The rows in lists of CHUNK_ROWS, read as they are needed."""
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


def _writer_for(to: Path) -> Callable[[IO[str], list[str]], Writer]:
    """What starts a file of the kind that the name of `to` asks for; raises InputError for an unknown ending."""
    writers = {".csv": _table(","), ".tsv": _table("\t"), ".jsonl": _json_lines}
    if to.suffix not in writers:
        raise InputError(f"cannot write {to}: its name must end in {', '.join(writers)}")
    return writers[to.suffix]


def _table(delimiter: str) -> Callable[[IO[str], list[str]], Writer]:
    """Lines of cells, quoted where they must be."""

    def start(file: IO[str], names: Iterable[str]) -> Writer:
        writer = csv.DictWriter(file, list(names), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        return writer.writerow

    return start


def _json_lines(file: IO[str], names: Iterable[str]) -> Writer:
    """One JSON object per row; `names` are not needed, as every row carries them."""
    return lambda row: print(json.dumps(row, ensure_ascii=False, default=str), file=file)
