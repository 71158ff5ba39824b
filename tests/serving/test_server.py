"""A live server: clients of others, signals, connections that never finish a request, runs that come and go."""

import json
import logging
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltas import make_delta
from huggingface_hub import InferenceClient
from live import LIMIT, LiveServer, until
from small import make_encoder_folder, make_task

from trimtab.encoders.encoder import Encoder, load
from trimtab.inference.predictor import Predictor, predict
from trimtab.serving.process import JsonLines, allow_many_files

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load(make_encoder_folder("bert", tmp_path_factory.mktemp("live") / "encoder"))


@pytest.fixture(scope="module")
def runs(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    make_delta(small, make_task(), "layer_norms", 1).save(folder / "animals")
    make_delta(small, make_task("regression"), "head", 2).save(folder / "count")
    return folder


@pytest.fixture(scope="module")
def server(small: Encoder, runs: Path) -> Iterator[LiveServer]:
    """One that closes connections whose request has not come within a second."""
    names = [f"{name}={runs / name}" for name in ("animals", "count")]
    with LiveServer(small.folder, *names, "--head-seconds", 1, "--body-seconds", 1, "--compute", "float32") as server:
        yield server


def posted(n_bytes: int, more: str = "") -> bytes:
    """The head of a request whose body has so many bytes."""
    length = f"content-length: {n_bytes}\r\n"
    return f"POST /v1/predict HTTP/1.1\r\nhost: t\r\n{more}content-type: application/json\r\n{length}\r\n".encode()


def test_the_client_of_hugging_face(server: LiveServer, runs: Path, small: Encoder) -> None:
    text = "the red cat runs"
    client = InferenceClient(model=f"{server.url}/v1/tasks/animals/predict", token="unused")
    found = client.text_classification(text)
    predictor = Predictor(runs / "animals", small)
    predictor.prepared.use("float32")
    expected = predict(predictor, [text])[0].probabilities
    assert {each.label: each.score for each in found} == pytest.approx(expected, abs=1e-5)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert len(client.text_classification(text, top_k=1)) == 1
    assert client.text_classification(text, function_to_apply="softmax")[0].label == found[0].label


def test_a_prediction_over_http(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/v1/predict", json={"texts": ["a cat"]}, headers={"x-request-id": "mine-1"})
    assert [each["kind"] for each in answer.json()["predictions"]] == ["single_label", "regression"]
    assert answer.headers["x-request-id"] == "mine-1"
    until(lambda: any(line.get("id") == "mine-1" for line in server.log))
    line = next(line for line in server.log if line.get("id") == "mine-1")
    assert (line["status"], line["route"], line["tasks"], line["items"]) == (
        200,
        "/v1/predict",
        ["animals", "count"],
        2,
    )
    httpx.post(
        f"{server.url}/v1/predict",
        json={"texts": ["a secret"], "tasks": ["a secret too"]},
        headers={"x-request-id": "2"},
    )
    until(lambda: any(line.get("id") == "2" for line in server.log))
    assert "secret" not in json.dumps(server.log)
    assert not server.other_lines


def test_half_open_connections_are_closed_and_hold_nobody_up(server: LiveServer) -> None:
    starts = (
        b"", b"POST /v1/predict HTT", b"GET / HTTP/1.1\r\nhost: t\r\n", b"\r\n",
        b"POST /v1/predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        b"POST /v1/predict HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    )  # fmt: skip
    opened = []
    try:
        for i in range(200):
            connection = socket.create_connection(("127.0.0.1", server.port), LIMIT)
            opened.append(connection)
            connection.sendall(starts[i % len(starts)])
        # After an answer the connection may rest, but a next request that begins must come too.
        opened[-1].close()
        opened[-1] = socket.create_connection(("127.0.0.1", server.port), LIMIT)
        opened[-1].sendall(b"GET /healthz/live HTTP/1.1\r\nhost: t\r\n\r\n")
        assert opened[-1].recv(65_536).startswith(b"HTTP/1.1 200")
        opened[-1].sendall(b"\r\n")
        for _ in range(5):
            assert httpx.post(f"{server.url}/v1/predict", json={"texts": ["a cat"]}, timeout=LIMIT).status_code == 200
        for connection in opened:
            connection.settimeout(LIMIT)
            try:
                while connection.recv(65_536):
                    pass
            except ConnectionResetError:
                pass
    finally:
        for connection in opened:
            connection.close()
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'trimtab_refused_total{reason="slow"}' in metrics


def test_a_request_may_be_slow_as_long_as_it_comes(server: LiveServer) -> None:
    body = json.dumps({"texts": ["a cat"]}).encode()
    head = posted(len(body), "connection: close\r\n")
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
        for part in (head[:20], head[20:], body[:5], body[5:]):
            connection.sendall(part)
            time.sleep(0.05)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_cut_off(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                connection.sendall(b"x-more: " + b"y" * 8000 + b"\r\n")


def test_a_connection_is_used_for_many_requests(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        for _ in range(3):
            assert client.post("/v1/predict", json={"texts": ["a cat"]}).status_code == 200
            time.sleep(1.2)  # longer than a request may take to come
        streams = [
            client.get("/healthz/live").extensions["network_stream"].get_extra_info("client_addr") for _ in range(2)
        ]
        assert streams[0] == streams[1]


def test_told_to_end_it_finishes_what_it_has_begun(small: Encoder, runs: Path) -> None:
    arguments = (small.folder, f"animals={runs / 'animals'}", "--max-wait-ms", 3_600_000, "--drain-delay", 1)
    with LiveServer(*arguments) as server, httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        body = json.dumps({"texts": ["a cat"]}).encode()
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as waiting:
            waiting.sendall(posted(len(body)) + body)
            until(lambda: "trimtab_queue_requests 1.0" in client.get("/metrics").text)
            assert client.get("/healthz/ready").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            until(lambda: any(line["event"] == "draining" for line in server.log))
            answer = client.post("/v1/predict", json={"texts": ["a cat"]})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
            assert client.get("/healthz/ready").status_code == 503
            waiting.settimeout(LIMIT)
            found = b""
            while b"single_label" not in found:
                part = waiting.recv(65_536)
                assert part
                found += part
            assert found.startswith(b"HTTP/1.1 200")
        assert server.ended() == 0


def test_runs_come_and_go_while_it_serves(small: Encoder, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "delta.safetensors").write_bytes(b"no delta")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with LiveServer(
        small.folder, "--runs", tmp_path / "runs", "--token-file", tmp_path / "token", "--manage"
    ) as server:
        client = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=LIMIT)

        def tasks() -> dict[str, str]:
            return {task["name"]: task["version"] for task in client.get("/v1/tasks").json()["tasks"]}

        with client:
            assert [*tasks()] == ["animals", "count"]
            assert any("task damaged" in line["event"] for line in server.log)
            assert httpx.get(f"{server.url}/v1/tasks").status_code == 401
            new = make_delta(small, make_task("multi_label"), "layer_norms", 9)
            new.save(tmp_path / "runs" / "new")
            until(lambda: tasks().get("new") == new.sha256[:12])
            assert client.post("/v1/tasks/new/predict", json={"inputs": "a cat"}).status_code == 200
            others = InferenceClient(model=f"{server.url}/v1/tasks/new/predict", token=TOKEN)
            assert {each.label for each in others.text_classification("a cat")} == {"cat", "dog", "fish"}
            new.save(tmp_path / "runs" / "count")
            until(lambda: tasks()["count"] == new.sha256[:12])
            shutil.rmtree(tmp_path / "runs" / "animals")
            until(lambda: "animals" not in tasks())
            assert client.delete("/v1/tasks/new").status_code == 204
            assert client.put("/v1/tasks/new").json()["version"] == new.sha256[:12]
            assert TOKEN not in json.dumps(server.log)


def test_a_log_says_where_an_exception_was_raised_and_not_what_it_says() -> None:
    try:
        json.loads("{a secret")
    except ValueError:
        record = logging.LogRecord("trimtab.x", logging.ERROR, __file__, 1, "said %s", ("so",), sys.exc_info())
    record.fields = {"id": "1"}
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    assert (line["event"], line["id"], line["level"], line["exception"]) == ("said so", "1", "error", "JSONDecodeError")
    assert "secret" not in json.dumps(line)
    assert __file__ in line["at"][0]


def test_a_server_may_have_many_connections() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[1], 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
