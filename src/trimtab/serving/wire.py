"""Texts and predictions on their way between a client and a server: what can be sent, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .contract import ServedTask, TaskPrediction
from .settings import ServerSettings

AROUND_BYTES = 300  # of a body, around its texts and names
_MOST_TEXT_BYTES = ServerSettings.most_body_bytes - AROUND_BYTES - 8000  # with the longest name
_MOST_NAME_LETTERS = 1000  # longer ones the server refuses with the whole request

Refused = tuple[str, str]  # code and message: why an item is not sent


def as_json(value: Any) -> bytes:
    """A body, or a part of one, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def refused_name(name: Any) -> Refused | None:
    """Why nothing can be asked of a task of that name, whatever the server has."""
    if not isinstance(name, str):
        return "unknown_task", f"{name!r:.60} is no name of a task"
    if not name.isprintable() or len(name) > _MOST_NAME_LETTERS:
        return "unknown_task", f"there is no task {name!a:.60}"
    return None


def refused_text(text: Any) -> Refused | None:
    """Why a text, or a pair, cannot be sent: the server would refuse all that is sent with it."""
    parts = tuple(text) if isinstance(text, list | tuple) else (text,)
    if not all(isinstance(part, str) for part in parts):
        return "bad_text", f"{text!r:.60} is no text"
    if len(parts) not in (1, 2):
        return "bad_text", f"a task takes one text, or two as (first, second), and was given {len(parts)}"
    try:
        n_bytes = len(as_json(parts))
    except UnicodeEncodeError:  # half a character
        return "bad_text", f"the text is no valid Unicode: {text!a:.60}"
    if n_bytes > _MOST_TEXT_BYTES:
        return "text_too_long", f"the text has {n_bytes:,} bytes, more than a request may have: give a part"
    return None


def as_sent(text: Any) -> Any:
    """A text that is not refused, as the server takes it: a text, or a list of two."""
    return text if isinstance(text, str) else text[0] if len(text) == 1 else [*text]


def refusal(name: Any, refused: Refused, version: str = "") -> TaskPrediction:
    """What stands in the place of a prediction."""
    code, message = refused
    return TaskPrediction(task=name if isinstance(name, str) else "", version=version, error=message, code=code)


def read_predictions(said: Any, n_expected: int) -> list[TaskPrediction]:
    """The predictions of an answer to /v1/predict; raises KeyError, TypeError or ValueError where it is none."""
    found = [_prediction(each) for each in said["predictions"]]
    if len(found) != n_expected:
        raise ValueError(f"{len(found)} predictions where {n_expected} were asked for")
    return found


def _prediction(said: Mapping[str, Any]) -> TaskPrediction:
    """The TaskPrediction that a server has written as `schemas` describe it."""
    if said["kind"] == "error":
        error = said["error"]
        return refusal(said["task"], (error["code"], error["message"]), said.get("version", ""))
    of = {key: said[key] for key in ("task", "version", "tokens", "truncated")}
    if said["kind"] == "regression":
        return TaskPrediction(value=said["value"], **of)
    label = tuple(said["labels"]) if said["kind"] == "multi_label" else said["label"]
    return TaskPrediction(label, dict(said["probabilities"]), best_guess=said.get("best_guess"), **of)


def read_tasks(said: Any) -> dict[str, ServedTask]:
    """The tasks of an answer of /v1/tasks, by name; raises KeyError or TypeError where it is none."""
    return {each["name"]: _task(each) for each in said["tasks"]}


def _task(said: Mapping[str, Any]) -> ServedTask:
    lists = {"classes": tuple(said["labels"]), "text_columns": tuple(said["text_columns"])}
    plain = ("name", "version", "kind", "method", "head", "max_length", "bytes", "mixed", "first_layer", "resident")
    # An older server knows of no scores.
    return ServedTask(**lists, **{key: said[key] for key in plain}, metric=said.get("metric"), score=said.get("score"))


def items_body(items: Sequence[tuple[str, Any]]) -> bytes:
    """A body of texts, each for a task of its own."""
    listed = [{"task": name, "text": text} for name, text in items]
    return as_json({"items": listed, "probabilities": True})


def texts_body(texts: Sequence[Any], names: Sequence[str]) -> bytes:
    """A body of texts, each for all of some tasks."""
    return as_json({"texts": texts, "tasks": names, "probabilities": True})
