"""A client beside the pool of a live server; and, with a server that is made up, what it does where there is no answer."""

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltas import make_delta
from live import LIMIT, LiveServer
from small import make_encoder_folder, make_task, sentences

from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.serving import client as client_module
from trimtab.serving import remote
from trimtab.serving.client import Client
from trimtab.serving.contract import TaskPrediction
from trimtab.serving.pool import Pool
from trimtab.serving.settings import ServerSettings

TOKEN = "0123456789abcdef"
TEXTS = sentences(6, seed=2)
LIMITS = ServerSettings()
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load(make_encoder_folder("bert", tmp_path_factory.mktemp("client") / "encoder"))


@pytest.fixture(scope="module")
def runs(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A task of each kind, and one of pairs."""
    folder = tmp_path_factory.mktemp("runs")
    make_delta(small, make_task(), "layer_norms", 1).save(folder / "animals")
    make_delta(small, make_task("multi_label"), "last_layers:k=1", 2).save(folder / "present")
    make_delta(small, make_task("regression"), "head", 3).save(folder / "count")
    make_delta(small, make_task(pairs=True), "lora:rank=2", 4).save(folder / "pairs")
    return {name: folder / name for name in ("animals", "present", "count", "pairs")}


@pytest.fixture(scope="module")
def pool(small: Encoder, runs: dict[str, Path]) -> Pool:
    return Pool(small, runs, compute="float32")


@pytest.fixture(scope="module")
def server(small: Encoder, runs: dict[str, Path]) -> Iterator[LiveServer]:
    named = [f"{name}={folder}" for name, folder in runs.items()]
    with LiveServer(small.folder, *named, "--compute", "float32", TRIMTAB_TOKEN=TOKEN) as server:
        yield server


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a client waits, which pass at once."""
    waits: list[float] = []
    monkeypatch.setattr(remote, "sleep", waits.append)
    return waits


def close(expected: TaskPrediction) -> Any:
    """A prediction, as far as neighbours in a batch let it be the same."""
    likely = expected.probabilities
    return (
        expected.label, expected.task, expected.version, expected.tokens, expected.truncated, expected.code,
        likely and [*likely], likely and pytest.approx([*likely.values()], abs=1e-5),
        expected.value if expected.value is None else pytest.approx(expected.value, abs=1e-5),
    )  # fmt: skip


def plain(found: TaskPrediction) -> Any:
    likely = found.probabilities
    return (
        found.label, found.task, found.version, found.tokens, found.truncated, found.code,
        likely and [*likely], likely and [*likely.values()], found.value,
    )  # fmt: skip


def made_up(*answers: Exception | Answer, **options: Any) -> Client:
    """A client of a server that gives these answers, in turn; the last of them for ever."""
    left = [*answers]

    def answer(request: httpx.Request) -> httpx.Response:
        given = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(given, Exception):
            raise given
        return given(request)

    return Client("http://t", transport=httpx.MockTransport(answer), **options)


def said(status: int, code: str = "", message: str = "so", **headers: str) -> Answer:
    """An answer with an error."""
    body = {"error": {"code": code, "message": message}}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, json=body, headers=headers)


def echo(request: httpx.Request) -> httpx.Response:
    """Predicts of each text itself, by each task."""
    body = json.loads(request.content)
    asked = [(item["task"], item["text"]) for item in body["items"]] if "items" in body else [
        (task, text) for text in body["texts"] for task in body["tasks"]
    ]  # fmt: skip
    found = [
        {
            "kind": "single_label", "text": 0, "task": task, "version": "v", "tokens": 1, "truncated": False, "label": text,
            "score": 1.0, "probabilities": {"a": 1.0},
        }
        for task, text in asked
    ]  # fmt: skip
    return httpx.Response(200, json={"predictions": found, "usage": {"tokens": 1}})


