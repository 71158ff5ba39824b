"""Using what was trained: evaluate, predict, merge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..changes.delta import Delta
from ..encoders.encoder import Encoder, load
from ..errors import InputError
from ..tasks.answers import Answer, answers
from ..tasks.batches import tokenize
from ..tasks.metrics import scores
from ..tasks.read import read
from ..tasks.task import Rows, Task
from .forward import all_logits
from .run import Run

TOKENS_PER_BATCH = 8192  # tokens in one forward pass
Trained = Run | Delta | str | Path  # a Run, a Delta, or the folder of a run


def delta_of(run: Trained) -> Delta:
    """The Delta of a run, wherever it is."""
    return run.delta if isinstance(run, Run) else run if isinstance(run, Delta) else Delta.load(run)


def base_encoder(delta: Delta, encoder: Encoder | str | None = None) -> Encoder:
    """`encoder`, loaded where it is a name; by default the encoder that `delta` names."""
    if isinstance(encoder, Encoder):
        return encoder
    return load(encoder) if encoder else load(delta.base["name"], delta.base["revision"])


class Predictor:
    """A delta on its encoder, ready to answer: loaded once, used for any number of calls."""

    def __init__(self, run: Trained, encoder: Encoder | str | None = None):
        """`encoder` is an Encoder or the name of one; it defaults to the one the delta names."""
        self.delta = delta_of(run)
        self.task = Task.from_description(self.delta.task)
        self.encoder = base_encoder(self.delta, encoder)
        self.model = self.delta.attach(self.encoder)

    def answers(self, rows: Rows) -> list[Answer]:
        """One Answer per row, in order."""
        tokens = tokenize(self.task, rows, self.encoder.tokenizer, self.delta.max_length, labelled=False)
        return answers(self.task, all_logits(self.model, tokens, TOKENS_PER_BATCH))

    def scores(self, rows: Rows) -> dict[str, float]:
        """Every metric of the task on labelled rows."""
        tokens = tokenize(self.task, rows, self.encoder.tokenizer, self.delta.max_length)
        assert tokens.labels is not None
        return scores(self.task, all_logits(self.model, tokens, TOKENS_PER_BATCH), tokens.labels)


def predict(
    run: Trained | Predictor, texts: Sequence[str | tuple[str, str]], encoder: Encoder | str | None = None
) -> list[Answer]:
    """One Answer for each text, or pair of texts for a pair task; raises InputError when the shapes do not match."""
    predictor = run if isinstance(run, Predictor) else Predictor(run, encoder)
    n_texts = len(predictor.task.text_columns)
    rows = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    for i, row in enumerate(rows):
        if len(row) != n_texts:
            raise InputError(f"text {i + 1} has {len(row)} part(s); task {predictor.task.name!r} takes {n_texts}")
    columns = tuple([row[k] for row in rows] for k in range(n_texts))
    return predictor.answers(Rows(columns, [None] * len(rows)))


def evaluate(
    run: Trained, task: Task | str | None = None, split: str | None = None, encoder: Encoder | str | None = None,
    *, text: str | None = None, label: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """{"split", "rows", "scores"} of `run` on a split of `task`: a Task, what `read` takes, or by default its own task.

    `split` defaults to test where it has labels, else validation; of a single file all rows are scored. `text` and `label`
    name columns as in `read`. Raises InputError when the task or the split does not fit the run.
    """
    predictor = Predictor(run, encoder)
    if not isinstance(task, Task):
        task = _read_like(predictor.task, task, text, label)
    _check_same(predictor.task, task)
    chosen = split or next((name for name in ("test", "validation", "train") if _labelled(task, name)), "test")
    rows = task.splits.get(chosen)
    if rows is None or not _labelled(task, chosen):
        raise InputError(f"task {task.name!r} has no labelled {chosen} rows; it has: {', '.join(task.splits)}")
    return {"split": chosen, "rows": len(rows), "scores": predictor.scores(_relabelled(rows, task, predictor.task))}


def merge(encoder: Encoder, run: Trained) -> Any:
    """A plain Hugging Face model: `encoder` with the run's delta applied."""
    return delta_of(run).merged(encoder)


def _read_like(trained: Task, source: str | None, text: str | None, label: str | None) -> Task:
    """The task in `source`, read as the trained one was; another single file is not split, as all of it is judged."""
    own = source is None or source == trained.source
    return read(
        trained.source if source is None else source,
        text=text or (trained.text_columns if own else None), label=label or (trained.label_column if own else None),
        kind=trained.kind, metric=trained.metric, validation_share=0.1 if own else 0.0,
    )  # fmt: skip


def _labelled(task: Task, split: str) -> bool:
    rows = task.splits.get(split)
    return rows is not None and len(rows) > 0 and all(label is not None for label in rows.labels)


def _check_same(trained: Task, given: Task) -> None:
    if trained.kind != given.kind or len(trained.text_columns) != len(given.text_columns):
        raise InputError(
            f"the run answers a {trained.kind} task on {len(trained.text_columns)} text(s), but {given.name!r} is "
            f"{given.kind} on {len(given.text_columns)}"
        )
    unknown = set(given.classes) - set(trained.classes)
    if unknown:
        raise InputError(f"task {given.name!r} has classes the run never saw: {', '.join(sorted(unknown))}")


def _relabelled(rows: Rows, given: Task, trained: Task) -> Rows:
    """`rows` with the class numbers of the trained task: files may list the classes in another order."""
    if given.classes == trained.classes:
        return rows
    number = {i: trained.classes.index(name) for i, name in enumerate(given.classes)}
    labels = [sorted(number[i] for i in row) if isinstance(row, list) else number[row] for row in rows.labels]
    return Rows(rows.texts, labels)
