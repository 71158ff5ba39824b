"""What is asked of a pool and what it says, in this process or behind a URL. Known without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..tasks.predictions import Prediction

Text = str | tuple[str, str]  # or a list of two


@dataclass(frozen=True)
class TaskPrediction(Prediction):
    """What a task says of one text, or why it says nothing."""

    task: str = ""
    version: str = ""  # of the delta: the first 12 digits of its SHA-256
    tokens: int = 0  # that were read of the text
    truncated: bool = False  # whether the text had more
    error: str | None = None  # what is wrong with this text or task; the rest then is empty
    code: str | None = None  # of the error, for programs

    def as_json(self) -> dict[str, Any]:
        """What is there of it: the prediction with its version, or the error."""
        if self.error is not None:
            return {"task": self.task, "error": {"code": self.code, "message": self.error}}
        described = {"task": self.task, "version": self.version, "tokens": self.tokens, "truncated": self.truncated}
        return described | super().as_json()


@dataclass(frozen=True)
class ServedTask:
    """A task of a pool, for people."""

    name: str
    version: str
    kind: str  # "single_label", "multi_label" or "regression"
    classes: tuple[str, ...]
    method: str
    head: str
    text_columns: tuple[str, ...]  # of the data that it was trained on: one name, or two for pairs
    max_length: int  # tokens
    bytes: int  # that its values take in memory
    mixed: bool  # whether its texts share passes with those of other tasks
    first_layer: int  # that it computes by itself; below it, a text that other tasks read too is computed once for all
    resident: bool  # whether its values are in memory now
    metric: str | None = None  # that its run was chosen by, where the delta says so
    score: float | None = None  # of its run on validation rows, by that metric, as the delta says

    @property
    def pair(self) -> bool:
        """Whether it reads two texts."""
        return len(self.text_columns) > 1