def test_both_verbs_say_what_the_pool_says(server: LiveServer, pool: Pool) -> None:
    with Client(server.url, TOKEN) as client:
        everything = client.predict_all(TEXTS)
        expected = pool.predict_all(TEXTS)
        assert [[*of_text] for of_text in everything] == [[*of_text] for of_text in expected]
        for of_text, one in zip(everything, expected, strict=True):
            assert [plain(each) for each in of_text.values()] == [close(each) for each in one.values()]
        named = client.predict_all(TEXTS[:2], ["count", "animals", "count"])
        assert [[*of_text] for of_text in named] == [["count", "animals"]] * 2
        items = [
            ("animals", TEXTS[0]), ("pairs", (TEXTS[0], TEXTS[1])), ("pairs", [TEXTS[2], TEXTS[1]]), ("count", TEXTS[3]),
            ("present", [TEXTS[4]]), ("animals", "the cat " * 100),
        ]  # fmt: skip
        assert [plain(each) for each in client.predict(items)] == [close(each) for each in pool.predict(items)]
        assert client.tasks == pool.tasks
        assert client.predict([]) == []
        assert client.predict_all([]) == []
        assert client.predict_all(["a cat"], []) == [{}]


def test_what_is_wrong_with_an_item_is_said_in_its_place(server: LiveServer, pool: Pool) -> None:
    items: list[Any] = [
        ("animals", "a \ud800 cat"), ("none", "a cat"), ("animals", " "), ("animals", TEXTS[0]), ("pairs", "a cat"),
        (3, "a cat"), ("animals", 3), ("animals", ["a", "b", "c"]), ("no\nname", "a cat"), ("animals", "cat " * 40_000),
        ("animals", "\u00e9" * 1_500_000), ("x" * 2000, "a cat"), ("animals", {"text": "a"}),
    ]  # fmt: skip
    with Client(server.url, TOKEN) as client:
        found, expected = client.predict(items), pool.predict(items)
        assert [each.code for each in found] == [each.code for each in expected]
        assert [each.task for each in found] == [each.task for each in expected]
        assert all(each.error for each in found if each.code)
        assert plain(found[3]) == close(expected[3])
        # Alone as well, where the server refuses the whole request.
        assert [client.predict([item])[0].code for item in items] == [each.code for each in expected]
        texts: list[Any] = ["a cat", "a \ud800 cat", 3, " "]
        names: list[Any] = ["animals", "count", 3]
        assert [{name: each.code for name, each in of_text.items()} for of_text in client.predict_all(texts, names)] == [
            {name: each.code for name, each in of_text.items()} for of_text in pool.predict_all(texts, names)
        ]  # fmt: skip
        assert client.predict_all(["a cat"], ["none"])[0]["none"].code == "unknown_task"
        for wrong in ("a cat", {"animals": "a cat"}, ["a cat"]):
            with pytest.raises(InputError, match="takes a list of"):
                client.predict(wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="takes a list of"):
            client.predict_all("a cat")


