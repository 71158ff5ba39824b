"""The app, asked in memory: predictions as the pool has them, and errors of one shape."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import TEXTS, Client, asked, code, post, rounded, runs_of_kinds
from deltas import make_delta
from pydantic import TypeAdapter
from small import make_task

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.serving.app import application
from trimtab.serving.pool import Pool
from trimtab.serving.schemas import LabelScore, Predictions, TaskList
from trimtab.serving.settings import ServerSettings
from trimtab.serving.watched_runs import WatchedRuns

TOKEN = "0123456789abcdef"


@pytest.fixture
def runs(encoder: Encoder) -> dict[str, Delta]:
    return runs_of_kinds(encoder)


@pytest.fixture
def pool(encoder: Encoder, runs: dict[str, Delta]) -> Pool:
    return Pool(encoder, runs, compute="float32")


def test_texts_times_tasks_are_what_the_pool_says(pool: Pool) -> None:
    names = ["animals", "present", "count"]
    answer = post(application(pool), "/v1/predict", {"texts": TEXTS, "tasks": names, "probabilities": True})
    assert answer.status_code == 200
    found = Predictions.model_validate_json(answer.content)
    expected = [(i, of_text[name]) for i, of_text in enumerate(pool.predict_all(TEXTS, names)) for name in names]
    assert len(found.predictions) == len(expected)
    for given, (number, each) in zip(answer.json()["predictions"], expected, strict=True):
        assert (given["text"], given["task"], given["version"]) == (number, each.task, each.version)
        assert (given["tokens"], given["truncated"]) == (each.tokens, each.truncated)
        if given["kind"] == "regression":
            assert given["value"] == pytest.approx(each.value, abs=1e-5)
            continue
        assert given["probabilities"] == pytest.approx(each.probabilities, abs=1e-5)
        if given["kind"] == "multi_label":
            assert tuple(given["labels"]) == each.label
        else:
            assert given["label"] == each.label
            assert given["score"] == max(given["probabilities"].values())
    assert found.usage.tokens == sum(each.tokens for _, each in expected)
    assert answer.headers["x-compute-tokens"] == str(found.usage.tokens)


def test_items_have_tasks_of_their_own(pool: Pool) -> None:
    items = [
        {"task": "animals", "text": TEXTS[0]}, {"task": "pairs", "text": [TEXTS[0], TEXTS[1]]},
        {"task": "pairs", "text": {"text": TEXTS[0], "text_pair": TEXTS[1]}}, {"task": "count", "text": TEXTS[0]},
        {"task": "pairs", "text": TEXTS[0]}, {"task": "none", "text": TEXTS[0]}, {"task": "animals", "text": " "},
    ]  # fmt: skip
    answer = post(application(pool), "/v1/predict", {"items": items})
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    Predictions.model_validate(answer.json())
    assert [each["text"] for each in found] == [*range(7)]
    assert [each["kind"] for each in found] == [
        "single_label", "single_label", "single_label", "regression", "error", "error", "error",
    ]  # fmt: skip
    assert {**found[1], "text": 2} == found[2]
    assert [each["error"]["code"] for each in found[4:]] == ["bad_text", "unknown_task", "empty_text"]
    assert "probabilities" not in found[0]


def test_without_tasks_all_are_asked(pool: Pool) -> None:
    found = post(application(pool), "/v1/predict", {"texts": TEXTS[:2]}).json()["predictions"]
    assert [(each["text"], each["task"]) for each in found] == [(i, name) for i in range(2) for name in pool.names]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"texts": ["a"], "tasks": ["none"]}, (404, "unknown_task")),
        ({"texts": [" "], "tasks": ["animals"]}, (422, "empty_text")),
        ({"texts": ["a"], "tasks": ["pairs"]}, (422, "bad_text")),
        ({"texts": ["cat " * 50], "tasks": ["animals"], "truncate": False}, (422, "text_too_long")),
        ({"texts": ["c" * 200], "tasks": ["animals"]}, (422, "text_too_long")),
        ({"texts": ["\ud83d"], "tasks": ["animals"]}, (422, "bad_text")),
        ({"texts": ["a"], "tasks": ["\ud83d"]}, (422, "invalid")),
        ({"texts": ["a"], "\ud83d": 1}, (422, "invalid")),
        ({"texts": ["a"], "text": ["a"]}, (422, "invalid")),
        ({"texts": ["a"], "": ["a"]}, (422, "invalid")),
        ({"items": [{"task": "animals", "text": "a", "pair": "a"}]}, (422, "invalid")),
        ({"texts": ["a"], "truncate": float("nan")}, (422, "invalid")),
        ({"texts": float("inf")}, (422, "invalid")),
        ({"texts": 10**400}, (422, "invalid")),
        ({"texts": []}, (422, "invalid")),
        ({"texts": [["a", "b", "c"]]}, (422, "invalid")),
        ({}, (422, "invalid")),
        ([], (422, "invalid")),
        ({"texts": ["a"], "items": [{"text": "a", "task": "animals"}]}, (422, "invalid")),
        ({"tasks": ["animals"], "items": [{"text": "a", "task": "animals"}]}, (422, "invalid")),
        ({"texts": ["a"] * 9}, (413, "too_many")),
        ({"texts": ["a"] * 5000}, (413, "too_many")),
        ({"texts": ["a"], "tasks": [str(i) for i in range(9)]}, (413, "too_many")),
        ({"texts": ["a"] * 7, "tasks": ["a", "b", "c"]}, (413, "too_many")),
        ({"items": [{"text": "a", "task": "animals"}] * 21}, (413, "too_many")),
        (b"{", (422, "invalid")),
        (b"", (422, "invalid")),
        (b'{"texts": ["\xff"]}', (400, "bad_request")),
        (b'{"texts": ' + b"[" * 20_000, (400, "bad_request")),
        (b'{"texts": [' + b"9" * 5000 + b"]}", (400, "bad_request")),
        (b'{"texts": ["' + b"x" * 50_000 + b'"]}', (413, "too_large")),
    ],
)
def test_what_is_wrong_is_told_in_one_shape(encoder: Encoder, body: Any, expected: tuple[int, str]) -> None:
    settings = ServerSettings(most_texts=8, most_tasks=8, most_predictions=20, most_body_bytes=40_000)
    runs = {name: make_delta(encoder, make_task(pairs=name == "pairs"), "head") for name in ("animals", "pairs")}
    limited = Pool(encoder, runs, most_letters=150)
    answer = post(application(limited, settings), "/v1/predict", body)
    assert code(answer) == expected, answer.text
    assert answer.json()["error"]["message"]
    assert set(answer.json()) == {"error"}


def test_a_body_that_is_not_said_to_be_json_is_told_so(pool: Pool) -> None:
    answer = post(application(pool), "/v1/predict", {"texts": ["cat"]}, content_type="text/plain")
    assert code(answer) == (422, "invalid")
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_nul_is_a_character_like_others(pool: Pool) -> None:
    answer = post(application(pool), "/v1/predict", {"texts": ["the cat\0 runs"], "tasks": ["animals"]})
    assert answer.status_code == 200


def test_other_places_and_verbs_have_the_same_shape(pool: Pool) -> None:
    async def ask(client: Client) -> list[httpx.Response]:
        return [await client.get("/v2"), await client.delete("/v1/predict"), await client.get("/v1/tasks/none")]

    assert [code(each) for each in asked(application(pool), ask)] == [
        (404, "not_found"), (405, "method_not_allowed"), (404, "unknown_task"),
    ]  # fmt: skip


def test_a_body_is_bounded_while_it_comes(pool: Pool) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1000

    async def ask(client: Client) -> httpx.Response:
        return await client.post("/v1/predict", content=parts(), headers={"content-type": "application/json"})

    answer = asked(application(pool, ServerSettings(most_body_bytes=10_000)), ask)
    assert code(answer) == (413, "too_large")
    assert sent == 11
    assert answer.headers["connection"] == "close"


def test_the_token_is_asked_for_before_a_body_is_read(pool: Pool) -> None:
    settings, read = ServerSettings(token=TOKEN), 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{"

    async def ask(client: Client) -> list[httpx.Response]:
        wrong = ("", TOKEN, f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer é")
        found = [
            await client.post("/v1/predict", content=parts(), headers={b"authorization": each.encode()})
            for each in wrong
        ]
        found += [await client.get(path) for path in ("/v1/tasks", "/metrics", "/v1/tasks/animals", "/other")]
        return found

    answers = asked(application(pool, settings), ask)
    assert {code(each) for each in answers} == {(401, "unauthorized")}
    assert read == 0
    assert answers[0].headers["www-authenticate"] == "Bearer"

    async def ask_open(client: Client) -> list[int]:
        return [
            (await client.get(path)).status_code
            for path in ("/healthz/live", "/healthz/ready", "/docs", "/openapi.json")
        ]

    assert asked(application(pool, settings), ask_open) == [200] * 4
    for bearer in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        answer = post(application(pool, settings), "/v1/predict", {"texts": ["cat"]}, authorization=bearer)
        assert answer.status_code == 200


def test_the_form_of_others(pool: Pool) -> None:
    app = application(pool)
    text, pair = TEXTS[0], [TEXTS[0], TEXTS[1]]
    expected = pool.predict([("animals", text)])[0].probabilities
    assert expected is not None

    async def ask(client: Client) -> None:
        async def scores(task: str, **body: Any) -> Any:
            answer = await client.post(f"/v1/tasks/{task}/predict", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        one = await scores("animals", inputs=text)
        assert {each["label"]: each["score"] for each in one} == pytest.approx(expected, abs=1e-5)
        assert [each["score"] for each in one] == sorted((each["score"] for each in one), reverse=True)
        assert await scores("animals", inputs=[text]) == rounded(one)
        assert await scores("animals", inputs=[[text], [text]]) == rounded([one, one])
        assert await scores("animals", inputs=text, parameters={}) == rounded([one])
        assert await scores("animals", inputs=text, parameters={"top_k": 1}) == rounded([one[:1]])
        assert await scores(
            "animals", inputs=text, truncate=None, truncation_direction="Right", raw_scores=False
        ) == rounded(one)
        two = await scores("pairs", inputs=pair)
        TypeAdapter(list[LabelScore]).validate_python(two)
        assert await scores("pairs", inputs=[pair, pair]) == rounded([two, two])
        value = pool.predict([("count", text)])[0].value
        assert await scores("count", inputs=text) == [{"label": "value", "score": pytest.approx(value, abs=1e-5)}]

    asked(app, ask)


@pytest.mark.parametrize(
    ("task", "body", "status"),
    [
        ("none", {"inputs": "cat"}, 404),
        ("animals", {"inputs": ["cat", "dog"]}, 422),  # a pair
        ("animals", {"inputs": ["cat", "dog", "fish"]}, 422),
        ("animals", {"inputs": [["cat"], ["dog", "fish", "cat"]]}, 422),
        ("animals", {"inputs": [["cat"], []]}, 422),
        ("animals", {"inputs": []}, 422),
        ("animals", {"inputs": [["cat"], [" "]]}, 422),
        ("animals", {"inputs": "cat", "raw_scores": True}, 422),
        ("animals", {"inputs": "cat", "parameters": {"function_to_apply": "sigmoid"}}, 422),
        ("animals", {"inputs": "cat", "parameters": {"function_to_apply": "none"}}, 422),
        ("animals", {"inputs": "cat", "truncation_direction": "left"}, 422),
        ("animals", {"inputs": "cat " * 50, "truncate": False}, 422),
        ("animals", {"inputs": [["cat"]] * 257}, 413),
        ("animals", {"inputs": [["cat"]] * 5000}, 413),
        ("animals", {"inputs": ["cat"] * 5000}, 413),
        ("animals", {"inputs": "\ud83d"}, 422),
        ("animals", {"inputs": 3}, 422),
        ("animals", {"inputs": "cat", "parameters": {"function_to_apply": "softmax"}}, 200),
    ],
)
def test_what_is_wrong_in_the_form_of_others(pool: Pool, task: str, body: Any, status: int) -> None:
    answer = post(application(pool), f"/v1/tasks/{task}/predict", body)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert set(answer.json()) == {"error", "error_type"}
        assert isinstance(answer.json()["error"], str)


def test_tasks_are_described(pool: Pool) -> None:
    async def ask(client: Client) -> tuple[Any, Any]:
        return (await client.get("/v1/tasks")).json(), (await client.get("/v1/tasks/present")).json()

    listed, one = asked(application(pool), ask)
    assert [task.name for task in TaskList.model_validate(listed).tasks] == pool.names
    assert one == listed["tasks"][1]
    assert (one["kind"], one["labels"], one["pair"]) == ("multi_label", ["cat", "dog", "fish"], False)
    assert one["version"] == pool.tasks["present"].version


def test_tasks_are_changed_by_whoever_may(encoder: Encoder, runs: dict[str, Delta], tmp_path: Path) -> None:
    runs["animals"].save(tmp_path / "a")
    pool = Pool(encoder)
    watched = WatchedRuns(pool, {}, tmp_path, every_seconds=3600)
    watched.scan()
    bearer = {"authorization": f"Bearer {TOKEN}"}

    async def ask(client: Client) -> None:
        async def does(verb: str, name: str) -> tuple[int, Any]:
            answer = await client.request(verb, f"/v1/tasks/{name}")
            return answer.status_code, (answer.json() if answer.content else None)

        assert await does("DELETE", "a") == (204, None)
        assert (await does("GET", "a"))[0] == 404
        assert (await does("DELETE", "a"))[0] == 404
        status, task = await does("PUT", "a")
        assert (status, task["version"]) == (200, runs["animals"].sha256[:12])
        runs["present"].save(tmp_path / "b")
        assert (await does("PUT", "b"))[1]["kind"] == "multi_label"
        for name in ("none", "%2e%2e", "..%2fa", "%00", "%ed%a0%80"):
            assert (await does("PUT", name))[0] in (404, 405), name
        (tmp_path / "b" / "delta.safetensors").write_bytes(b"damaged")
        status, error = await does("PUT", "b")
        assert (status, error["error"]["code"]) == (422, "unusable_run")
        assert (await does("GET", "b"))[0] == 200

    app = application(pool, ServerSettings(token=TOKEN, manage=True), watched)
    asked(app, ask, **bearer)
    assert "put" in app.openapi()["paths"]["/v1/tasks/{task}"]

    async def may_not(client: Client) -> list[int]:
        return [(await client.put("/v1/tasks/a")).status_code, (await client.delete("/v1/tasks/a")).status_code]

    unmanaged = application(pool, ServerSettings(token=TOKEN), watched)
    assert asked(unmanaged, may_not, **bearer) == [404, 404]
    assert asked(application(pool, ServerSettings(token=TOKEN, manage=True), watched), may_not) == [401, 401]
    assert "put" not in unmanaged.openapi()["paths"]["/v1/tasks/{task}"]


def test_a_fault_of_ours_says_nothing_of_itself_and_the_next_is_computed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = pool.read
    monkeypatch.setattr(pool, "read", lambda *args, **options: 1 / 0)
    app = application(pool)

    async def ask(client: Client) -> None:
        body = {"texts": ["a secret cat"], "tasks": ["animals"]}
        answer = await client.post("/v1/predict", json=body)
        assert code(answer) == (500, "internal")
        assert "ZeroDivision" not in answer.text
        monkeypatch.setattr(pool, "read", own)
        assert (await client.post("/v1/predict", json=body)).status_code == 200

    asked(app, ask)
    assert "secret" not in caplog.text


def test_what_a_server_counts(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(pool)

    async def ask(client: Client) -> str:
        await client.post("/v1/predict", json={"texts": ["the red cat " * 20], "tasks": ["animals", "present", "none"]})
        await client.post("/v1/predict", json={"texts": ["cat"], "tasks": ["none"]})
        await client.get("/a/path/of/somebody")
        while not app.state.service.is_idle:
            await asyncio.sleep(0.001)
        return (await client.get("/metrics")).text

    lines = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in asked(app, ask).splitlines() if line[0] != "#"
    }
    assert lines['trimtab_requests_total{route="/v1/predict",status="200"}'] == 1
    assert lines['trimtab_requests_total{route="/v1/predict",status="404"}'] == 1
    assert lines['trimtab_requests_total{route="other",status="404"}'] == 1
    assert lines['trimtab_predictions_total{task="animals"}'] == 1
    assert lines['trimtab_failed_total{reason="unknown_task"}'] == 2
    assert lines["trimtab_truncated_total"] == 2
    assert lines["trimtab_batch_tasks_count"] == 1
    assert lines["trimtab_batch_tasks_sum"] == 2
    assert lines["trimtab_queue_seconds_count"] == 1
    assert lines["trimtab_tasks"] == 4
    assert lines["trimtab_task_bytes"] == pool.resident_bytes
    assert lines["trimtab_shared_prefix_tokens_total"] > 0


def test_the_description_has_a_schema_for_each_kind(pool: Pool) -> None:
    described = application(pool).openapi()
    items = described["components"]["schemas"]["Predictions"]["properties"]["predictions"]["items"]
    assert len(items["oneOf"]) == 4
    assert items["discriminator"]["propertyName"] == "kind"
    assert {"401", "404", "413", "422", "429", "503", "504"} <= described["paths"]["/v1/predict"]["post"][
        "responses"
    ].keys()


def test_the_description_says_what_asks_for_the_token(pool: Pool) -> None:
    described = application(pool, ServerSettings(token=TOKEN)).openapi()
    assert described["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    asks = {path: "security" in verb for path, verbs in described["paths"].items() for verb in verbs.values()}
    assert {path for path, does in asks.items() if not does} == {"/healthz/live", "/healthz/ready"}
    assert "securitySchemes" not in application(pool).openapi()["components"]


def test_settings_that_cannot_be() -> None:
    for wrong in ({"batch_tokens": 0}, {"most_waiting": -1}, {"max_wait_ms": -1}, {"deadline_seconds": 0}):
        with pytest.raises(InputError, match="more than 0"):
            ServerSettings(**wrong)  # pyright: ignore[reportArgumentType]
    for token in ("short", "x" * 15, "é" * 20, "a b\n" * 9):
        with pytest.raises(InputError, match="token must be"):
            ServerSettings(token=token)
    with pytest.raises(InputError, match="--manage"):
        ServerSettings(manage=True)
