"""Deltas in memory: folders that go, budgets that hold nothing, interrupts, and names that share a delta."""

import gc
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from compared import TEXTS, in_threads, is_right, norms, offline, state, versions

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.process_memory import give_back, private_bytes
from trimtab.serving import batches, pool, residents
from trimtab.serving.pool import Pool, TaskPrediction


def test_a_delta_comes_back_from_any_folder_that_has_it(encoder: Encoder, tmp_path: Path) -> None:
    shared, other = norms(encoder, 2)
    for name in ("first", "second"):
        shared.save(tmp_path / name)
    other.save(tmp_path / "other")
    of = Pool(encoder, {"a": tmp_path / "first", "b": tmp_path / "second"}, most_bytes=1)
    of.remove("a")
    shutil.rmtree(tmp_path / "first")
    of.add("other", tmp_path / "other")
    assert not of.tasks["b"].resident
    assert of.predict([("b", TEXTS[0])])[0].error is None
    # A name that stands for it from another folder by now.
    shared.save(tmp_path / "third")
    of.replace("b", tmp_path / "third")
    shutil.rmtree(tmp_path / "second")
    assert [of.predict([(name, TEXTS[0])])[0].error for name in ("other", "b")] == [None, None]
    shutil.rmtree(tmp_path / "third")
    assert [of.predict([(name, TEXTS[0])])[0].code for name in ("other", "b")] == [None, "unavailable"]


def test_what_was_given_in_memory_stays_there_though_a_folder_has_it_too(encoder: Encoder, tmp_path: Path) -> None:
    shared, *others = norms(encoder, 4)
    shared.save(tmp_path / "folder")
    of = Pool(encoder, {"memory": shared, "folder": tmp_path / "folder"}, most_bytes=1)
    of.remove("folder")
    shutil.rmtree(tmp_path / "folder")
    for i, other in enumerate(others):
        of.add(f"other{i}", other)
    found = of.predict([(name, TEXTS[0]) for name in of.tasks])
    assert {each.error for each in found} == {None}
    assert all(task.resident for task in of.tasks.values())


