"""Answer a file row by row into another file, in bounded memory: columns and row order kept, answers added."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from gzip import GzipFile
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from ..errors import InputError
from ..files import replacing, without_nan
from ..tasks.answers import Answer
from ..tasks.read import read_rows
from ..tasks.tables import open_table
from ..tasks.task import Rows, Task
from .use import Predictor

CHUNK_ROWS = 4096  # held in memory at once; within a chunk, texts of similar length run together
Row = dict[str, Any]  # column -> cell, as the file holds it
Texts = tuple[str, ...]  # the text of a row, or its pair of texts
Writer = Callable[[Row], Any]  # writes one row; what it returns means nothing


class Counts(NamedTuple):
    """What became of the rows of a file."""

    rows: int
    unanswered: int  # of them: without a text
    cut: int  # of them: longer than what the run reads of a text

    def odd(self, max_length: int) -> str:
        """What a person should know of them, in plain words; `max_length` is how many tokens the run reads."""
        told = ""
        if self.unanswered:
            told += f", {self.unanswered:,} of them without a text and so without an answer"
        if self.cut:
            told += f", {self.cut:,} of them longer than the run's {max_length} tokens and read in part"
        return told


def predict_file(
    predictor: Predictor,
    source: Path,
    to: Path,
    columns: str | Sequence[str] | None = None,
    *,
    progress: bool = False,
) -> Counts:
    """Writes every row of `source` to `to` with the answer added.

    A row without a text has none. `to` ends in .csv, .tsv or .jsonl, or in one of them and .gz. Added are `predicted_label` and
    `probability_CLASS` for each class, or `predicted_value` for a regression. `columns` names the text column, or two as "a,b";
    by default those of the task the run was trained on, where the file has them, or else the usual ones. Raises InputError for
    a missing column, an unknown ending, an output column that the file already has, one file as both, and a file at `to` that
    holds no answers.
    """
    writer_of = _writer_for(to)
    # Or the answers would take the place of the rows, and the file could not be answered again.
    if to.resolve() == source.resolve():
        raise InputError(f"{to} is the file to be answered. Name another file for the answers (--out).")
    names, rows = read_rows(source, columns or None, preferred=predictor.task.text_columns, option="--columns")
    # Checked before anything is computed: an hour of answers should not end in a name clash.
    added = answer_columns(predictor.task)
    clash = [name for name in added if name in names]
    if clash:
        raise InputError(f"{source} already has the column {clash[0]!r}: rename it, so that nothing is overwritten")
    _check_free(to, added)
    count = n_empty = n_cut = 0
    # Written under another name and moved into place: a file that is there is whole.
    with (
        replacing(to) as temporary,
        _opened(temporary, to) as file,
        _bar(progress) as advance,
    ):
        # The columns of the file come first and keep their order.
        write = writer_of(file, [*names, *added])
        for chunk in _chunks(rows):
            answers, cut = _answers(predictor, [texts for _, texts in chunk])
            for (row, _), answer in zip(chunk, answers, strict=True):
                # None is an empty cell in a table and null in JSON.
                cells = [None] * len(added) if answer is None else answer_values(predictor.task, answer)
                write(row | dict(zip(added, cells, strict=True)))
            count, n_empty, n_cut = count + len(chunk), n_empty + answers.count(None), n_cut + cut
            advance(len(chunk))
    return Counts(count, n_empty, n_cut)


@contextmanager
def _opened(temporary: Path, to: Path) -> Iterator[IO[str]]:
    """`temporary`, open for the text of `to`, compressed where that is named so: then its name is in the file."""
    with ExitStack() as stack:
        binary = stack.enter_context(temporary.open("wb"))
        if to.suffix.lower() == ".gz":
            binary = stack.enter_context(GzipFile(to.name[:-3], "wb", fileobj=binary))
        yield stack.enter_context(TextIOWrapper(binary, encoding="utf-8", newline=""))


def _check_free(to: Path, added: list[str]) -> None:
    """Raises InputError where `to` holds anything but earlier answers, which alone are replaced."""
    if not to.is_file() or not to.stat().st_size:
        return
    try:
        ours = {*added} <= {*open_table(to).columns}
    except InputError:
        ours = False
    if not ours:
        raise InputError(f"{to} holds something else than answers, which would be lost: name another file (--out)")


def answer_columns(task: Task) -> list[str]:
    """The names of the columns that hold an answer; probabilities are in the order of the classes."""
    if task.kind == "regression":
        return ["predicted_value"]
    return ["predicted_label", *(f"probability_{name}" for name in task.classes)]


def answer_values(task: Task, answer: Answer) -> list[Any]:
    """The cells of `answer_columns`; the classes of a multi_label row are joined by "|"."""
    if task.kind == "regression":
        return [answer.value]
    assert answer.probabilities is not None
    # A multi_label row of no class has an empty cell.
    label = answer.label if isinstance(answer.label, str) else "|".join(answer.label or ())
    return [label, *(round(p, 6) for p in answer.probabilities.values())]


def _answers(predictor: Predictor, rows: list[Texts]) -> tuple[list[Answer | None], int]:
    """The answer to each row, or None where a text is empty: a model would answer that too, with a guess; and how many are cut.

    Raises InputError where the rows have more or fewer texts than those of the run's task.
    """
    # All rows of a file have as many texts as the first one.
    if len(rows[0]) != len(predictor.task.text_columns):
        raise InputError(
            f"the run takes {len(predictor.task.text_columns)} text(s) per row, not {len(rows[0])}. Name as many columns "
            "(--columns)."
        )
    full = [i for i, texts in enumerate(rows) if all(text.strip() for text in texts)]
    found: list[Answer | None] = [None] * len(rows)
    if not full:
        return found, 0
    columns = tuple([rows[i][k] for i in full] for k in range(len(rows[0])))
    answers, truncation = predictor.answered(Rows(columns, [None] * len(full)))
    for i, answer in zip(full, answers, strict=True):
        found[i] = answer
    return found, truncation.rows_cut


def _chunks(rows: Iterator[tuple[Row, Texts]]) -> Iterator[list[tuple[Row, Texts]]]:
    """The rows in lists of CHUNK_ROWS, read as they are needed."""
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


def _writer_for(to: Path) -> Callable[[IO[str], list[str]], Writer]:
    """What starts a file of the kind that the name of `to` asks for; raises InputError for an unknown ending."""
    writers = {".csv": _table(","), ".tsv": _table("\t"), ".jsonl": _json_lines}
    ending = Path(to.name.lower().removesuffix(".gz")).suffix
    if ending not in writers:
        raise InputError(f"cannot write {to}: its name must end in {', '.join(writers)}, or in one of them and .gz")
    return writers[ending]


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int], None]]:
    """Shows how many rows are answered, on a terminal; the block tells of each chunk."""
    columns = (TextColumn("[bold]answered"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not (shown and sys.stderr.isatty())) as bar:
        # How many rows there are is not known: they are read as they are answered.
        row = bar.add_task("", total=None)
        yield lambda count: bar.advance(row, count)


def _table(delimiter: str) -> Callable[[IO[str], list[str]], Writer]:
    """Lines of cells, quoted where they must be."""

    def start(file: IO[str], names: Iterable[str]) -> Writer:
        writer = csv.DictWriter(_LineFeeds(file), list(names), delimiter=delimiter, lineterminator="\r\n")
        writer.writeheader()
        return writer.writerow

    return start


class _LineFeeds:
    """A file that ends rows with a line feed; csv quotes a lone carriage return only where it ends its rows with one too."""

    def __init__(self, file: IO[str]):
        self._file = file

    def write(self, row: str) -> int:
        """Writes one whole row, as csv hands it over."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _json_lines(file: IO[str], names: Iterable[str]) -> Writer:
    """One JSON object per row; `names` are not needed, as every row carries them.

    What JSON has no word for is written as text (the dates and decimals of Parquet), and as null where it is no number.
    """

    def write(row: dict[str, Any]) -> None:
        print(json.dumps(without_nan(row), ensure_ascii=False, default=str), file=file)

    return write
