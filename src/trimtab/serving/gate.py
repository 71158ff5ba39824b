"""What every request passes before and after the app: its token, the size of its body, its line in the log."""

from __future__ import annotations

import hmac
import logging
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException

from .metrics import Metrics
from .settings import ServerSettings
from .waiting import RefusedError

_log = logging.getLogger("trimtab.requests")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = "trimtab.log"  # where in the scope the app notes what the log says of a request
OPEN = {"/", "/healthz/live", "/healthz/ready", "/docs", "/openapi.json"}  # without a token: they say nothing of tasks
_ROUTES = OPEN | {"/metrics", "/v1/predict", "/v1/tasks"}
_OF_TASK = re.compile(r"/v1/tasks/[^/]+(/predict)?")
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_HELD_BODIES = 64  # of the largest size, which may be in memory at once
_DROPPED_BYTES = 65_536  # a body of so many is read and dropped, so that the connection can stay open
REFUSED = {"overloaded": 429, "draining": 503, "deadline": 504}  # statuses of what a RefusedError says

# As text-embeddings-inference says them, by status.
_TEI_TYPES = {401: "Unauthorized", 429: "Overloaded", 503: "Unhealthy"}


def route_of(path: str) -> str:
    """The route of a path, of which there are few."""
    if path in _ROUTES:
        return path
    found = _OF_TASK.fullmatch(path)
    return "other" if found is None else f"/v1/tasks/{{task}}{found[1] or ''}"


def error_body(path: str, status: int, code: str, message: str, **more: Any) -> bytes:
    """The body of an error, in the form of whoever is asked."""
    message = message.encode(errors="backslashreplace").decode()
    if route_of(path) == "/v1/tasks/{task}/predict":
        return to_json(
            {"error": message, "error_type": _TEI_TYPES.get(status, "Validation" if status < 500 else "Backend")}
        )
    return to_json({"error": {"code": code, "message": message, **more}})


class Gate:
    """Wraps the app: refuses what has no token before its body is read, and bounds what is read."""

    def __init__(
        self, app: Application, settings: ServerSettings, metrics: Metrics, check_room: Callable[[float], None]
    ):
        """`check_room` raises RefusedError where a request that has so many seconds is refused whatever its body says."""
        self._app, self._settings, self._metrics, self._check_room = app, settings, metrics, check_room
        self._token = None if settings.token is None else settings.token.encode()
        self._held = 0  # bytes of bodies that are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the app's own beginning and end."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.monotonic()
        headers = {name: value for name, value in scope["headers"]}
        asked_id = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = asked_id if _ID.fullmatch(asked_id) else uuid.uuid4().hex
        noted: dict[str, Any] = {}
        scope[LOG] = noted
        status = 0  # none was sent: the client has gone

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._checked(scope, headers, receive, sending)
        except Exception:  # a fault of ours
            _log.exception("a request could not be answered", extra={"fields": {"id": request_id}})
            if not status:
                await _refuse(scope, sending, 500, "internal", "an error of the server, whose log says more")
        finally:
            route, seconds = route_of(scope["path"]), time.monotonic() - began
            self._metrics.requests.labels(route, status or "gone").inc()
            self._metrics.request_seconds.observe(seconds)
            fields = {"id": request_id, "method": scope["method"], "route": route, "status": status}
            _log.info("request", extra={"fields": fields | {"seconds": round(seconds, 6)} | noted})

    async def _checked(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """The app's answer, or a refusal."""
        if not self._may(scope["path"], headers.get(b"authorization", b"")):
            self._metrics.refused.labels("unauthorized").inc()
            said = "give the server's token, as the header Authorization: Bearer TOKEN"
            return await _refuse(scope, send, 401, "unauthorized", said, (b"www-authenticate", b"Bearer"))
        most = self._settings.most_body_bytes
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > most:
            self._metrics.refused.labels("too_large").inc()
            return await _refuse(scope, send, 413, "too_large", _too_large(most))
        seconds = seconds_of(headers.get(b"x-deadline-ms"), self._settings)
        if seconds is not None and scope["method"] == "POST" and scope["path"].endswith("/predict"):
            try:
                self._check_room(seconds)
            except RefusedError as refused:
                self._metrics.refused.labels(refused.code).inc()
                scope[LOG]["code"] = refused.code
                stays = b"transfer-encoding" not in headers and int(length) <= _DROPPED_BYTES
                more = [(name.encode(), value.encode()) for name, value in retry_headers(refused).items()]
                return await _refuse(
                    scope, send, REFUSED[refused.code], refused.code, str(refused), *more, closes=not stays
                )
        read = 0

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                read += size
                self._held += size
                if read > most:
                    raise HTTPException(413, _too_large(most), {"connection": "close"})
                if self._held > _HELD_BODIES * most:
                    raise HTTPException(
                        429, "too many requests are being received", {"connection": "close", "retry-after": "1"}
                    )
            return message

        try:
            await self._app(scope, receiving, send)
        finally:
            self._held -= read

    def _may(self, path: str, authorization: bytes) -> bool:
        """Whether a request may go on."""
        if self._token is None or path in OPEN:
            return True
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def seconds_of(asked: bytes | None, settings: ServerSettings) -> float | None:
    """How long a request may take whose header x-deadline-ms is `asked`; None where that is no such number."""
    if asked is None:
        return settings.deadline_seconds
    if not (asked.isdigit() and len(asked) < 12 and int(asked)):
        return None
    return min(settings.deadline_seconds, int(asked) / 1000)


def retry_headers(refused: RefusedError) -> dict[str, str]:
    """What says when to come again."""
    return {} if refused.retry_seconds is None else {"retry-after": str(math.ceil(refused.retry_seconds))}


async def _refuse(
    scope: Scope, send: Send, status: int, code: str, message: str, *headers: tuple[bytes, bytes], closes: bool = True
) -> None:
    """Sends an error, and has the connection closed, unless its body is small: what else comes on it is not read."""
    body = error_body(scope["path"], status, code, message)
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if closes:
        own.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


def _too_large(most: int) -> str:
    return f"the body has more than {most:,} bytes: send fewer texts at once"
