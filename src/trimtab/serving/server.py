"""The server: its connections and their deadlines, and its end."""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .metrics import Metrics
from .process import BACKLOG, allow_many_files
from .served import End
from .service import Service
from .settings import ServerSettings

_log = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep theirs, which else send on one that is closed just now
_MOST_HEAD_BYTES = 65_536


def serve(
    app: FastAPI, settings: ServerSettings, metrics: Metrics, sock: socket.socket,
    listens: Callable[[End], None] | None = None,
) -> None:  # fmt: skip
    """Answers requests on `sock` until the process is told to end (SIGTERM, SIGINT), and finishes those that wait.

    `listens` is for one of several workers: it is called once requests are taken, with what ends the server, and signals
    then end it as gently the second time.
    """
    allow_many_files()
    connection: Any = partial(Connection, settings, metrics)
    config = uvicorn.Config(
        app, http=connection, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS, backlog=BACKLOG,
        # Whose answers are read so slowly is not waited for.
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    # What is here now stays: looking through it for garbage again and again would hold up requests.
    gc.collect()
    gc.freeze()
    _Server(config, app.state.service, metrics, listens).run(sockets=[sock])


class _Server(uvicorn.Server):
    """uvicorn's server, which goes on answering while what waits is computed."""

    def __init__(
        self, config: uvicorn.Config, service: Service, metrics: Metrics, listens: Callable[[End], None] | None
    ):
        super().__init__(config)
        self._service, self._metrics, self._listens = service, metrics, listens
        self._asked: float | None = None  # when it was told to end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes that the process is to end; told twice, it ends at once."""
        # systemd tells a worker, and then so does the process that began it, which was told too: that is once.
        self.end(self._asked is not None and self._listens is None)

    def end(self, at_once: bool) -> None:
        """Ends it; from any thread."""
        if at_once:
            self.should_exit = True
        self._asked = self._asked or time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, and says where it listens."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            _log.info("listening", extra={"fields": {"url": url, "tasks": len(self._service.pool)}})
        if self._listens is not None:
            self._listens(self.end)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now: once nothing waits any more, or it has waited for long enough."""
        if counter % 10 == 0:  # a second
            self._metrics.publish()
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
