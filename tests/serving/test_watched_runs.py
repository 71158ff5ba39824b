"""A pool that follows a folder of runs."""

import logging
import shutil
import time
from pathlib import Path

import pytest
from deltas import make_delta
from small import make_encoder_folder, make_task

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.serving.pool import Pool
from trimtab.serving.settings import is_task_name
from trimtab.serving.watched_runs import WatchedRuns


@pytest.fixture
def runs(encoder: Encoder) -> list[Delta]:
    return [make_delta(encoder, make_task(), "layer_norms", seed) for seed in range(3)]


def versions(pool: Pool) -> dict[str, str]:
    return {name: task.version for name, task in pool.tasks.items()}


def replace(folder: Path, run: Delta) -> None:
    """Puts a run in the place of another, as a rename does."""
    run.save(folder.with_name(".new"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(".new").rename(folder)


def test_runs_that_come_change_and_go(encoder: Encoder, runs: list[Delta], tmp_path: Path) -> None:
    pool, told = Pool(encoder), []
    watched = WatchedRuns(pool, {}, tmp_path, count=lambda *each: told.append(each))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "notes.txt").write_text("no run")
    watched.scan()
    assert versions(pool) == {}
    replace(tmp_path / "a", runs[0])
    replace(tmp_path / "b", runs[1])
    replace(tmp_path / ".hidden", runs[1])
    watched.scan()
    assert versions(pool) == {"a": runs[0].sha256[:12], "b": runs[1].sha256[:12]}
    replace(tmp_path / "a", runs[2])
    shutil.rmtree(tmp_path / "b")
    watched.scan()
    watched.scan()
    assert versions(pool) == {"a": runs[2].sha256[:12]}
    assert told == [("a", "added"), ("b", "added"), ("b", "removed"), ("a", "replaced")]


def test_what_cannot_be_used_is_logged_once_and_the_rest_is_served(
    encoder: Encoder, runs: list[Delta], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = load(make_encoder_folder("bert", tmp_path / "other", seed=5))
    folder = tmp_path / "runs"
    for name, run in (("a", runs[0]), ("b", runs[1]), ("foreign", make_delta(other, make_task(), "layer_norms"))):
        run.save(folder / name)
    pool = Pool(encoder)
    watched = WatchedRuns(pool, {}, folder)
    watched.scan()
    assert versions(pool) == {"a": runs[0].sha256[:12], "b": runs[1].sha256[:12]}
    damaged = folder / "b" / "delta.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-9])
    runs[2].save(folder / "c")
    for _ in range(3):
        watched.scan()
    assert versions(pool) == {name: run.sha256[:12] for name, run in zip("abc", runs, strict=True)}
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "task foreign" in errors[0]
    assert "it is not served" in errors[0]
    assert "its last version is served on" in errors[1]
    replace(folder / "b", runs[0])
    watched.scan()
    assert versions(pool)["b"] == runs[0].sha256[:12]


def test_a_folder_that_is_away_takes_no_task_with_it(
    encoder: Encoder, runs: list[Delta], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "runs"
    runs[0].save(folder / "a")
    pool = Pool(encoder)
    watched = WatchedRuns(pool, {}, folder)
    watched.scan()
    folder.rename(tmp_path / "elsewhere")
    watched.scan()
    (tmp_path / "runs").mkdir()  # the place on which nothing is mounted
    watched.scan()
    assert [*pool.tasks] == ["a"]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    folder.rmdir()
    (tmp_path / "elsewhere").rename(folder)
    watched.scan()
    shutil.rmtree(folder / "a")
    watched.scan()
    assert [*pool.tasks] == []  # this time it has gone


def test_runs_are_read_again_and_unloaded_by_name(encoder: Encoder, runs: list[Delta], tmp_path: Path) -> None:
    runs[0].save(tmp_path / "runs" / "a")
    runs[1].save(tmp_path / "named")
    pool = Pool(encoder, {"n": tmp_path / "named"})
    watched = WatchedRuns(pool, {"n": tmp_path / "named"}, tmp_path / "runs")
    watched.scan()
    watched.unload("a")
    watched.unload("n")
    watched.scan()
    assert [*pool.tasks] == []  # until it changes or is asked for
    assert watched.read("a") == runs[0].sha256[:12]
    assert watched.read("n") == runs[1].sha256[:12]
    for name in ("b", "../named", ".", "", "a/../a"):
        with pytest.raises(KeyError):
            watched.read(name)
        with pytest.raises(KeyError):
            watched.unload(name)
    (tmp_path / "runs" / "a" / "delta.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        watched.read("a")
    assert versions(pool)["a"] == runs[0].sha256[:12]


def test_a_thread_looks_at_the_folder(encoder: Encoder, runs: list[Delta], tmp_path: Path) -> None:
    pool = Pool(encoder)
    watched = WatchedRuns(pool, {}, tmp_path, every_seconds=0.01)
    watched.start()
    try:
        replace(tmp_path / "a", runs[0])
        until = time.monotonic() + 60
        while "a" not in pool:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        watched.close()


def test_names_are_parts_of_urls() -> None:
    assert all(map(is_task_name, ("a", "reviews 2", "é", "a.b")))
    assert not any(map(is_task_name, ("", " ", "a/b", ".", "..", ".git", "a\n", "x" * 201, "\ud800")))
