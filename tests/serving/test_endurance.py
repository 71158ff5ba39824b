"""A pool under load: threads that ask while others add and remove, a thousand tasks, what fails in the middle of a pass."""

import gc
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compared import TEXTS, in_threads, is_right, norms, offline, state, versions
from deltas import make_delta
from small import make_task, sentences

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.process_memory import private_bytes
from trimtab.serving import batches, pool
from trimtab.serving.pool import Pool
from trimtab.tasks.predictions import Prediction

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")


def test_one_text_a_thousand_times_runs_in_bounded_passes(
    encoder_of: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    for family, method in (("mpnet", "layer_norms"), ("bert", "layer_norms"), ("bert", "head")):
        encoder, sizes = encoder_of(family), []
        of = Pool(encoder, {"a": make_delta(encoder, make_task(), method)})
        monkeypatch.setattr(of._batches, "_most_tokens", 100)
        passed = batches.Batches._passed

        def watched(self: Any, part: Any, *args: Any, passed: Any = passed, sizes: list[int] = sizes) -> Any:
            sizes.append(len(part))
            return passed(self, part, *args)

        monkeypatch.setattr(batches.Batches, "_passed", watched)
        found = of.predict([("a", TEXTS[0])] * 1000)
        monkeypatch.setattr(batches.Batches, "_passed", passed)
        assert (len(found), {each.error for each in found}) == (1000, {None})
        assert max(sizes) <= 100


def test_only_the_guilty_half_is_tried_again(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Pool(encoder, {"a": norms(encoder, 1)[0]})
    own, passes = batches.Batches._mixed, []

    def failing(self: Any, part: Any, *args: Any) -> Any:
        passes.append(len(part))
        if any(read.number == 5 for read in part):
            raise MemoryError
        return own(self, part, *args)

    monkeypatch.setattr(batches.Batches, "_mixed", failing)
    texts = sentences(64, seed=3)
    found = of.predict([("a", text) for text in texts])
    assert [i for i, each in enumerate(found) if each.code] == [5]
    assert found[5].code == "internal"
    assert len(passes) == 1 + 2 * 6  # of 64: in halves six times


class Meddling(str):
    """A name that changes the tasks when it is looked at, as another thread may."""

    __slots__ = ("of",)
    of: Pool

    def __str__(self) -> str:
        self.of._names["more"] = self.of._names["a"]
        return "other"


def test_tasks_may_change_while_a_name_is_looked_for(encoder: Encoder) -> None:
    of = Pool(encoder, {"a": norms(encoder, 1)[0]})
    name = Meddling("meddling")
    name.of = of
    of._names = {name: of._names["a"]} | of._names
    assert of.predict([("b", TEXTS[0])])[0].code == "unknown_task"
    assert "more" in of


def test_an_unknown_name_is_looked_for_once_a_call(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    of, calls = Pool(encoder, {"a": norms(encoder, 1)[0]}), []
    monkeypatch.setattr(pool, "suggestion", lambda name, known: calls.append(name) or "")
    found = of.predict([(name, text) for text in TEXTS for name in ("b", "c")])
    assert {each.code for each in found} == {"unknown_task"}
    assert calls == ["b", "c"]


def test_a_thousand_tasks_predict_each_as_its_own(encoder: Encoder) -> None:
    deltas = norms(encoder, 7)
    of = Pool(encoder, {f"task{i}": deltas[i % 7] for i in range(1000)}, compute="float32")
    expected = offline(encoder, deltas, TEXTS[:1])
    (found,) = of.predict_all(TEXTS[:1])
    assert [*found] == [f"task{i}" for i in range(1000)]
    for i, each in enumerate(found.values()):
        assert each.version == deltas[i % 7].sha256[:12]
        assert is_right(each, expected[each.version][TEXTS[0]])


def test_first_deltas_of_many_threads_at_once_leave_the_model_right(encoder: Encoder) -> None:
    deltas = norms(encoder, 8)
    expected = offline(encoder, deltas)
    pools = [Pool(encoder, compute="float32") for _ in range(3)]
    for of in pools:
        in_threads(*[partial(of.add, f"task{i}", delta) for i, delta in enumerate(deltas)])
        assert {task.mixed for task in of.tasks.values()} == {True}
        for text, found in zip(TEXTS[:3], of.predict_all(TEXTS[:3]), strict=True):
            assert all(is_right(each, expected[each.version][text]) for each in found.values())


@dataclass
class Load:
    """A pool of twelve tasks under load: the first six are always there, and their folders too."""

    of: Pool
    deltas: list[Delta]
    expected: dict[str, dict[str, Prediction]]
    folder: Path
    over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def make(cls, encoder: Encoder, folder: Path) -> "Load":
        deltas = versions(encoder, 12)
        for i, delta in enumerate(deltas):
            delta.save(folder / str(i))
        # A third of their bytes may be in memory.
        of = Pool(encoder, compute="float32", most_bytes=sum(4 * len(d.values) for d in deltas))
        for i, delta in enumerate(deltas):
            of.add(f"task{i}", delta if i % 6 == 5 else folder / str(i))
        return cls(of, deltas, offline(encoder, deltas), folder)

    def ask(self, seed: int, turns: int) -> None:
        """Predicts, each prediction as offline."""
        for turn in range(turns):
            if turn % 5 == 0:
                per_text = self.of.predict_all(TEXTS[:2])
                said = [(text, each) for text, found in zip(TEXTS, per_text, strict=False) for each in found.values()]
            else:
                items = [(f"task{(seed + 5 * turn + i) % 12}", text) for i, text in enumerate(TEXTS)]
                said = [(text, each) for (_, text), each in zip(items, self.of.predict(items), strict=True)]
            for text, each in said:
                gone = ("unknown_task", "unavailable") if int(each.task[4:]) >= 6 else ()
                assert each.code in (None, *gone), each.error
                assert each.code or is_right(each, self.expected[each.version][text])

    def change(self) -> None:
        """Removes and adds tasks, whose folders are removed and written anew, and replaces others."""
        turn = 0
        while not self.over.is_set():
            turn += 1
            name, source = f"task{6 + turn % 6}", (5 * turn) % 12
            place = self.folder / f"fleeting{turn % 3}"
            shutil.rmtree(place, ignore_errors=True)
            self.deltas[source].save(place)
            if name in self.of:
                self.of.remove(name)
            self.of.add(name, place)
            self.of.replace(f"task{turn % 6}", self.folder / str(source) if turn % 4 else self.deltas[source])

    def run(self, n_threads: int, turns: int) -> None:
        """All at once; in the end nothing is held."""

        def ask() -> None:
            try:
                in_threads(*[partial(self.ask, seed, turns) for seed in range(n_threads)])
            finally:
                self.over.set()

        in_threads(ask, self.change)
        assert state(self.of)[1] == {0}
        for name in [*self.of.tasks]:
            self.of.remove(name)
        assert (self.of.resident_bytes, self.of._residents._taken, self.of._residents._known) == (0, 0, {})


def test_predictions_stay_right_while_tasks_and_their_folders_change(encoder: Encoder, tmp_path: Path) -> None:
    Load.make(encoder, tmp_path).run(n_threads=4, turns=12)


@pytest.mark.slow
def test_predictions_stay_right_for_long(encoder: Encoder, tmp_path: Path) -> None:
    Load.make(encoder, tmp_path).run(n_threads=8, turns=200)


@pytest.mark.slow
def test_memory_does_not_grow_with_predictions_and_changes(encoder: Encoder, tmp_path: Path) -> None:
    deltas = versions(encoder, 6)
    of = Pool(encoder, {str(i): delta for i, delta in enumerate(deltas)}, compute="float32")
    draw = torch.Generator().manual_seed(0)

    def turns(n: int) -> None:
        for turn in range(n):
            length = int(torch.randint(1, 50, (), generator=draw))
            of.predict_all([" ".join(["cat dog fish the"] * length)] * 2)
            of.replace(str(turn % 6), deltas[(turn + 1) % 6])
        gc.collect()

    turns(600)
    before = private_bytes()
    turns(1200)  # 14,400 predictions
    assert private_bytes() - before < 8e6
