"""The app while its engine is held up, while tasks change and clients go."""

import asyncio
import json
import random
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import LIMIT, TEXTS, Client, asked, code, runs_of_kinds
from deltas import make_delta
from small import make_task

from trimtab.encoders.encoder import Encoder
from trimtab.inference.predictor import predict
from trimtab.serving.app import application
from trimtab.serving.pool import Pool
from trimtab.serving.settings import ServerSettings


@pytest.fixture
def pool(encoder: Encoder) -> Pool:
    return Pool(encoder, runs_of_kinds(encoder), compute="float32")


class Held:
    """Holds up a pool's computation, and says when it has begun."""

    def __init__(self, pool: Pool, monkeypatch: pytest.MonkeyPatch):
        self.begun, self.go, own = threading.Event(), threading.Event(), pool.compute

        def compute(items: Any) -> Any:
            self.begun.set()
            assert self.go.wait(LIMIT)
            return own(items)

        monkeypatch.setattr(pool, "compute", compute)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, LIMIT)


def test_too_much_is_refused_and_the_rest_is_computed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(pool, monkeypatch)
    app = application(pool, ServerSettings(most_waiting=4))

    async def ask(client: Client) -> None:
        def one() -> asyncio.Task[httpx.Response]:
            return asyncio.ensure_future(client.post("/v1/predict", json={"texts": [TEXTS[0]], "tasks": ["animals"]}))

        first = one()
        await held.has_begun()
        others = [one() for _ in range(4)]
        while app.state.service.dispatcher.waiting_requests < 4:
            await asyncio.sleep(0.001)
        refused = await one()
        assert code(refused) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        tei = await client.post("/v1/tasks/animals/predict", json={"inputs": "cat"})
        assert (tei.status_code, tei.json()["error_type"]) == (429, "Overloaded")
        # Before the body is looked at: a small one is dropped, behind a large one the connection ends.
        unread = await client.post("/v1/predict", content=b"{")
        assert code(unread) == (429, "overloaded")
        assert "connection" not in unread.headers
        assert (await client.post("/v1/predict", content=b" " * 100_000)).headers["connection"] == "close"
        assert (await client.get("/v1/tasks")).status_code == 200
        held.go.set()
        assert {(await each).status_code for each in (first, *others)} == {200}

    asked(app, ask)


