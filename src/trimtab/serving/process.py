"""What a process of the server has before torch is there: a socket, files enough, and its log."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
import traceback
from typing import Any

from ..errors import InputError

BACKLOG = 2048  # connections that wait to be accepted
_MOST_FILES = 1 << 20


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; raises InputError where it cannot be had."""
    if not 0 <= port <= 65_535:
        raise InputError(f"--port {port}: from 0 (any that is free) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror}. Give another --port or --host."
        ) from error


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

    def __init__(self, worker: int | None = None):
        """`worker` is the number of this process, where several serve."""
        super().__init__()
        self._of: dict[str, Any] = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {**self._of, "logger": record.name, "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["exception"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def write_json_lines(worker: int | None = None) -> None:
    """Has all that is logged here, and by uvicorn and asyncio, written to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(worker))
    for name in ("trimtab", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "trimtab" else logging.WARNING)
