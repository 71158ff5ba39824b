"""The server that one writes in ten minutes: FastAPI around `transformers.pipeline`, a model for each task.

    python benchmarks/server/plain_server.py MODEL... [--tasks N] [--held N] [--threads]

Task i has the i-th of the models, from the beginning again where there are fewer than tasks. All are loaded at start; with
`--held` so many at most are in memory, and others are read from disk when they are asked for. A request is computed in the event
loop, or with `--threads` in one of FastAPI's threads. Texts of a request that are of one task are computed in one batch.
"""

import argparse
import json
import os
import socket
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

KEEP_ALIVE_SECONDS = 75  # as ours


class Item(BaseModel):
    text: str
    task: int = 0


class Body(BaseModel):
    items: list[Item]


class Models:
    """Pipelines by the number of their task."""

    def __init__(self, folders: list[Path], n_tasks: int, n_held: int | None):
        self._folders, self._n_held = folders, n_held
        self._held: OrderedDict[int, Any] = OrderedDict()  # the one used last at the end
        self._lock = threading.Lock()  # while one is read
        for task in range(n_tasks if n_held is None else 0):
            self.of(task)

    def of(self, task: int) -> Any:
        """The pipeline of a task, read where it is not in memory."""
        with self._lock:
            if task not in self._held:
                if self._n_held is not None and len(self._held) >= self._n_held:
                    self._held.popitem(last=False)
                folder = str(self._folders[task % len(self._folders)])
                self._held[task] = pipeline("text-classification", model=folder, device="cpu")
            self._held.move_to_end(task)
            return self._held[task]

    def predict(self, items: list[Item]) -> list[dict[str, Any]]:
        """The likeliest class of each item."""
        by_task: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            by_task.setdefault(item.task, []).append(place)
        found: list[dict[str, Any]] = [{}] * len(items)
        for task, places in by_task.items():
            texts = [items[place].text for place in places]
            with torch.inference_mode():
                said = self.of(task)(texts, batch_size=len(texts), truncation=True)
            for place, each in zip(places, said, strict=True):
                found[place] = each
        return found


def application(models: Models, *, threads: bool) -> FastAPI:
    """The app: one route."""
    app = FastAPI()

    async def in_loop(body: Body) -> list[dict[str, Any]]:
        return models.predict(body.items)

    def in_thread(body: Body) -> list[dict[str, Any]]:
        return models.predict(body.items)

    app.post("/predict")(in_thread if threads else in_loop)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--held", type=int)
    parser.add_argument("--threads", action="store_true")
    options = parser.parse_args()
    app = application(Models(options.models, options.tasks, options.held), threads=options.threads)
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(
        json.dumps({"event": "listening", "url": f"http://127.0.0.1:{sock.getsockname()[1]}"}),
        file=sys.stderr,
        flush=True,
    )
    config = uvicorn.Config(app, access_log=False, log_level="error", timeout_keep_alive=KEEP_ALIVE_SECONDS)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