def test_a_deadline_that_has_passed_is_told(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held, computed = Held(pool, monkeypatch), []
    held_up = pool.compute
    monkeypatch.setattr(pool, "compute", lambda items: computed.extend(items) or held_up(items))
    app = application(pool)
    body = {"texts": [TEXTS[0]], "tasks": ["animals"]}

    async def ask(client: Client) -> None:
        first = asyncio.ensure_future(client.post("/v1/predict", json=body))
        await held.has_begun()
        late = await client.post("/v1/predict", json=body, headers={"x-deadline-ms": "20"})
        assert code(late) == (504, "deadline")
        held.go.set()
        assert (await first).status_code == 200
        for bad in ("0", "-1", "x", "1.5", "9" * 30, "²"):
            answer = await client.post("/v1/predict", json=body, headers={b"x-deadline-ms": bad.encode()})
            assert code(answer) == (422, "invalid"), bad

    asked(app, ask)
    assert len(computed) == 1


def test_whoever_has_gone_is_not_computed_and_lets_go_of_its_task(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(pool, monkeypatch)
    app = application(pool)
    body = {"texts": [TEXTS[0]], "tasks": ["animals"]}

    async def ask(client: Client) -> None:
        first = asyncio.ensure_future(client.post("/v1/predict", json=body))
        await held.has_begun()
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "http_version": "1.1"}
        scope["headers"] = [(b"content-type", b"application/json")]
        messages = iter([{"type": "http.request", "body": json.dumps(body).encode()}])
        gone = asyncio.Event()

        async def receive() -> Any:
            for message in messages:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        leaving = asyncio.ensure_future(app(scope, receive, send))  # pyright: ignore[reportArgumentType]
        while not app.state.service.dispatcher.waiting_requests:
            await asyncio.sleep(0.001)
        gone.set()
        await leaving
        pool.remove("animals")
        held.go.set()
        assert (await first).status_code == 200  # by the version that it began with
        while not app.state.service.is_idle:
            await asyncio.sleep(0.001)
        for name in ("present", "count", "pairs"):
            pool.remove(name)
        assert pool.resident_bytes == 0

    asked(app, ask)


def test_tasks_that_have_left_memory_come_back_and_one_that_cannot_is_told(encoder: Encoder, tmp_path: Path) -> None:
    names = [f"task{i}" for i in range(6)]
    for i, name in enumerate(names):
        make_delta(encoder, make_task(), "layer_norms", i).save(tmp_path / name)
    one = Pool(encoder, {"a": tmp_path / "task0"}).tasks["a"].bytes
    pool = Pool(encoder, {name: tmp_path / name for name in names}, most_bytes=2 * one)

    async def ask(client: Client) -> None:
        found = (await client.post("/v1/predict", json={"texts": TEXTS})).json()["predictions"]
        assert {each["kind"] for each in found} == {"single_label"}
        here = names[0]
        await client.post("/v1/predict", json={"texts": ["cat"], "tasks": [here]})
        gone = next(name for name, task in pool.tasks.items() if not task.resident)
        (tmp_path / gone).rename(tmp_path / "elsewhere")
        answer = await client.post("/v1/predict", json={"texts": ["cat"], "tasks": [gone]})
        assert code(answer) == (503, "unavailable")
        assert str(tmp_path) not in answer.text
        other = await client.post("/v1/predict", json={"texts": ["cat"], "tasks": [gone, here]})
        assert [each["kind"] for each in other.json()["predictions"]] == ["error", "single_label"]
        (tmp_path / "elsewhere").rename(tmp_path / gone)
        assert (await client.post("/v1/predict", json={"texts": ["cat"], "tasks": [gone]})).status_code == 200

    asked(application(pool), ask)


def checked(given: Any, texts: list[str], names: list[str], offline: Any) -> int:
    """How many there are, each of which is that of the version that it names; task b may be away."""
    assert [(each["text"], each["task"]) for each in given] == [(i, name) for i in range(len(texts)) for name in names]
    for each in given:
        if each["kind"] == "error":
            assert (each["task"], each["error"]["code"]) == ("b", "unknown_task")
        else:
            assert each["label"] == offline[each["version"]][texts[each["text"]]]
    return sum(each["kind"] != "error" for each in given)


def test_predictions_stay_right_while_tasks_change_and_clients_go(encoder: Encoder) -> None:
    versions = [make_delta(encoder, make_task(), ("layer_norms", "lora:rank=2")[i % 2], i) for i in range(4)]
    offline = {
        run.sha256[:12]: {text: each.label for text, each in zip(TEXTS, predict(run, TEXTS, encoder), strict=True)}
        for run in versions
    }
    pool = Pool(encoder, {name: versions[0] for name in "abc"}, compute="float32")
    app = application(pool, ServerSettings(batch_tokens=64))
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            pool.replace("a", versions[turn % 4])
            pool.remove("b")
            pool.add("b", versions[(turn + 1) % 4])

    async def ask(client: Client) -> None:
        async def one(seed: int) -> int:
            draw = random.Random(seed)
            found = 0
            for _ in range(12):
                texts, names = draw.choices(TEXTS, k=draw.randint(1, 5)), draw.sample("abc", draw.randint(1, 3))
                asking = asyncio.ensure_future(client.post("/v1/predict", json={"texts": texts, "tasks": names}))
                if draw.random() < 0.2:
                    await asyncio.sleep(draw.random() / 50)
                    asking.cancel()
                    continue
                answer = await asking
                if answer.status_code == 404:  # the only task, just then
                    continue
                assert answer.status_code == 200, answer.text
                found += checked(answer.json()["predictions"], texts, names, offline)
            return found

        assert sum(await asyncio.gather(*map(one, range(16)))) > 200
        while not app.state.service.is_idle:
            await asyncio.sleep(0.001)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        asked(app, ask)
    finally:
        stop.set()
        changing.join()
    for name in pool.names:
        pool.remove(name)
    assert pool.resident_bytes == 0  # nobody holds any still


def test_a_server_that_ends_finishes_what_waits(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(pool, monkeypatch)
    app = application(pool)
    body = {"texts": [TEXTS[0]], "tasks": ["animals"]}

    async def ask(client: Client) -> None:
        first = asyncio.ensure_future(client.post("/v1/predict", json=body))
        await held.has_begun()
        second = asyncio.ensure_future(client.post("/v1/predict", json=body))
        while not app.state.service.dispatcher.waiting_requests:
            await asyncio.sleep(0.001)
        app.state.service.dispatcher.drain()
        assert code(await client.get("/healthz/ready")) == (503, "draining")
        assert (await client.get("/healthz/live")).status_code == 200
        assert code(await client.post("/v1/predict", json=body)) == (503, "draining")
        held.go.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]

    asked(app, ask)


def test_an_engine_that_is_stuck_is_seen(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(pool, monkeypatch)
    app = application(pool, ServerSettings(stuck_seconds=0.05))

    async def ask(client: Client) -> None:
        assert (await client.get("/healthz/live")).status_code == 200
        first = asyncio.ensure_future(client.post("/v1/predict", json={"texts": ["cat"], "tasks": ["animals"]}))
        await held.has_begun()
        await asyncio.sleep(0.1)
        assert code(await client.get("/healthz/live")) == (503, "stuck")
        assert code(await client.get("/healthz/ready")) == (503, "stuck")
        held.go.set()
        await first
        while not app.state.service.is_idle:
            await asyncio.sleep(0.001)
        assert (await client.get("/healthz/live")).status_code == 200

    asked(app, ask)
