"""A live server that is killed, and whose folder of runs goes wrong in parts, or goes away."""

import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltas import make_delta
from live import LIMIT, LiveServer, until
from small import make_encoder_folder, make_task, sentences

from trimtab.changes.delta_header import TENSORS
from trimtab.encoders.encoder import Encoder, load

TEXTS = sentences(6, seed=7)
LOOKED_SECONDS = 2.5  # by then the folder has been looked at, every second


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load(make_encoder_folder("bert", tmp_path_factory.mktemp("faults") / "encoder"))


@pytest.fixture
def runs(small: Encoder, tmp_path: Path) -> Path:
    """A folder of three runs."""
    for i, name in enumerate(("animals", "birds", "cats")):
        make_delta(small, make_task(), "layer_norms", i).save(tmp_path / "runs" / name)
    return tmp_path / "runs"


def predicted(client: httpx.Client) -> dict[str, list[tuple[str, dict[str, float]]]]:
    """What each task says of all texts, each with its version."""
    answer = client.post("/v1/predict", json={"texts": TEXTS, "probabilities": True})
    assert answer.status_code == 200
    found: dict[str, list[tuple[str, dict[str, float]]]] = {}
    for each in answer.json()["predictions"]:
        found.setdefault(each["task"], []).append((each["version"], each["probabilities"]))
    return found


def near(found: dict[str, list[tuple[str, dict[str, float]]]]) -> Any:
    """The same, as far as neighbours in a batch let it be."""
    return {name: [(version, pytest.approx(each, abs=1e-5)) for version, each in of] for name, of in found.items()}


def errors(server: LiveServer) -> list[str]:
    """What the log says of what has gone wrong."""
    return [line["event"] for line in [*server.log] if line["level"] == "error"]


@pytest.mark.slow
def test_killed_it_comes_back_at_once_on_the_same_port_and_folder(small: Encoder, runs: Path) -> None:
    arguments = (small.folder, "--runs", runs, "--compute", "float32")
    with LiveServer(*arguments) as server, httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        before = predicted(client)
        assert [*before] == ["animals", "birds", "cats"]
        server.process.kill()  # with a connection open
        assert server.ended() != 0
        with LiveServer(*arguments, port=server.port) as again:
            assert again.port == server.port
            assert predicted(client) == near(before)
        assert errors(again) == []


@pytest.mark.slow
def test_what_goes_wrong_with_runs_leaves_others_alone(small: Encoder, runs: Path, tmp_path: Path) -> None:
    other = load(make_encoder_folder("bert", tmp_path / "other", seed=5))
    make_delta(other, make_task(), "layer_norms").save(tmp_path / "foreign")
    with (
        LiveServer(small.folder, "--runs", runs, "--compute", "float32") as server,
        httpx.Client(base_url=server.url, timeout=LIMIT) as client,
    ):
        before = predicted(client)
        content = (runs / "animals" / TENSORS).read_bytes()
        # Of a known task a damaged delta, and one of another base in the place of another.
        (tmp_path / "half").write_bytes(content[: len(content) // 2])
        (tmp_path / "half").replace(runs / "animals" / TENSORS)
        (tmp_path / "foreign" / TENSORS).replace(runs / "birds" / TENSORS)
        until(lambda: len(errors(server)) == 2)
        assert "task animals" in errors(server)[0]
        assert "task birds" in errors(server)[1]
        assert all("its last version is served on" in each for each in errors(server))
        assert predicted(client) == near(before)
        # The folder away, in its place a file, and then an empty folder on which nothing is mounted.
        runs.rename(tmp_path / "away")
        until(lambda: any("the folder of runs cannot be read" in each for each in errors(server)))
        assert predicted(client) == near(before)
        runs.write_text("no folder")
        time.sleep(LOOKED_SECONDS)
        assert predicted(client) == near(before)
        runs.unlink()
        runs.mkdir()
        time.sleep(LOOKED_SECONDS)
        assert predicted(client) == near(before)
        assert client.get("/healthz/ready").status_code == 200
        # Back again, with one run mended, one more, and one gone.
        (tmp_path / "mended").write_bytes(content)
        (tmp_path / "mended").replace(tmp_path / "away" / "animals" / TENSORS)
        shutil.copytree(tmp_path / "away" / "animals", tmp_path / "away" / "dogs")
        shutil.rmtree(tmp_path / "away" / "cats")
        runs.rmdir()
        (tmp_path / "away").rename(runs)
        until(
            lambda: [task["name"] for task in client.get("/v1/tasks").json()["tasks"]] == ["animals", "birds", "dogs"]
        )
        found = predicted(client)
        assert found == near({name: before[name] for name in ("animals", "birds")} | {"dogs": before["animals"]})
        failed = 'trimtab_task_loads_total{result="failed"}'
        assert f"{failed} 2.0" in client.get("/metrics").text
