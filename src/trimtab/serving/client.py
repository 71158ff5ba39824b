"""Client: the tasks of a server, by the pool's two verbs. It needs neither torch nor the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Self, TypeVar

import httpx

from ..errors import InputError
from .contract import ServedTask, TaskPrediction, Text
from .remote import AnsweredError, Remote
from .settings import ServerSettings
from .wire import (
    AROUND_BYTES,
    as_json,
    as_sent,
    items_body,
    read_predictions,
    read_tasks,
    refusal,
    refused_name,
    refused_text,
    texts_body,
)

T = TypeVar("T")

_LIMITS = ServerSettings()  # of a server that was not told others; for lower ones requests are halved
# Of texts times tasks in a request, some 50,000 tokens: fewer than may wait in a server, so that it comes in beside others.
_WORK_BYTES = 200_000
_FIRST_SIZE = 256  # predictions of a request; more where the server is fast, fewer where it is slow:
_FAST_SECONDS, _SLOW_SECONDS = 0.5, 5.0
_OF_AN_ITEM = ("unknown_task", "bad_text", "empty_text", "text_too_long", "unavailable", "damaged", "internal")


class Client:
    """Tasks of a server: `predict` for texts of different tasks at once, `predict_all` for all tasks of a text.

    Both return what those of a Pool return. Any number of threads may use it.
    """

    def __init__(
        self, url: str, token: str | None = None, timeout_seconds: float = 30.0, *,
        transport: httpx.BaseTransport | None = None,
    ):  # fmt: skip
        """`url` is where `trimtab serve` listens; `token` is by default that of the environment (TRIMTAB_TOKEN), if any.

        `timeout_seconds` bounds one request, of which many texts take several; a server that is too busy is asked again for as
        long, when it says. `transport` is httpx's, where another is needed. Raises InputError for what is no URL; nothing is
        asked before the first call.
        """
        self._remote = Remote(url, token, timeout_seconds, transport)
        self._size = _FIRST_SIZE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._remote.url!r})"

    def close(self) -> None:
        """Closes the connections to the server."""
        self._remote.close()

    @property
    def tasks(self) -> dict[str, ServedTask]:
        """All tasks that are served now, by name.

        Raises InputError, as all that asks the server, where it does not answer, where it wants another token, and where it is
        no server of trimtab.
        """
        return self._read(read_tasks, self._remote.get("/v1/tasks"))

    def predict(self, items: Sequence[tuple[str, Text]]) -> list[TaskPrediction]:
        """One TaskPrediction for each (task, text), in order; a text of a pair task is two texts.

        What is wrong with one item is said in its place (`error`), and the others are predicted. Raises InputError for what is
        no list of items, and where the server has no answer.
        """
        if isinstance(items, str | Mapping) or not all(
            isinstance(item, list | tuple) and len(item) == 2 for item in items
        ):
            raise InputError('predict takes a list of (task, text), such as [("reviews", "Lovely.")]')
        found: dict[int, TaskPrediction] = {}
        sent: list[tuple[int, tuple[str, Any]]] = []
        for i, (name, text) in enumerate(items):
            refused = refused_name(name) or refused_text(text)
            if refused is None:
                sent.append((i, (name, as_sent(text))))
            else:
                found[i] = refusal(name, refused)
        for part in self._parts(sent, 1, _LIMITS.most_predictions):
            found |= zip([i for i, _ in part], self._of_items([item for _, item in part]), strict=True)
        return [found[i] for i in range(len(items))]

    def predict_all(self, texts: Sequence[Text], tasks: Sequence[str] | None = None) -> list[dict[str, TaskPrediction]]:
        """For each text a TaskPrediction by name of the task, of all tasks or of those called `tasks`.

        A task that takes pairs, given one text, says so in its place. Without `tasks` the server is asked for their names first.
        """
        if isinstance(texts, str | Mapping) or isinstance(tasks, str):
            raise InputError(
                "predict_all takes a list of texts, and a list of names of tasks; for one text write [text]"
            )
        names = [*self.tasks] if tasks is None else [*dict.fromkeys(tasks)]
        no_names, no_texts = [refused_name(name) for name in names], [refused_text(text) for text in texts]
        good = [name for name, refused in zip(names, no_names, strict=True) if refused is None]
        sent = [(i, as_sent(text)) for i, text in enumerate(texts) if no_texts[i] is None] if good else []
        found: dict[tuple[int, str], TaskPrediction] = {}
        for at in range(0, len(good), _LIMITS.most_tasks):
            block = good[at : at + _LIMITS.most_tasks]
            for part in self._parts(sent, len(block), _LIMITS.most_texts, len(as_json(block))):
                predicted = iter(self._of_texts([text for _, text in part], block))
                found |= {(i, name): next(predicted) for i, _ in part for name in block}
        answered: list[dict[str, TaskPrediction]] = []
        for i, no_text in enumerate(no_texts):
            of_text = [
                refusal(name, refused) if refused is not None else found[i, name]
                for name, no_name in zip(names, no_names, strict=True)
                for refused in [no_name or no_text]
            ]
            # One may have been removed since the server named it.
            answered.append({each.task: each for each in of_text if tasks is not None or each.code != "unknown_task"})
        return answered

    def _parts(self, rows: Sequence[T], width: int, most_rows: int, more_bytes: int = 0) -> Iterator[list[T]]:
        """The rows, of `width` predictions each, in parts for a request each, of the size that the server is fast enough for."""
        part: list[T] = []
        n_bytes = more = AROUND_BYTES + more_bytes
        for row in rows:
            own = len(as_json(row)) + 30  # around it
            most = min(most_rows, min(self._size, _LIMITS.most_predictions) // width)
            too_large = n_bytes + own > _LIMITS.most_body_bytes or (n_bytes - more + own) * width > _WORK_BYTES
            if part and (len(part) >= most or too_large):
                yield part
                part, n_bytes = [], more
            part.append(row)
            n_bytes += own
        if part:
            yield part

    def _of_items(self, items: Sequence[tuple[str, Any]]) -> list[TaskPrediction]:
        """What is said of items; they are halved for a server for which they are too many."""
        halves = (
            (lambda: self._of_items(items[: len(items) // 2]), lambda: self._of_items(items[len(items) // 2 :]))
            if len(items) > 1
            else None
        )
        return self._asked(items_body(items), [name for name, _ in items], halves)

    def _of_texts(self, texts: Sequence[Any], names: Sequence[str]) -> list[TaskPrediction]:
        """What each task says of each text, all of the first text first; halved as items are."""
        if len(texts) > 1:
            middle = len(texts) // 2
            halves = (lambda: self._of_texts(texts[:middle], names), lambda: self._of_texts(texts[middle:], names))
        else:
            middle = len(names) // 2
            halves = (lambda: self._of_texts(texts, names[:middle]), lambda: self._of_texts(texts, names[middle:]))
        return self._asked(texts_body(texts, names), [*names] * len(texts), halves if middle else None)

    def _asked(
        self, body: bytes, names: Sequence[str], halves: Sequence[Callable[[], list[TaskPrediction]]] | None
    ) -> list[TaskPrediction]:
        """What the server says to a request for a prediction of each of `names`, or to its halves."""
        began = monotonic()
        try:
            said = self._remote.post("/v1/predict", body)
        except AnsweredError as error:
            if error.is_too_much and halves is not None:
                self._size = max(1, len(names) // 2)
                return [each for half in halves for each in half()]
            if len(names) > 1:
                raise
            # Of one item the server refuses the whole request.
            if error.status == 413:
                return [refusal(names[0], ("text_too_long", "the text is longer than a request may be: give a part"))]
            if error.code not in _OF_AN_ITEM:
                raise
            return [refusal(names[0], (error.code, error.said))]
        seconds = monotonic() - began
        if seconds < _FAST_SECONDS and len(names) >= self._size // 2:
            self._size = min(_LIMITS.most_predictions, 2 * self._size)
        elif seconds > _SLOW_SECONDS:
            self._size = max(1, self._size // 2)
        return self._read(lambda each: read_predictions(each, len(names)), said)

    def _read(self, read: Callable[[Any], T], said: Any) -> T:
        """What `read` makes of an answer; raises InputError where it is none of a server of trimtab."""
        try:
            return read(said)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._remote.not_ours("what it answers is none") from None
