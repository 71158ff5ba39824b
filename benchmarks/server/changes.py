"""Predictions while tasks are loaded, replaced and removed: each is compared with what its version predicts offline."""

import asyncio
import json
import random
import secrets
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from client import Answer, Client, post, request, with_client
from served import Found, Served
from servers import Server, trimtab_server

import trimtab
from trimtab.changes.delta_header import TENSORS
from trimtab.files import replacing
from trimtab.tasks.predictions import Prediction

METHODS = ("layer_norms", "biases", "last_layers:k=1", "lora:rank=4")
VERSIONS = 12  # in turn of these methods
KEPT, FLEETING = 8, 8  # tasks that are always there, and that come and go
TEXTS = 200  # different ones, of random lengths
TOLERANCE = 1e-4  # of probabilities, in float32
IN_FLIGHT = 32
CHANGE_SECONDS = 0.25  # between two changes
SAMPLES = 100  # of memory


class Versions:
    """Deltas on disk, and what each says of each text."""

    def __init__(self, served: Served, folder: Path):
        draw = random.Random(0)
        words = sorted({word for text in served.texts for word in text.split()})
        # Most are short, as 100,000 requests are to take minutes, and some are not.
        self.texts = [" ".join(draw.choices(words, k=1 + int(draw.expovariate(1 / 10)))) for _ in range(TEXTS)]
        self.files: dict[str, Path] = {}  # by version
        self.offline: dict[str, list[Prediction]] = {}
        for number in range(VERSIONS):
            delta = served.delta(METHODS[number % len(METHODS)], number)
            version = delta.sha256[:12]
            self.files[version] = delta.save(folder / version)
            predictor = trimtab.Predictor(delta, served.encoder)
            predictor.prepared.use("float32")
            self.offline[version] = trimtab.predict(predictor, self.texts)

    def is_right(self, said: dict[str, Any], text: int) -> bool:
        """Whether it is what its version says, up to rounding, which may decide between two classes as likely as each other."""
        expected = self.offline[said["version"]][text]
        told, mine = expected.probabilities or {}, said["probabilities"]
        if mine.keys() != told.keys() or any(abs(mine[name] - told[name]) > TOLERANCE for name in told):
            return False
        first, second = sorted(told.values(), reverse=True)[:2]
        return said["label"] == expected.label or first - second <= TOLERANCE


@dataclass
class Task:
    """A task as whoever changes it knows it."""

    name: str
    fleeting: bool
    version: str | None = (
        None  # that is served for certain; None while it changes, or where the server is to notice by itself
    )
    changes: int = 0


@dataclass
class Counts:
    """What has been seen."""

    requests: int = 0
    predictions: int = 0
    wrong: int = 0
    lost: int = 0
    stale: int = 0  # of another version than the one that the server had said it has, before the request was sent
    absent: int = 0  # of tasks that come and go, and were not there
    changes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