def test_a_token_is_wanted_and_never_shown(
    server: LiveServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("TRIMTAB_TOKEN", raising=False)
    with Client(server.url) as client, pytest.raises(InputError, match="wants a token: give token=, or set TRIMTAB"):
        client.predict([("animals", "a cat")])
    wrong = TOKEN.replace("0", "x")
    with Client(server.url, wrong) as client, pytest.raises(InputError, match="does not take this token") as told:
        client.predict([("animals", "a cat")])
    monkeypatch.setenv("TRIMTAB_TOKEN", TOKEN)
    with Client(server.url) as client:
        assert client.predict([("animals", "a cat")])[0].code is None
    monkeypatch.setenv("TRIMTAB_TOKEN", wrong)
    with Client(server.url, TOKEN) as client:
        assert client.predict([("animals", "a cat")])[0].code is None
        shown = caplog.text + repr(client) + str(told.value)
    assert "/v1/predict" in caplog.text
    assert TOKEN not in shown
    assert wrong not in shown
    with pytest.raises(InputError, match="ASCII") as odd:
        Client(server.url, "sécret-sécret-sécret")
    assert "cret-" not in str(odd.value)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://t", "http://", "http://t/?a=1", "http://t:port", None])
def test_what_is_no_url_is_told(url: Any) -> None:
    with pytest.raises(InputError, match="is no URL of a server"):
        Client(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InputError, match="no name and password") as told:
        Client("http://me:secret@t")
    assert "secret" not in str(told.value)


def test_nobody_listens(slept: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(InputError, match="nothing answers at http://127"):
        client.predict([("animals", "a cat")])
    assert slept == [], "somebody who mistypes a port is told at once"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda request: httpx.Response(404, text="<html>"), "is no server of trimtab .it answers 404"),
        (lambda request: httpx.Response(200, text="<html>"), "is no server of trimtab"),
        (lambda request: httpx.Response(200, json={"outputs": []}), "is no server of trimtab"),
        (lambda request: httpx.Response(200, json={"predictions": []}), "is no server of trimtab"),
        (lambda request: httpx.Response(200, json=[1]), "is no server of trimtab"),
        (lambda request: httpx.Response(308, headers={"location": "https://u/"}), "with another address"),
        (said(422, "invalid", "x"), "http://t: x"),
    ],
)
def test_what_is_no_server_of_ours_is_told(answer: Answer, told: str) -> None:
    with made_up(answer) as client, pytest.raises(InputError, match=told):
        client.predict([("a", "a cat"), ("b", "a cat")])


def test_a_busy_server_is_asked_again_when_it_says(slept: list[float]) -> None:
    busy = (said(429, "overloaded", retry_after="3"), said(503, "draining"), said(429, "overloaded", retry_after="0"))
    with made_up(*busy, httpx.ConnectError("gone"), lambda request: httpx.Response(502), echo) as client:
        assert client.predict([("a", "a cat")])[0].label == "a cat"
    assert slept == [3.0, 0.5, 0.25 * 4, 2.0, 4.0]


def test_it_is_not_asked_for_ever(slept: list[float]) -> None:
    with made_up(said(429, "overloaded", retry_after="4"), timeout_seconds=10) as client:
        with pytest.raises(InputError, match="too busy, or about to end .so.: try again later"):
            client.predict([("a", "a cat")])
        assert slept == [4.0, 4.0]
        slept.clear()
    with made_up(said(503, "draining"), timeout_seconds=10) as client, pytest.raises(InputError, match="too busy"):
        client.predict([("a", "a cat")])
    assert sum(slept) <= 10
    slept.clear()
    # A day, or a date, is not waited for.
    with made_up(said(429, "overloaded", retry_after="86400")) as client, pytest.raises(InputError, match="too busy"):
        client.predict([("a", "a cat")])
    assert slept == []


def test_a_server_that_was_there_is_waited_for(slept: list[float]) -> None:
    gone = httpx.RemoteProtocolError("Server disconnected")
    with made_up(echo, gone, gone, echo) as client:
        for _ in range(2):
            assert client.predict([("a", "a cat")])[0].label == "a cat"
    assert slept == [0.25, 0.5]
    with made_up(echo, gone, timeout_seconds=1) as client:
        client.predict([("a", "a cat")])
        with pytest.raises(InputError, match="does not answer any more: Server disconnected"):
            client.predict([("a", "a cat")])


def test_what_one_item_lacks_is_not_asked_again(slept: list[float]) -> None:
    with made_up(said(503, "unavailable", "the values of the task cannot be read now")) as client:
        (found,) = client.predict([("a", "a cat")])
    assert (found.task, found.code, found.error) == ("a", "unavailable", "the values of the task cannot be read now")
    assert slept == []


