"""Servers in processes of their own, on the cores that are theirs."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
START_SECONDS = 900.0  # until it must listen: a hundred models take minutes


@dataclass(frozen=True)
class Cores:
    """Which cores servers have, and which the client."""

    server: frozenset[int]
    client: frozenset[int]

    @classmethod
    def divided(cls, *, share: bool) -> Self:
        """The client has the last core to itself, unless there is but one, they are to share, or the system cannot say."""
        if not hasattr(os, "sched_setaffinity"):
            every = frozenset(range(os.cpu_count() or 1))
            return cls(every, every)
        every = frozenset(os.sched_getaffinity(0))
        if share or len(every) < 2:
            return cls(every, every)
        last = frozenset({max(every)})
        return cls(every - last, last)

    @property
    def are_shared(self) -> bool:
        return bool(self.server & self.client)

    def as_json(self) -> dict[str, Any]:
        return {"server_cores": len(self.server), "client_cores": len(self.client), "shared_cores": self.are_shared}


def keep_to(cores: frozenset[int]) -> None:
    """Has this thread, and what it starts from now on, run on `cores` alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class Server:
    """A server until the block ends; it must say where it listens, as `trimtab serve` does. It logs into a file."""

    def __init__(self, command: Sequence[object], cores: Cores, log: Path, **environment: str):
        self._command = [sys.executable, *map(str, command)]
        self._cores, self._log = cores, log
        self._environment = os.environ | {"OMP_NUM_THREADS": str(len(cores.server))} | environment
        self.port = 0

    def __enter__(self) -> Self:
        keep_to(self._cores.server)
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=log
                )
        finally:
            keep_to(self._cores.client)
        try:
            self.port = self._wait()
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def _wait(self) -> int:
        """The port, once it listens; raises RuntimeError where it ends before, or takes too long."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            for line in self._log.read_text(errors="replace").splitlines():
                if '"listening"' in line and line.endswith("}"):
                    return int(json.loads(line)["url"].rsplit(":", 1)[1])
            time.sleep(0.01)
        raise RuntimeError(
            f"{' '.join(self._command)} does not listen: {self._log.read_text(errors='replace')[-2000:]}"
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def memory_bytes(self) -> dict[str, int]:
        """Memory that it holds, and what of it it shares with no file. Linux only."""
        resident, shared = (
            int(pages) * os.sysconf("SC_PAGE_SIZE")
            for pages in Path(f"/proc/{self._process.pid}/statm").read_text().split()[1:3]
        )
        return {"resident_bytes": resident, "private_bytes": resident - shared}

    def metrics(self) -> dict[str, float]:
        """Its counters, by their names with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def trimtab_server(cores: Cores, folder: Path, *arguments: object, **environment: str) -> Server:
    """`trimtab serve minilm` with these arguments; `folder` is for its log."""
    command = ["-m", "trimtab", "serve", "minilm", *arguments, "--port", 0]
    return Server(command, cores, folder / f"serve{time.monotonic_ns()}.log", **environment)


def plain_server(cores: Cores, folder: Path, models: Sequence[Path], *arguments: object) -> Server:
    """That of `plain_server.py`."""
    command = [HERE / "plain_server.py", *models, *arguments]
    return Server(command, cores, folder / f"plain{time.monotonic_ns()}.log")
