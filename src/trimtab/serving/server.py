"""The server's process: its socket, its connections and their deadlines, its end, and its log."""

from __future__ import annotations

import gc
import json
import logging
import socket
import sys
import time
import traceback
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import InputError
from .metrics import Metrics
from .service import Service
from .settings import ServerSettings

_log = logging.getLogger(__name__)
_BACKLOG = 2048  # connections that wait to be accepted
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep theirs, which else send on one that is closed just now
_MOST_HEAD_BYTES = 65_536
_MOST_FILES = 1 << 20


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; raises InputError where it cannot be had."""
    if not 0 <= port <= 65_535:
        raise InputError(f"--port {port}: from 0 (any that is free) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror}. Give another --port or --host."
        ) from error


def serve(app: FastAPI, settings: ServerSettings, metrics: Metrics, sock: socket.socket) -> None:
    """Answers requests on `sock` until the process is told to end (SIGTERM, SIGINT), and finishes those that wait."""
    write_json_lines()
    allow_many_files()
    connection: Any = partial(Connection, settings, metrics)
    config = uvicorn.Config(
        app, http=connection, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS, backlog=_BACKLOG,
        # Whose answers are read so slowly is not waited for.
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    # What is here now stays: looking through it for garbage again and again would hold up requests.
    gc.collect()
    gc.freeze()
    _Server(config, app.state.service).run(sockets=[sock])


class _Server(uvicorn.Server):
    """uvicorn's server, which goes on answering while what waits is computed."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service
        self._asked: float | None = None  # when it was told to end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes that the process is to end; told twice, it ends at once."""
        if self._asked is not None:
            self.should_exit = True
        self._asked = self._asked or time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, and says where it listens."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            _log.info("listening", extra={"fields": {"url": url, "tasks": len(self._service.pool)}})

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now: once nothing waits any more, or it has waited for long enough."""
        if self._asked is not None and not self.should_exit:
            if not self._service.dispatcher.is_draining:
                _log.info("draining", extra={"fields": {"requests": self._service.waiting_requests}})
                self._service.dispatcher.drain()
            waited, settings = time.monotonic() - self._asked, self._service.settings
            if waited >= settings.drain_seconds:
                self._service.dispatcher.abandon()  # who waits is told, and is sent that before connections close
                self.should_exit = True
            elif waited >= settings.drain_delay:
                self.should_exit = self._service.is_idle
        return await super().on_tick(counter)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with a time until which a request must have come whole; uvicorn itself waits without end."""

    def __init__(self, settings: ServerSettings, metrics: Metrics, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._settings, self._metrics = settings, metrics
        self._timer: Any = None
        self._in_head = self._receiving = False
        self._head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm(self._settings.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MOST_HEAD_BYTES:
            self._close()
        elif self._timer is None and not self.transport.is_closing():
            self._arm(self._settings.head_seconds)  # something between two requests

    def on_message_begin(self) -> None:
        self._in_head = self._receiving = True
        self._head_bytes = 0
        self._arm(self._settings.head_seconds)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._arm(self._settings.body_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving = False
        # By then the app has given up, and whoever has not read its answer never will.
        self._arm(self._settings.deadline_seconds + 30)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self._receiving:
            self._disarm()
        super().on_response_complete()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._close)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._metrics.refused.labels("slow").inc()
        self.transport.abort()


def allow_many_files() -> None:
    """Lets the process have as many files and connections open as it may at most."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class JsonLines(logging.Formatter):
    """Each record as one line of JSON; of an exception where it was raised and its kind, but not its message, which may
    repeat what was sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"logger": record.name, "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["exception"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def write_json_lines() -> None:
    """Has all that is logged here, and by uvicorn and asyncio, written to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("trimtab", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "trimtab" else logging.WARNING)
