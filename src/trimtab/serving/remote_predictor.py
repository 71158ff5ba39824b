"""A task of a server in the place of a run: `trimtab predict http://host:8000/reviews`."""

from __future__ import annotations

from typing import Self
from urllib.parse import unquote

from ..errors import InputError, shortened, suggestion
from ..inference.row_predictor import EMPTY, Predicted
from ..tasks.predictions import Prediction
from ..tasks.task import Rows, Task
from .client import Client
from .contract import ServedTask, TaskPrediction

_SECONDS = 120.0  # of a request: a file may wait longer than a person


class RemotePredictor:
    """A task of a server; predictions are those of its version at the beginning."""

    def __init__(self, url: str, token: str | None = None, timeout_seconds: float = _SECONDS):
        """`url` is that of the server, and behind it the name of the task.

        Raises InputError where the server does not answer, wants another token, or has no such task.
        """
        base, _, name = url.strip().rstrip("/").rpartition("/")
        self.name = unquote(name)
        if "//" not in base or base.endswith("/"):  # nothing behind the host
            with Client(url, token, timeout_seconds) as client:
                raise InputError(f"{url} names no task: put its name behind, /NAME; {_listed(client)}")
        self._client = Client(base, token, timeout_seconds)
        try:
            self.served = self._named(base)
        except BaseException:
            self.close()
            raise
        kind, columns = self.served.kind, self.served.text_columns
        self._task = Task(self.name, kind, self.served.classes, columns, "", "")  # pyright: ignore[reportArgumentType]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to the server."""
        self._client.close()

    @property
    def task(self) -> Task:
        """Its task, without rows."""
        return self._task

    @property
    def max_length(self) -> int:
        """Tokens that it reads of a text."""
        return self.served.max_length

    def predicted(self, rows: Rows) -> Predicted:
        """What the server says of rows; raises InputError where it cannot, or has another version of the task by now."""
        texts = [texts[0] if len(texts) == 1 else texts for texts in zip(*rows.texts, strict=True)]
        found = self._client.predict([(self.name, text) for text in texts])
        reasons: dict[int, str] = {}
        for i, each in enumerate(found):
            if each.code is None or each.version:
                self._check_version(each)
            if each.code is not None:
                if each.code not in ("bad_text", "empty_text", "text_too_long"):  # not a matter of this text
                    raise InputError(f"the server has no prediction for task {self.name!r}: {each.error}")
                reasons[i] = EMPTY if each.code == "empty_text" else str(each.error)
        said = [Prediction(each.label, each.probabilities, each.value, each.best_guess) for each in found]
        # What the encoder does not know the server does not tell.
        return Predicted(said, sum(each.truncated for each in found), None, reasons)

    def _named(self, base: str) -> ServedTask:
        """The task of that name; raises InputError where the server has none."""
        tasks = self._client.tasks
        if self.name not in tasks:
            raise InputError(
                f"{base} has no task {self.name!r:.60}{suggestion(self.name, tasks)}; {_listed(self._client)}"
            )
        return tasks[self.name]

    def _check_version(self, found: TaskPrediction) -> None:
        if found.version != self.served.version:
            raise InputError(
                f"task {self.name!r} was replaced on the server meanwhile ({self.served.version} by {found.version}), and "
                "predictions of both would be mixed: predict again"
            )


def _listed(client: Client) -> str:
    """The tasks that there are, in words."""
    names = [*client.tasks]
    return f"it has {shortened(names, 10)}" if names else "it has none yet"
