"""Several processes behind one port: they answer alike, count together, are begun again, and end together."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltas import make_delta
from live import LIMIT, LiveServer, until
from small import make_encoder_folder, make_task, sentences

from trimtab.commands import serve
from trimtab.encoders.encoder import Encoder, load
from trimtab.encoders.places import find_place
from trimtab.errors import InputError
from trimtab.inference.predictor import Predictor, predict
from trimtab.serving import workers
from trimtab.serving.process import listen
from trimtab.serving.served import Served
from trimtab.serving.settings import ServerSettings
from trimtab.serving.workers import Workers

TEXTS = sentences(8, seed=4)
# A connection for each request, so that any worker may take it.
CLIENT = httpx.Client(timeout=LIMIT, limits=httpx.Limits(max_keepalive_connections=0))
FAILING = "import sys; open(sys.argv[1], 'a').write('begun\\n'); sys.exit(3)"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load(make_encoder_folder("bert", tmp_path_factory.mktemp("workers") / "encoder"))


@pytest.fixture
def runs(small: Encoder, tmp_path: Path) -> Path:
    """A folder of one run."""
    make_delta(small, make_task(), "layer_norms", 1).save(tmp_path / "runs" / "animals")
    return tmp_path / "runs"


@pytest.fixture
def expected(small: Encoder, runs: Path) -> dict[str, Any]:
    """What a prediction of each text says, offline."""
    predictor = Predictor(runs / "animals", small)
    predictor.prepared.use("float32")
    return {text: each.probabilities for text, each in zip(TEXTS, predict(predictor, TEXTS), strict=True)}


@contextmanager
def two_workers(small: Encoder, runs: Path, *arguments: object, **options: Any) -> Iterator[LiveServer]:
    """A server of two, once both listen."""
    with LiveServer(
        small.folder, "--runs", runs, "--workers", 2, "--compute", "float32", *arguments, **options
    ) as server:
        until(lambda: len(server.told("listening")) == 2)
        yield server


def pid(server: LiveServer, worker: int) -> int:
    """Of the process that was begun last under that number."""
    return next(line["pid"] for line in reversed(server.told("worker begun")) if line["worker"] == worker)


@contextmanager
def only(server: LiveServer, worker: int) -> Iterator[None]:
    """While inside, the other worker stands still, so that whoever is answered is answered by this one."""
    other = pid(server, 3 - worker)
    os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(other, signal.SIGCONT)


def ask(server: LiveServer, text: str, task: str = "animals") -> httpx.Response:
    """A prediction, on a connection of its own."""
    body = {"texts": [text], "tasks": [task], "probabilities": True}
    return CLIENT.post(f"{server.url}/v1/predict", json=body)


def is_right(answer: httpx.Response, expected: dict[str, float]) -> bool:
    (found,) = answer.json()["predictions"]
    return answer.status_code == 200 and found["probabilities"] == pytest.approx(expected, abs=1e-4)


def metrics(server: LiveServer) -> dict[str, float]:
    """Every series by its name and labels."""
    lines = CLIENT.get(f"{server.url}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


PREDICTED = 'trimtab_requests_total{route="/v1/predict",status="200"}'


@pytest.mark.slow
def test_two_workers_answer_alike_count_together_and_follow_the_folder(
    small: Encoder, runs: Path, expected: dict[str, Any]
) -> None:
    with two_workers(small, runs, "--threads", 3) as server:
        for worker in (1, 2):
            with only(server, worker):
                for text in TEXTS:
                    assert is_right(ask(server, text), expected[text])
                until(lambda n=8 * worker: metrics(server)[PREDICTED] == n)
                assert metrics(server)['trimtab_predictions_total{task="animals"}'] == 8 * worker
                assert metrics(server)["trimtab_batch_tasks_count"] == 8 * worker
        assert metrics(server)["trimtab_workers"] == 2
        lines = [line for line in server.told("request") if line["route"] == "/v1/predict"]
        assert [line["worker"] for line in lines] == [1] * 8 + [2] * 8
        shutil.copytree(runs / "animals", runs / "more")
        until(lambda: metrics(server)["trimtab_tasks"] == 2)  # of the worker that has fewest
        for worker in (1, 2):
            with only(server, worker):
                assert is_right(ask(server, TEXTS[0], "more"), expected[TEXTS[0]])
        assert {line["worker"] for line in server.log if "task more: added" in line["event"]} == {1, 2}
        for process, has_torch in ((server.process.pid, False), (pid(server, 1), True), (pid(server, 2), True)):
            assert ("libtorch" in Path(f"/proc/{process}/maps").read_text()) == has_torch
        assert "OMP_NUM_THREADS=3" in Path(f"/proc/{pid(server, 2)}/environ").read_text().split("\0")


class Asking:
    """Threads that ask one text after the other, each on a connection of its own."""

    def __init__(self, server: LiveServer, expected: dict[str, Any], count: int = 6):
        self.answered, self.lost, self.wrong = 0, 0, 0
        self._server, self._expected = server, expected
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, i: int) -> None:
        while not self._over.is_set():
            i += 1
            text = TEXTS[i % len(TEXTS)]
            try:
                right = is_right(ask(self._server, text), self._expected[text])
            except httpx.TransportError:
                with self._lock:
                    self.lost += 1
                continue
            with self._lock:
                self.answered += 1
                self.wrong += not right

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT)


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_no_more_with_it_than_it_had(
    small: Encoder, runs: Path, expected: dict[str, Any]
) -> None:
    with two_workers(small, runs) as server:
        before = [pid(server, 1), pid(server, 2)]
        asking = Asking(server, expected)
        try:
            until(lambda: asking.answered > 50)
            os.kill(before[0], signal.SIGKILL)
            until(lambda: len(server.told("listening")) == 3)
            now = asking.answered
            until(lambda: asking.answered > now + 50)
        finally:
            asking.end()
        assert asking.wrong == 0
        assert asking.lost <= 6  # what the threads had on their way
        (died,) = server.told("worker died")
        assert (died["worker"], died["pid"], died["code"]) == (1, before[0], -signal.SIGKILL)
        events = [*server.log]
        away = events[events.index(died) : events.index(server.told("listening")[2])]
        assert {line["worker"] for line in away if line["event"] == "request"} == {2}
        assert pid(server, 1) not in before
        with only(server, 1):
            assert is_right(ask(server, TEXTS[0]), expected[TEXTS[0]])
            # What the dead one had counted is still there.
            assert abs(metrics(server)[PREDICTED] - asking.answered - 1) <= 6
            assert metrics(server)["trimtab_workers"] == 2
        # One that somebody ends by itself finishes, and another takes its place.
        os.kill(pid(server, 2), signal.SIGTERM)
        until(lambda: len(server.told("listening")) == 4)
        assert [line["worker"] for line in server.told("worker ended, and is begun again")] == [2]
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0


@pytest.mark.slow
def test_told_to_end_all_workers_finish_what_they_have(small: Encoder, runs: Path) -> None:
    body = json.dumps({"texts": [TEXTS[0]]}).encode()
    head = f"POST /v1/predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    with two_workers(small, runs, "--max-wait-ms", 3_600_000) as server:
        waiting = []
        for worker in (1, 2):
            with only(server, worker):
                waiting.append(socket.create_connection(("127.0.0.1", server.port), LIMIT))
                waiting[-1].sendall(head.encode() + b"connection: close\r\n\r\n" + body)
                until(lambda n=worker: metrics(server)["trimtab_queue_requests"] == n)
        # As systemd does: all processes are told, and each worker by the first once more.
        for process in (server.process.pid, pid(server, 1), pid(server, 2)):
            os.kill(process, signal.SIGTERM)
        for connection in waiting:
            found = b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))
            connection.close()
            assert found.startswith(b"HTTP/1.1 200")
            assert b"single_label" in found
        assert server.ended() == 0
        assert {line["worker"] for line in server.told("draining")} == {1, 2}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), LIMIT)


@pytest.mark.slow
def test_workers_end_with_the_process_that_began_them(small: Encoder, runs: Path, expected: dict[str, Any]) -> None:
    with two_workers(small, runs) as server:
        begun = [pid(server, worker) for worker in (1, 2)]
        server.process.kill()
        until(lambda: not any(Path(f"/proc/{each}/fd").exists() and _runs(each) for each in begun))
        with LiveServer(small.folder, "--runs", runs, "--compute", "float32", port=server.port) as again:
            assert is_right(ask(again, TEXTS[0]), expected[TEXTS[0]])


def _runs(process: int) -> bool:
    """Whether it is there and no zombie, which nobody may wait for here."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_what_no_worker_can_serve_is_told_once(small: Encoder, runs: Path, tmp_path: Path) -> None:
    other = load(make_encoder_folder("bert", tmp_path / "other", seed=5))
    make_delta(other, make_task(), "layer_norms").save(tmp_path / "foreign")
    command = ["serve", small.folder, f"a={tmp_path / 'foreign'}", "--workers", 3, "--port", 0]
    ended = subprocess.run(
        [sys.executable, "-m", "trimtab", *map(str, command)],
        check=False, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.count("trimtab: ") == 1
    assert "Traceback" not in ended.stderr


def made(small: Encoder, code: str, *arguments: object) -> Workers:
    """Three workers that run that code."""
    served = Served(find_place(small.folder), {}, None, "float32", None, ServerSettings(drain_seconds=0.5))
    command = (sys.executable, "-c", code, *map(str, arguments))
    return Workers(served, listen("127.0.0.1", 0), 3, command)


def test_workers_that_always_die_are_given_up(
    small: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_FIRST_PAUSE_SECONDS", 0.01)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert made(small, FAILING, tmp_path / "begun").run() == 1
    assert (tmp_path / "begun").read_text() == "begun\n" * 5  # the first alone: the others would have died as well
    assert "given up" in caplog.text
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_a_worker_that_does_not_end_is_killed(small: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SPARE_SECONDS", 0.1)
    of = made(small, "import time; time.sleep(1000)")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert of.run() == 0  # it had taken no request
    assert [each.process for each in of._workers] == [None] * 3


def test_pauses_grow_and_are_bounded() -> None:
    pauses = [workers._Worker(1, deaths=deaths).pause_seconds for deaths in range(12)]
    assert pauses[:5] == [0, 0, 0.5, 1, 2]
    assert pauses[-1] == 30


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int | None] = []
    monkeypatch.setattr(serve, "usable_cores", lambda: 8)
    monkeypatch.setattr(serve, "use_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for threads, count in ((None, 1), (None, 3), (None, 20), (5, 3)):
        serve._settle_threads(threads, count)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    serve._settle_threads(None, 3)
    assert told == [None, 2, 1, 5, None]


@pytest.mark.parametrize(("arguments", "said"), [((0,), "--workers 0: at least 1"), ((2, "--manage"), "leave one")])
def test_numbers_of_workers_that_cannot_be(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple, said: str
) -> None:
    monkeypatch.setenv("TRIMTAB_TOKEN", "0123456789abcdef")
    code, _, err = command("serve", "minilm", "--runs", tmp_path, "--workers", *arguments)
    assert code == 2
    assert said in err


def test_no_folder_for_temporary_files_is_told(small: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(workers, "TemporaryDirectory", none)
    with pytest.raises(InputError, match="set TMPDIR"):
        made(small, FAILING).run()