def test_a_delta_that_is_added_while_it_comes_back_is_in_memory_once(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = norms(encoder, 2)
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    of = Pool(encoder, {"one": tmp_path / "one", "two": tmp_path / "two"}, most_bytes=1)
    loads, loading, added = Delta.load, threading.Event(), threading.Event()

    def slowly(place: Path) -> Delta:
        found = loads(place)
        loading.set()
        added.wait(10)
        return found

    monkeypatch.setattr(residents.Delta, "load", slowly)
    asking = threading.Thread(target=of.predict, args=([("one", TEXTS[0])],))
    asking.start()
    assert loading.wait(10)
    of.add("again", one)
    added.set()
    asking.join()
    assert of._residents._taken == of.tasks["one"].bytes
    of.remove("one")
    of.remove("again")
    of.remove("two")
    assert (of.resident_bytes, of._residents._taken) == (0, 0)


@pytest.mark.parametrize("harm", ["removed", "damaged", "cut", "another"])
def test_what_happens_to_the_folder_of_a_task_takes_no_other_task_with_it(
    encoder: Encoder, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltas = norms(encoder, 6)
    for i, delta in enumerate(deltas):
        delta.save(tmp_path / str(i))
    expected = offline(encoder, deltas)
    of = Pool(encoder, {str(i): tmp_path / str(i) for i in range(6)}, compute="float32", most_bytes=1)
    file = next((tmp_path / "0").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    if harm == "removed":
        shutil.rmtree(tmp_path / "0")
    elif harm == "damaged":
        content[-3] ^= 1
        file.write_bytes(content)
    elif harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        deltas[1].save(tmp_path / "0")
    passes, mixed = [], batches.Batches._mixed

    def watched(self: Any, part: Any, *args: Any) -> Any:
        passes.append(len(part))
        return mixed(self, part, *args)

    monkeypatch.setattr(batches.Batches, "_mixed", watched)
    (found,) = of.predict_all(TEXTS[:1])
    assert found["0"].code == "unavailable"
    assert all(is_right(each, expected[each.version][TEXTS[0]]) for name, each in found.items() if name != "0")
    assert passes == [5]  # and all others share one pass as before
    assert state(of) == ({1}, {0})
    deltas[0].save(tmp_path / "0")
    assert of.predict([("0", TEXTS[0])])[0].error is None


def test_a_call_under_way_has_its_task_though_it_is_removed(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    (delta,) = norms(encoder, 1)
    of = Pool(encoder, {"a": delta}, compute="float32")
    begun, removed, reads = threading.Event(), threading.Event(), pool.read_text

    def slowly(*args: Any) -> Any:
        begun.set()
        removed.wait(10)
        return reads(*args)

    monkeypatch.setattr(pool, "read_text", slowly)
    found: list[TaskPrediction] = []
    asking = threading.Thread(target=lambda: found.extend(of.predict([("a", TEXTS[0])])))
    asking.start()
    assert begun.wait(10)
    of.remove("a")
    assert "a" not in of
    assert of.resident_bytes > 0
    removed.set()
    asking.join()
    assert is_right(found[0], offline(encoder, [delta])[delta.sha256[:12]][TEXTS[0]])
    assert of.resident_bytes == 0


def test_a_name_may_be_replaced_by_the_same_delta_and_lose_its_twin(encoder: Encoder, tmp_path: Path) -> None:
    (delta,) = norms(encoder, 1)
    delta.save(tmp_path / "a")
    of = Pool(encoder, {"a": delta, "b": tmp_path / "a"})
    before = of.resident_bytes
    for run in (delta, tmp_path / "a", delta):
        assert of.replace("a", run) == delta.sha256[:12]
    of.remove("b")
    assert of.resident_bytes == before
    assert of.predict([("a", TEXTS[0])])[0].error is None
    assert state(of) == ({1}, {0})
    of.remove("a")
    assert of.resident_bytes == 0


@pytest.mark.parametrize("most_bytes", [0, 1])
def test_a_budget_smaller_than_any_delta_still_serves(encoder: Encoder, tmp_path: Path, most_bytes: int) -> None:
    deltas = versions(encoder, 6)
    expected = offline(encoder, deltas)
    for i, delta in enumerate(deltas):
        delta.save(tmp_path / str(i))
    of = Pool(encoder, {str(i): tmp_path / str(i) for i in range(6)}, compute="float32", most_bytes=most_bytes)

    def ask(seed: int) -> None:
        for turn in range(6):
            items = [(str((seed + turn + i) % 6), text) for i, text in enumerate(TEXTS)]
            for (_, text), each in zip(items, of.predict(items), strict=True):
                assert is_right(each, expected[each.version][text])

    in_threads(*[partial(ask, seed) for seed in range(4)])
    assert sum(task.resident for task in of.tasks.values()) == 1
    assert state(of) == ({1}, {0})


def test_a_pass_that_needs_more_than_the_budget_gives_it_back(encoder: Encoder, tmp_path: Path) -> None:
    for i, delta in enumerate(norms(encoder, 5)):
        delta.save(tmp_path / str(i))
    one = Pool(encoder, {"a": tmp_path / "0"}).tasks["a"].bytes
    of = Pool(encoder, {str(i): tmp_path / str(i) for i in range(5)}, most_bytes=2 * one)
    assert {each.error for each in of.predict_all(TEXTS[:2])[0].values()} == {None}
    assert sum(task.resident for task in of.tasks.values()) == 2


@pytest.mark.parametrize("where", ["read", "pass", "load"])
def test_an_interrupt_leaves_nothing_held(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    deltas = norms(encoder, 3)
    for i, delta in enumerate(deltas):
        delta.save(tmp_path / str(i))
    expected = offline(encoder, deltas)
    of = Pool(encoder, {str(i): tmp_path / str(i) for i in range(3)}, compute="float32", most_bytes=1)

    def interrupted(*_: Any, **__: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)  # it is raised within

    with monkeypatch.context() as patched:
        if where == "read":
            patched.setattr(pool, "read_text", interrupted)
        elif where == "pass":
            patched.setattr(batches, "_check", interrupted)
        else:
            patched.setattr(residents.Delta, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            of.predict_all(TEXTS[:2])
    assert state(of) == ({1}, {0})
    (found,) = of.predict_all(TEXTS[:1])
    assert all(is_right(each, expected[each.version][TEXTS[0]]) for each in found.values())
    for name in [*of.tasks]:
        of.remove(name)
    assert of.resident_bytes == 0


def test_an_interrupt_between_loading_and_naming_forgets_the_delta(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, (delta,) = Pool(encoder), norms(encoder, 1)
    checks = Pool._check_name

    def interrupted(self: Pool, name: str, **options: Any) -> None:
        checks(self, name, **options)
        if of.resident_bytes:  # the second time
            raise KeyboardInterrupt

    monkeypatch.setattr(Pool, "_check_name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.add("a", delta)
    assert (of.resident_bytes, len(of)) == (0, 0)


def test_a_delta_for_which_there_is_no_memory_leaves_nothing_behind(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, (delta,) = Pool(encoder), norms(encoder, 1)
    with monkeypatch.context() as patched:
        patched.setattr(residents.SlotTable, "put", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            of.add("a", delta)
    assert (len(of), of._residents._known, of._residents._taken) == (0, {}, 0)
    of.add("a", delta)
    assert of.predict([("a", TEXTS[0])])[0].error is None


def test_a_pool_that_refuses_a_run_is_as_it_was(encoder: Encoder, tmp_path: Path) -> None:
    one, two = norms(encoder, 2)
    of = Pool(encoder, {"a": one})
    before = (of.resident_bytes, of._residents._taken, state(of))
    for action in (lambda: of.add("a", two), lambda: of.replace("b", two), lambda: of.add("b", tmp_path / "none")):
        with pytest.raises(InputError):
            action()
    assert (of.resident_bytes, of._residents._taken, state(of)) == before


@pytest.mark.slow
def test_coming_back_from_a_folder_keeps_no_memory(encoder: Encoder, tmp_path: Path) -> None:
    norms(encoder, 1)[0].save(tmp_path)

    def held_after(loads: int) -> int:
        for _ in range(loads):
            Delta.load(tmp_path)
        gc.collect()
        give_back()
        return private_bytes()

    before = held_after(500)
    # By way of safetensors' own tensors of torch it was 64 bytes a tensor, which is 1.5 MB here.
    assert held_after(1500) - before < 700_000
