"""Pool: many tuned tasks on one encoder, whose texts share its passes.

A task is a name that points to a version of a delta. Versions are immutable: replacing a task takes another slot, whatever is
computed goes by the delta's hash, and a call keeps the versions that it began with.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..encoders.choices import Compute
from ..encoders.encoder import Encoder, encoder_of
from ..errors import InputError, suggestion
from ..inference.predictor import Trained, delta_of, tokens_at_once
from ..tasks.predictions import predictions
from ..training.ranks import device
from ..training.run import Run
from .batches import Batches, Read, Refusal, Usable, read_text
from .contract import ServedTask, TaskPrediction, Text
from .first_letters import divides_at_spaces, first_letters
from .residents import Residents
from .served_delta import Models, ServedDelta


@dataclass(frozen=True, eq=False)
class ReadItem:
    """An item whose text has been read: what `Pool.compute` takes."""

    task: str  # as it was asked for
    read: Read

    @property
    def key(self) -> tuple[bytes, ...]:
        """What texts that are the same to the encoder have in common."""
        return tuple(ids.tobytes() for ids in self.read.ids)


Versions = Mapping[str, ServedDelta]  # what names stand for, for as long as a call lasts


class Pool:
    """Many tasks on one encoder: `predict` for texts of different tasks at once, `predict_all` for all tasks of a text.

    Any number of threads may use it, and add, replace and remove tasks meanwhile.
    """

    def __init__(
        self, encoder: Encoder | str | Path, runs: Mapping[str, Trained] | None = None, *, compute: Compute = "auto",
        most_bytes: int | None = None, most_letters: int = 100_000,
    ):  # fmt: skip
        """`runs` are tasks by name, each what `add` takes.

        `most_bytes` bounds what the values of tasks take in memory: those that were not used for longest leave it, and are read
        from their folders when they are asked for again. Texts of more than `most_letters` characters are refused. Raises
        InputError where the encoder or a run cannot be read, or where they do not belong together.
        """
        self.encoder = encoder_of(encoder)
        self._models = Models(self.encoder, compute, device())
        self._residents = Residents(most_bytes, device())
        self._batches = Batches(self._models, self._residents, tokens_at_once())
        self._names: dict[str, ServedDelta] = {}
        self._most_letters = most_letters
        self._shortens = divides_at_spaces(self.encoder.tokenizer)
        self._lock = threading.Lock()  # of names
        for name, run in (runs or {}).items():
            self.add(name, run)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @property
    def tasks(self) -> dict[str, ServedTask]:
        """All tasks by name, in the order in which they came."""
        with self._lock:
            names = dict(self._names)
        return {name: self._described(name, of) for name, of in names.items()}

    def task(self, name: str) -> ServedTask | None:
        """The task of that name, where there is one."""
        with self._lock:
            found = self._names.get(name)
        return None if found is None else self._described(name, found)

    @property
    def names(self) -> list[str]:
        """Names of all tasks, in the order in which they came."""
        with self._lock:
            return [*self._names]

    @property
    def resident_bytes(self) -> int:
        """What the values of tasks take in memory."""
        return self._residents.nbytes

    def add(self, name: str, run: Trained) -> str:
        """Adds a task, and returns its version: a Run, a Delta, or the folder of a run.

        Raises InputError where there is one of that name, where the run cannot be read, or where it is of another encoder; the
        pool then is as it was.
        """
        return self._publish(name, run, new=True)

    def replace(self, name: str, run: Trained) -> str:
        """Has the name stand for another delta from the next call on, and returns its version.

        Raises InputError where there is no task of that name, and as `add`; the old one then stays.
        """
        return self._publish(name, run, new=False)

    def remove(self, name: str) -> None:
        """Forgets a task; calls that have begun still get its predictions. Raises InputError where there is none of that name."""
        with self._lock:
            if name not in self._names:
                raise InputError(self._unknown(name))
            gone = self._names.pop(name)
        self._residents.release(gone)

    def predict(self, items: Sequence[tuple[str, Text]]) -> list[TaskPrediction]:
        """One TaskPrediction for each (task, text), in order; a text of a pair task is two texts.

        What is wrong with one item is said in its place (`error`), and the others are predicted. Raises InputError for what is
        no list of items.
        """
        if isinstance(items, str | Mapping) or not all(
            isinstance(item, list | tuple) and len(item) == 2 for item in items
        ):
            raise InputError('predict takes a list of (task, text), such as [("reviews", "Lovely.")]')
        with self._pinned({name for name, _ in items if isinstance(name, str)}) as named:
            return self._predicted(items, named)

    def predict_all(self, texts: Sequence[Text], tasks: Sequence[str] | None = None) -> list[dict[str, TaskPrediction]]:
        """For each text a TaskPrediction by name of the task, of all tasks or of those called `tasks`.

        What no task has changed is computed once for all of them. A task that takes pairs, given one text, says so in its place.
        """
        if isinstance(texts, str | Mapping) or isinstance(tasks, str):
            raise InputError(
                "predict_all takes a list of texts, and a list of names of tasks; for one text write [text]"
            )
        names = [*self._names] if tasks is None else [*dict.fromkeys(tasks)]
        with self._pinned({*names}) as named:
            names = [
                name for name in names if tasks is not None or name in named
            ]  # one may have been removed meanwhile
            found = self._predicted([(name, text) for text in texts for name in names], named)
        per_text = (
            [found[i : i + len(names)] for i in range(0, len(found), len(names))] if names else [[] for _ in texts]
        )
        return [{each.task: each for each in of_text} for of_text in per_text]

    def hold(self, names: set[str]) -> AbstractContextManager[Versions]:
        """The versions that `names` stand for now, those of them that there are; kept until the block ends."""
        return self._pinned(names)

    def are_resident(self, versions: Versions) -> bool:
        """Whether the values of all of them are in memory."""
        return all(map(self._residents.has, versions.values()))

    def bring_back(self, versions: Versions) -> None:
        """Reads values that have left memory, so that no batch waits for them; what cannot be read is told by `compute`."""
        for served in versions.values():
            if not self._residents.has(served):
                try:
                    self._residents.values(served)
                except InputError:
                    continue
                self._residents.done(served)

    def compute(self, items: Sequence[ReadItem]) -> list[TaskPrediction]:
        """One TaskPrediction for each, in order, of any number of calls of `read`."""
        found: list[TaskPrediction | None] = [None] * len(items)
        for read in self._batches.logits([replace(item.read, number=i) for i, item in enumerate(items)]):
            found[read.number] = _prediction(items[read.number].task, read)
        return [each for each in found if each is not None]

    def work(self, item: ReadItem, *, new_text: bool) -> float:
        """Tokens' worth of passes that it takes, where tasks before it in the batch have read the text too, or none has."""
        read = item.read
        return read.tokens if new_text or not read.served.mixed else self._batches.own_tokens(read)

    def _described(self, name: str, of: ServedDelta) -> ServedTask:
        return ServedTask(
            name, of.version, of.task.kind, of.task.classes, of.method, of.head, of.task.text_columns,
            of.max_length, of.layout.row_bytes, of.mixed, of.first_layer, self._residents.has(of), *(of.score or (None, None)),
        )  # fmt: skip

    def _publish(self, name: str, run: Trained, *, new: bool) -> str:
        """What `add` and `replace` do."""
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{name!r} is no name for a task: give a few letters")
        self._check_name(name, new=new)
        delta = delta_of(run)
        served = self._models.describe(delta, _place(run))
        # In memory before anybody is told: loading holds nobody up.
        self._residents.take(served, delta)
        try:
            with self._lock:
                self._check_name(name, new=new)
                old = self._names.get(name)
                self._names[name] = served
        except BaseException:  # an interrupt too
            self._residents.release(served)
            raise
        if old is not None:
            self._residents.release(old)
        return served.version

    def _check_name(self, name: str, *, new: bool) -> None:
        if new and name in self._names:
            raise InputError(f"there is a task {name!r} already: `replace` it, or add this one under another name")
        if not new and name not in self._names:
            raise InputError(self._unknown(name))

    def _unknown(self, name: Any) -> str:
        if not isinstance(name, str):
            return f"{name!r:.60} is no name of a task"
        names = [*self._names]  # others may change them while they are compared
        known = f"known tasks: {', '.join(names[:10])}" if names else "the pool has none yet"
        return f"there is no task {name!r:.60}{suggestion(name, names)}; {known}"

    @contextmanager
    def _pinned(self, names: set[str]) -> Iterator[dict[str, ServedDelta]]:
        """The versions that `names` stand for now, those of them that there are; kept until the block ends."""
        found: dict[str, ServedDelta] = {}
        try:
            with self._lock:
                for name in names & self._names.keys():
                    self._residents.keep(self._names[name])
                    found[name] = self._names[name]
            yield found
        finally:
            for served in found.values():
                self._residents.release(served)

    def _predicted(self, items: Sequence[tuple[str, Text]], named: Versions) -> list[TaskPrediction]:
        """What `predict` returns, by the versions `named`."""
        read = self.read(items, named)
        computed = iter(self.compute([each for each in read if isinstance(each, ReadItem)]))
        return [next(computed) if isinstance(each, ReadItem) else each for each in read]

    def read(
        self, items: Sequence[tuple[str, Text]], named: Versions, *, truncate: bool = True
    ) -> list[ReadItem | TaskPrediction]:
        """Each item as tokens, for `compute`, or what is wrong with it; by the versions `named`, which `hold` gives.

        Without `truncate`, a text of more tokens than its task reads is refused.
        """
        found: list[ReadItem | TaskPrediction | None] = [None] * len(items)
        usable: list[tuple[int, ServedDelta, tuple[str, ...]]] = []
        unknown: dict[str, str] = {}
        for i, (name, text) in enumerate(items):
            served = named.get(name) if isinstance(name, str) else None
            if served is None:
                key = name if isinstance(name, str) else repr(name)
                if key not in unknown:  # names are compared once, however many texts there are
                    unknown[key] = self._unknown(name)
                found[i] = _refused(name, "unknown_task", unknown[key])
                continue
            texts = read_text(text, len(served.task.text_columns), self._most_letters)
            if isinstance(texts, Refusal):
                found[i] = replace(_refused(name, texts.code, texts.message), version=served.version)
            else:
                usable.append((i, served, texts))
        for read in self._tokens(usable, truncate):
            name = items[read.number][0]
            found[read.number] = ReadItem(name, read) if read.logits is None else _prediction(name, read)
        return [each for each in found if each is not None]

    def _tokens(self, usable: Sequence[Usable], truncate: bool) -> Iterator[Read]:
        """The items as tokens; of a long text only the first characters are read, where no token is lost by it."""
        if not truncate:
            for read in self._batches.read(usable):
                limit = read.served.max_length
                said = (
                    f"the text has {read.whole:,} tokens, and the task reads {limit:,}: give a part, or let it be cut"
                )
                yield replace(read, logits=Refusal("text_too_long", said)) if read.truncated else read
            return
        short: dict[int, str] = {}
        for i, served, texts in usable if self._shortens else ():
            if len(texts) == 1 and (first := first_letters(texts[0], served.max_length)) is not None:
                short[i] = first
        again = set()
        for read in self._batches.read([(i, of, (short[i],) if i in short else texts) for i, of, texts in usable]):
            if read.number in short and not read.truncated:  # so few tokens in so many letters
                again.add(read.number)
            else:
                yield read
        yield from self._batches.read([each for each in usable if each[0] in again])


def _place(run: Any) -> Path | None:
    """The folder that a run's delta can be read from again."""
    if isinstance(run, str | Path):
        return Path(run).absolute()
    return run.folder.absolute() if isinstance(run, Run) and run.folder is not None else None


def _refused(name: Any, code: str, message: str) -> TaskPrediction:
    return TaskPrediction(task=name if isinstance(name, str) else "", error=message, code=code)


def _prediction(name: str, read: Read) -> TaskPrediction:
    """The TaskPrediction of what was read, computed or refused."""
    served = read.served
    assert read.logits is not None
    if isinstance(read.logits, Refusal):
        return replace(_refused(name, read.logits.code, read.logits.message), version=served.version)
    (said,) = predictions(served.task, read.logits[None])
    return TaskPrediction(**vars(said), task=name, version=served.version, tokens=read.tokens, truncated=read.truncated)