class Load:
    """A server whose tasks change, and what is asked of it."""

    def __init__(self, versions: Versions, runs: Path, token: str):
        self.versions, self._runs, self.counts = versions, runs, Counts()
        self._headers = {"authorization": f"Bearer {token}"}
        self._draw = random.Random(1)
        self._tasks = [Task(f"task{i}", fleeting=i >= KEPT) for i in range(KEPT + FLEETING)]
        for task in self._tasks:
            task.version = self._write(task)

    async def ask_one(self, client: Client) -> None:
        """Asks for some texts of some tasks, and checks what comes."""
        draw = self._draw
        tasks = draw.sample(self._tasks, k=draw.randint(1, 2))
        texts = draw.sample(range(TEXTS), k=draw.choice((1, 1, 1, 1, 2)))
        body: dict[str, Any] = {"probabilities": True}
        if draw.random() < 0.5:
            body |= {"texts": [self.versions.texts[text] for text in texts], "tasks": [task.name for task in tasks]}
            asked = [(task, text) for text in texts for task in tasks]
        else:
            asked = [(draw.choice(tasks), text) for text in texts]
            body["items"] = [{"text": self.versions.texts[text], "task": task.name} for task, text in asked]
        known = {task.name: (task.changes, task.version) for task in tasks}
        answer = await client.ask(post("/v1/predict", body, **self._headers))
        self.counts.requests += 1
        self._check(answer, asked, known)

    def _check(self, answer: Answer, asked: list[tuple[Task, int]], known: dict[str, tuple[int, str | None]]) -> None:
        """Counts the predictions of an answer."""
        counts = self.counts
        if answer.status == 404 and all(task.fleeting for task, _ in asked):  # the only item, or all of the same task
            counts.absent += len(asked)
            return
        said = json.loads(answer.body)["predictions"] if answer.status == 200 else []
        if len(said) != len(asked):
            counts.lost += len(asked)
            counts.failures[f"status {answer.status}: {answer.body[:200]!r}"] += 1
            return
        for each, (task, text) in zip(said, asked, strict=True):
            if each["kind"] == "error":
                absent = task.fleeting and each["error"]["code"] == "unknown_task"
                counts.absent += absent
                counts.lost += not absent
                if not absent:
                    counts.failures[f"{task.name}: {each['error']}"] += 1
                continue
            counts.predictions += 1
            counts.wrong += each["task"] != task.name or not self.versions.is_right(each, text)
            changes, version = known[task.name]
            counts.stale += version not in (None, each["version"]) and changes == task.changes

    async def change_one(self, client: Client) -> None:
        """Adds, replaces or removes a task: by its folder alone, which the server is to notice, or by asking the server."""
        task, draw = self._draw.choice(self._tasks), self._draw
        by_folder = draw.random() < 0.3
        task.changes += 1
        task.version = None
        if task.fleeting and draw.random() < 0.4:
            shutil.rmtree(self._runs / task.name, ignore_errors=True)
            if not by_folder:  # it may be gone already, or never have come
                await self._told(client, request("DELETE", f"/v1/tasks/{task.name}", **self._headers), (204, 404))
            self.counts.changes[f"removed{', noticed' if by_folder else ''}"] += 1
            return
        version = self._write(task)
        if not by_folder:
            told = await self._told(client, request("PUT", f"/v1/tasks/{task.name}", **self._headers), (200,))
            task.version = json.loads(told.body)["version"] if told.status == 200 else None
            if task.version not in (None, version):
                self.counts.failures[f"PUT gives version {task.version} where {version} was written"] += 1
        self.counts.changes[f"written{', noticed' if by_folder else ''}"] += 1

    async def _told(self, client: Client, content: bytes, expected: tuple[int, ...]) -> Answer:
        answer = await client.ask(content)
        if answer.status not in expected:
            self.counts.failures[f"{content.split(b' HTTP')[0].decode()}: {answer.status} {answer.body[:200]!r}"] += 1
        return answer

    def _write(self, task: Task) -> str:
        """Puts a version in the place of a task's run, whole, and says which."""
        version = self._draw.choice([*self.versions.files])
        with replacing(self._runs / task.name / TENSORS) as path:
            shutil.copyfile(self.versions.files[version], path)
        return version


def changes(served: Served, wanted: list[str]) -> Found:
    """Asks as long as there are requests left, and time."""
    sizes, folder = served.sizes, served.folder / "changes"
    token = secrets.token_hex(16)
    load = Load(Versions(served, folder / "versions"), folder / "runs", token)
    options = ("--runs", folder / "runs", "--manage", "--compute", "float32")
    with trimtab_server(served.cores, served.folder, *options, TRIMTAB_TOKEN=token) as server:
        found = with_client(server.port, lambda client: _run(client, load, server, sizes.requests, 60 * sizes.minutes))
    yield "changes", {"tasks": KEPT + FLEETING, "versions": VERSIONS, "in_flight": IN_FLIGHT} | found


async def _run(client: Client, load: Load, server: Server, n_requests: int, most_seconds: float) -> dict[str, Any]:
    """What was counted, and how memory went."""
    clock, counts = asyncio.get_running_loop().time, load.counts
    began, memory = clock(), []

    def is_over() -> bool:
        return counts.requests >= n_requests or clock() - began > most_seconds or not server.is_running

    async def ask_on() -> None:
        while not is_over():
            await load.ask_one(client)
            if counts.requests >= len(memory) * n_requests / SAMPLES and server.is_running:
                memory.append((counts.requests, server.memory_bytes()["private_bytes"] / 1e6))

    async def change_on() -> None:
        while not is_over():
            await load.change_one(client)
            await asyncio.sleep(CHANGE_SECONDS)

    await asyncio.gather(change_on(), *(ask_on() for _ in range(IN_FLIGHT)))
    half = np.array(memory[len(memory) // 2 :])
    slope = float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) if len(half) > 2 else None
    return {
        "requests": counts.requests, "predictions": counts.predictions, "wrong": counts.wrong, "lost": counts.lost,
        "stale": counts.stale, "of_removed_tasks": counts.absent, "changes": dict(counts.changes),
        "failures": dict(counts.failures.most_common(5)), "seconds": round(clock() - began, 1),
        "asked_for": n_requests, "server_lives": server.is_running,
        "megabytes_per_10000_requests": None if slope is None else round(10_000 * slope, 3),
        "megabytes": [round(each, 1) for _, each in memory[:: max(1, len(memory) // 20)]],
    }  # fmt: skip