def test_many_texts_are_several_requests_within_the_limits() -> None:
    bodies: list[bytes] = []

    def counting(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return echo(request)

    texts = [f"text {i} " + "\u00e9" * (90_000 if i % 500 == 0 else 5) for i in range(6000)]
    with made_up(counting) as client:
        found = client.predict([(f"task {i % 3}", text) for i, text in enumerate(texts)])
        assert [each.label for each in found] == texts
        assert [each.task for each in found[:3]] == ["task 0", "task 1", "task 2"]
        names = [f"task {i}" for i in range(600)]
        every = client.predict_all(texts[:20], names)
        assert [[(name, each.label) for name, each in of_text.items()] for of_text in every] == [
            [(name, text) for name in names] for text in texts[:20]
        ]
    assert max(map(len, bodies)) <= LIMITS.most_body_bytes
    for body in map(json.loads, bodies):
        n_texts, n_tasks = len(body.get("texts", ())), len(body.get("tasks", ()))
        assert n_texts <= LIMITS.most_texts
        assert n_tasks <= LIMITS.most_tasks
        assert max(n_texts * n_tasks, len(body.get("items", ()))) <= LIMITS.most_predictions
    assert len(bodies) < 100


def test_large_texts_are_few_to_a_request() -> None:
    sizes: list[int] = []

    def counting(request: httpx.Request) -> httpx.Response:
        sizes.append(len(request.content))
        return echo(request)

    texts = [f"{i}" + "\u00e9" * (300_000 if i == 3 else 30_000) for i in range(7)]
    with made_up(counting) as client:
        assert [each.label for each in client.predict([("a", text) for text in texts])] == texts
        assert [of_text["a"].label for of_text in client.predict_all(texts, ["a"])] == texts
    assert max(sizes) <= LIMITS.most_body_bytes
    # Three, the large one, three; a server has room for so much beside others.
    assert len(sizes) == 2 * 3
    assert sorted(sizes)[:4] == [pytest.approx(180_000, rel=0.01)] * 4


@pytest.mark.parametrize("refusal", [said(413, "too_many"), said(504, "deadline"), lambda _: httpx.Response(504)])
def test_what_is_too_much_for_a_server_is_halved(refusal: Answer, slept: list[float]) -> None:
    sizes: list[int] = []

    def strict(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        sizes.append(len(body["items"]) if "items" in body else len(body["texts"]) * len(body["tasks"]))
        return refusal(request) if sizes[-1] > 10 else echo(request)

    texts = [f"text {i}" for i in range(300)]
    with made_up(strict) as client:
        assert [each.label for each in client.predict([("a", text) for text in texts])] == texts
        assert sizes[0] > 100
        assert [*map(len, client.predict_all(texts[:3], [f"task {i}" for i in range(40)]))] == [40] * 3
        # It is known by now, and hardly asked for too much again.
        sizes.clear()
        client.predict([("a", text) for text in texts])
        assert sum(size > 10 for size in sizes) < len(sizes) / 2
    assert slept == []


def test_a_text_that_is_too_large_alone_is_told() -> None:
    with made_up(said(413, "too_large")) as client:
        assert [each.code for each in client.predict([("a", "a cat"), ("a", "a fish")])] == ["text_too_long"] * 2
    with made_up(said(504, "deadline")) as client, pytest.raises(InputError, match="http://t: so"):
        client.predict([("a", "a cat"), ("a", "a fish")])


def test_a_task_that_has_gone_meanwhile_is_left_out() -> None:
    described = {
        "version": "v", "kind": "single_label", "labels": ["a"], "text_columns": ["text"], "method": "m", "head": "h",
        "max_length": 1, "bytes": 1, "mixed": True, "first_layer": 0, "resident": True,
    }  # fmt: skip
    listed = {"tasks": [{"name": name, **described} for name in ("gone", "here")]}
    error = {"kind": "error", "text": 0, "task": "gone", "error": {"code": "unknown_task", "message": "no"}}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=listed)
        found = echo(request).json()
        return httpx.Response(200, json={**found, "predictions": [error, *found["predictions"][1:]]})

    with made_up(answer) as client:
        assert [*client.predict_all(["a cat"])[0]] == ["here"]
        assert client.predict_all(["a cat"], ["gone", "here"])[0]["gone"].code == "unknown_task"


def test_a_client_needs_no_torch() -> None:
    code = (
        "import sys, trimtab; trimtab.Client; print(sorted({'torch', 'transformers', 'tokenizers'} & {*sys.modules}))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=LIMIT).strip() == "[]"
    assert client_module.Client is Client
