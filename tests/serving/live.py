"""A server in a process of its own, as `trimtab serve` starts it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

LIMIT = 120.0  # seconds until a test takes it that something hangs


class LiveServer:
    """`trimtab serve` on that port, or a free one, until the block ends."""

    def __init__(self, *arguments: object, port: int = 0, **environment: str):
        self._command = [sys.executable, "-m", "trimtab", "serve", *map(str, arguments), "--port", str(port)]
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.log: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self._listens, self.url, self.port = threading.Event(), "", 0

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, env=self._environment, stderr=subprocess.PIPE, text=True)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        assert self._listens.wait(LIMIT)
        assert self.url, self.other_lines
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.ended()

    def told(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log about it."""
        return [line for line in [*self.log] if line["event"] == event]

    def ended(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(LIMIT)
        self._reading.join(LIMIT)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.other_lines.append(line)
                continue
            if self.log[-1]["event"] == "listening":
                self.url = self.log[-1]["url"]
                self.port = int(self.url.rsplit(":", 1)[1])
                self._listens.set()
        self._listens.set()  # it has ended


def until(is_so: Callable[[], bool]) -> None:
    """Waits for it."""
    end = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
