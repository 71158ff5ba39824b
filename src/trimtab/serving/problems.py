"""What is said where a request has no answer: one shape for all, which never repeats what was sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .contract import TaskPrediction
from .gate import LOG, REFUSED, error_body, retry_headers
from .metrics import Metrics
from .waiting import RefusedError

_log = logging.getLogger(__name__)

_STATUS = {  # of what is wrong with an item, where it is the only one; and of what is refused
    "unknown_task": 404, "bad_text": 422, "empty_text": 422, "text_too_long": 422, "unavailable": 503, "damaged": 503,
    **REFUSED,
}  # fmt: skip
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "overloaded",
    499: "gone",
}
_SAID = {  # in the place of messages that are for whoever runs the server
    "unavailable": "the values of the task cannot be read now",
    "internal": "an error of the server, whose log says more",
}
_MOST_DETAILS = 5


class ProblemError(Exception):
    """An answer that is none: its status, its code for programs, and what is wrong."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def check_only(predictions: Sequence[TaskPrediction]) -> None:
    """Raises ProblemError where what is wrong with an item is wrong with the whole request."""
    if len(predictions) == 1 and (each := predictions[0]).code is not None:
        raise ProblemError(_STATUS.get(each.code, 500), each.code, message_of(each))


def message_of(failed: TaskPrediction) -> str:
    """What is said of an item without a prediction; what is of the server's own files, only in its log."""
    assert failed.code is not None
    if failed.code in _SAID:  # what an unforeseen error says may repeat the text
        why = failed.error if failed.code == "unavailable" else "an exception, which is logged where it was raised"
        _log.warning("task %s has no prediction (%s): %s", failed.task, failed.code, why)
    return _SAID.get(failed.code, str(failed.error))


def say_problems(app: FastAPI, metrics: Metrics) -> None:
    """Errors in one shape, which never repeat what was sent: it may be no text that can be sent back."""

    def answer(request: Request, status: int, code: str, message: str, headers: Any = None, **more: Any) -> Response:
        request.scope[LOG]["code"] = code
        metrics.refused.labels(code).inc()
        content = error_body(request.url.path, status, code, message, **more)
        return Response(content, status, dict(headers or {}), "application/json")

    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error.status, error.code, error.message, error.headers)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return answer(request, REFUSED[error.code], error.code, str(error), retry_headers(error))

    @app.exception_handler(HTTPException)
    async def http_problem(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        return answer(request, error.status_code, code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        details = [
            {"loc": [_shown(part) for part in each["loc"]], "msg": _shown(each["msg"]), "type": each["type"]}
            for each in found[:_MOST_DETAILS]
        ]
        if any(_is_too_many(each) for each in found):
            return answer(request, 413, "too_many", f"a list has more than may be sent at once: {details[0]['msg']}")
        where = ".".join(map(str, details[0]["loc"])) if details else "body"
        message = f"{where}: {details[0]['msg']}" if details else "the request is not as it should be"
        if "json" not in request.headers.get("content-type", ""):
            message = "send the body as JSON, with the header Content-Type: application/json"
        return answer(request, 422, "invalid", message, details=details)


def _is_too_many(error: Mapping[str, Any]) -> bool:
    """Whether what is wrong is the length of a list of the body, and not of one of its entries."""
    where = error["loc"]
    return error["type"] == "too_long" and (len(where) == 2 or (len(where) == 3 and where[1] == "inputs"))


def _shown(part: Any) -> Any:
    """Part of a message, which may be of what was sent, as a text that can be sent."""
    return part if isinstance(part, int) else str(part).encode(errors="backslashreplace").decode()[:200]
