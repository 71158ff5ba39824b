"""Which rows a run is scored on: read and compared with what it was trained on, before its encoder is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, suggestion
from ..results.recipe import Recipe
from ..results.run_folder import RECIPE
from ..tasks.data_report import rows_in
from ..tasks.metrics import check_metric
from ..tasks.read import read_again, read_like
from ..tasks.sources import PATH_LIKE
from ..tasks.task import EMPTY, SPLITS, Rows, Task


@dataclass(frozen=True)
class ChosenRows:
    """Rows to score a run on, and those that it was trained on where they are at hand."""

    task: Task
    split: str
    trained_on: Rows

    @property
    def rows(self) -> Rows:
        return self.task.splits[self.split]

    @property
    def notes(self) -> tuple[str, ...]:
        return self.task.notes


def choose_rows(
    described: Mapping[str, Any], folder: Path | None, task: Any, split: str | None,
    *, text: str | None = None, label: str | None = None, **reading: Any,
) -> ChosenRows:  # fmt: skip
    """The rows that `evaluate` scores of a run of the task `described`, in `folder` where it lies in one.

    Raises InputError as `evaluate` says.
    """
    if task is None and (text is not None or label is not None):
        raise InputError("text and label name columns of another task: name its file too (trimtab evaluate RUN FILE)")
    trained, is_own = Task.from_description(described), task is None
    check_metric(trained.metric, trained.kind)  # of a run that another version made, or nobody
    if not isinstance(task, Task):
        task = _read_for(_where_it_lies(trained, folder), task, text, label, reading)
    # Logits mean nothing for other classes, or for the same ones in another order.
    if _shape(task) != _shape(trained):
        changed = f"the data in {task.source} has changed since the run: it" if is_own else f"task {task.name!r}"
        raise InputError(f"{changed} has another kind, other classes or another number of texts than the run's task")
    chosen = split or next((name for name in ("test", "validation") if _labelled(task, name)), "test")
    if not _labelled(task, chosen):
        why = "".join(f"; {note}" for note in task.notes)
        wanted = f"labelled {chosen} rows" if split else "labelled test or validation rows"
        raise InputError(
            f"task {task.name!r} has no {wanted}{'' if chosen in SPLITS else suggestion(chosen, task.splits)}; it has: "
            f"{', '.join(task.splits)}{why}. Name another split (--split), or the column of the labels (--label)."
        )
    # Held-out rows are drawn from all rows for training, so that rows added since move the draw.
    trained_beside = described["validation_sha256"]  # the rows that the run was not trained on
    if is_own and chosen == "validation" and task.splits[chosen].sha256() != trained_beside:
        raise InputError(
            f"the rows of {task.source} have changed since the run, so that other rows are held out now, some of which it may "
            "have been trained on: name a file of rows that it has not seen (trimtab evaluate RUN FILE)"
        )
    trained_on = task.train if is_own else _train_rows_at_hand(_where_it_lies(trained, folder), trained_beside)
    return ChosenRows(task, chosen, trained_on)


def seen_note(chosen: ChosenRows) -> list[str]:
    """What is to be said of rows that the run was trained on too; nothing where there are none."""
    n_seen = rows_in(chosen.rows, chosen.trained_on)
    if not n_seen:
        return []
    return [
        f"{chosen.split}: {n_seen:,} of {len(chosen.rows):,} rows have a text that is in the run's own training split too, so "
        "that the scores are too good"
    ]


def train_rows_of(described: Mapping[str, Any], folder: Path | None) -> Rows:
    """The training split of a run of the task `described`, in `folder` where it lies in one; none where it is not at hand."""
    return _train_rows_at_hand(_where_it_lies(Task.from_description(described), folder), described["validation_sha256"])


def _train_rows_at_hand(trained: Task, validation_sha256: str) -> Rows:
    """The run's training split, read again where its source lies on this machine and is what it was; else no rows."""
    if not trained.source or not _lies_here(trained.source):
        return EMPTY
    try:
        task = _read_for(trained, None, None, None, {})
    except InputError:  # it has become another table since
        return EMPTY
    return task.train if task.validation.sha256() == validation_sha256 else EMPTY


def _labelled(task: Task, split: str) -> bool:
    """Whether the task has such rows, every one of them with a label."""
    rows = task.splits.get(split)
    return rows is not None and len(rows) > 0 and all(label is not None for label in rows.labels)


def _shape(task: Task) -> tuple[str, tuple[str, ...], int]:
    """What two tasks must share for one's model to predict the other."""
    return task.kind, task.classes, len(task.text_columns)


def _lies_here(source: str) -> bool:
    """Whether there is a file or folder of that name, which may begin with ~ as in `find_source`."""
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # a folder that may not be entered, or a user who is not there
        return False


def _where_it_lies(trained: Task, folder: Path | None) -> Task:
    """The run's task with the places of its recipe where those that it has itself are not to be found from here."""
    if folder is None or _lies_here(trained.source) or not (folder / RECIPE).is_file():
        return trained
    recipe = Recipe.load(folder / RECIPE)
    return replace(trained, source=recipe.task, reading=trained.reading.changed(validation=recipe.validation))


def _read_for(trained: Task, source: Any, text: str | None, label: str | None, reading: Mapping[str, Any]) -> Task:
    """The run's own task read again, or another source read with the run's classes.

    Raises InputError as `read` does, and where the file of the run's own task is gone.
    """
    if source is not None:
        return read_like(trained, source, text=text, label=label, **reading)
    if not trained.source:
        raise InputError("the run's own data was a table in memory: name the file, or give the table, to score")
    if PATH_LIKE.search(trained.source) and not _lies_here(trained.source):  # and not the name of a data set
        raise InputError(
            f"the run's own data {trained.source} is not to be found from {Path.cwd()}: name the file to score "
            "(trimtab evaluate RUN FILE)"
        )
    return read_again(replace(trained, reading=trained.reading.changed(**reading)).origin)
