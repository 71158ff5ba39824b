"""Cells computed by several processes: the same cells, and every way in which a process can end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import owned
import pytest
import torch
from small import make_task

import trimtab
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.results.cells import Cells
from trimtab.studies import executor as module
from trimtab.studies.compare import compare
from trimtab.studies.executor import InProcess, Processes, executor_of
from trimtab.studies.recommend import recommend

FEW = {"n_train": 24, "n_validation": 12}


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Encoder:
    return encoder_of("bert")


@pytest.mark.slow
def test_two_processes_come_to_the_same_cells(encoder: Encoder, tmp_path: Path) -> None:
    tasks = [make_task(**FEW), replace(make_task("regression", **FEW), name="counts")]
    given: dict[str, Any] = {"seeds": 2, "epochs": 1, "compute": "float32"}
    alone = compare(encoder, tasks, ["head", "biases"], out=tmp_path / "alone", **given)
    both = compare(encoder, tasks, ["head", "biases"], out=tmp_path / "both", jobs=2, **given)
    unkept = compare(encoder, tasks, ["head", "biases"], jobs=2, **given)
    for found in (both, unkept):
        assert [(c.method, c.seed, c.scores, c.outputs) for c in found.cells] == [
            (c.method, c.seed, c.scores, c.outputs) for c in alone.cells
        ]
    assert len(list(Cells(tmp_path / "both").every())) == 8


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced_and_its_cell_tried_again(
    encoder: Encoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once: the cell is there. Twice: it is refused, the others are there, and the next study has it."""
    methods = [owned.Deadly(str(tmp_path), 1), trimtab.Head()]
    given: dict[str, Any] = {"seeds": 1, "out": tmp_path / "study", "epochs": 1, "jobs": 2}
    found = compare(encoder, make_task(**FEW), methods, progress=True, **given)
    assert found.refused == {}
    assert "seed 0: its process was killed by signal 9, as where memory runs out" in capfd.readouterr().err
    methods = [owned.Deadly(str(tmp_path), 3), trimtab.Head(), trimtab.Biases()]
    found = compare(encoder, make_task(**FEW), methods, **given)
    (refusal,) = found.refused.values()
    assert refusal == "its process was killed by signal 9, as where memory runs out 2 times: give fewer jobs, or none"
    assert [s.method for s in found.overall] == ["head", "biases"]
    (tmp_path / "died-3").touch()
    assert compare(encoder, make_task(**FEW), methods, **given).refused == {}


def test_a_fault_in_a_process_ends_the_study_and_all_processes(encoder: Encoder, tmp_path: Path) -> None:
    methods = [owned.Slow(str(tmp_path)), owned.Faulty()]
    with pytest.raises(ZeroDivisionError, match="a fault of the method") as caught:
        compare(encoder, make_task(**FEW), methods, seeds=1, epochs=1, jobs=2)
    assert "in attach" in "".join(caught.value.__notes__), "the place is told"
    for path in tmp_path.glob("begun-*"):
        assert ended(int(path.name.removeprefix("begun-")))


def test_a_method_that_a_process_refuses_marks_its_cells(encoder: Encoder) -> None:
    found = compare(encoder, make_task(**FEW), ["head", "last_layers:k=9"], seeds=1, epochs=1, jobs=2)
    assert "does not fit" in found.refused["last_layers:k=9"]
    assert [s.method for s in found.overall] == ["head"]


@dataclass(frozen=True)
class OfThisFile:
    """One that pickle knows by a name that is not to be found."""

    def attach(self, model: Any, batches: Any = (), loss: Any = None) -> Any:
        return trimtab.Head().attach(model)


def test_a_method_that_cannot_be_sent_is_told_before_any_fit(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Local(OfThisFile):
        pass

    monkeypatch.setattr(module, "begun", lambda threads: pytest.fail("a process was begun"))
    with pytest.raises(InputError, match=r"Local.* cannot be sent to other processes .*define it in a module"):
        compare(encoder, make_task(**FEW), [Local()], seeds=1, jobs=2)
    with pytest.raises(InputError, match=r"Local.* cannot be sent"):
        compare(encoder, make_task(**FEW), [trimtab.Random(count=3, within=Local())], seeds=1, jobs=2)
    monkeypatch.setattr(OfThisFile, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "OfThisFile", OfThisFile, raising=False)
    with pytest.raises(InputError, match="it is defined in the script or notebook itself"):
        compare(encoder, make_task(**FEW), [OfThisFile()], seeds=1, jobs=2)
    assert compare(encoder, make_task(**FEW), [Local()], seeds=1, epochs=1).overall, "this process can"


def ended(process: int) -> bool:
    """Whether it is gone, or will be in a moment."""
    for _ in range(100):
        try:
            os.kill(process, 0)
            if "\nState:\tZ" in Path(f"/proc/{process}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


# A shell that runs the tests in the background has them ignore Ctrl-C, and whatever they start.
STUDY = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{tests!r}, {studies!r}]
import owned, trimtab
from small import make_task
trimtab.compare({encoder!r}, make_task(n_train=24, n_validation=12), [owned.Slow({folder!r})], seeds=2, epochs=1, jobs=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_when_the_study_is_ended_so_are_its_processes(sent: signal.Signals, encoder: Encoder, tmp_path: Path) -> None:
    """By Ctrl-C, which reaches the first process alone, and by a kill, of which that knows nothing; nor is a script without a
    guard run again."""
    here = Path(__file__).parent
    script = tmp_path / "script.py"
    script.write_text(
        STUDY.format(tests=str(here.parent), studies=str(here), encoder=str(encoder.folder), folder=str(tmp_path))
    )
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while len(list(tmp_path.glob("begun-*"))) < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        workers = [int(path.name.removeprefix("begun-")) for path in tmp_path.glob("begun-*")]
        assert len(workers) == 2
        assert process.pid not in workers
        os.killpg(process.pid, sent)
        _, err = process.communicate(timeout=300)
        assert process.returncode == (-sent if sent == signal.SIGKILL else 1) or "KeyboardInterrupt" in err
        assert all(map(ended, workers))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def test_a_process_that_cannot_begin_is_a_fault(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(threads: int) -> Any:
        process, connection = begun(threads)
        connection.send("no job")
        return process, connection

    begun = module.begun
    monkeypatch.setattr(module, "begun", failing)
    with pytest.raises(AttributeError, match="'str' object has no attribute"):
        compare(encoder, make_task(**FEW), ["head"], seeds=1, epochs=1, jobs=2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(module, "begun", begun)
    with pytest.raises(RuntimeError, match="ended with exit code 1 before it computed anything"):
        compare(encoder, make_task(**FEW), ["head"], seeds=1, epochs=1, jobs=2)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "begun", lambda threads: asked.append(threads) or (None, None))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    for count in (2, 3, 9):
        Processes(count)._begin()
    assert asked == [3, 2, 1]


@pytest.mark.slow
def test_recommend_keeps_its_processes_for_both_rounds(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, count = module.begun, []
    monkeypatch.setattr(module, "begun", lambda threads: count.append(threads) or begun(threads))
    task, given = (
        make_task(n_train=60, n_validation=8),
        {"rows": 40, "epochs": 1, "batch_size": 8, "compute": "float32"},
    )
    found = recommend(encoder, task, "300", seeds=2, jobs=2, out=tmp_path, **given)
    assert len(count) == 2
    assert found.final.seeds == [0, 1]
    assert {cell.refused for cell in found.final.cells} == {None}


def test_a_number_of_jobs_below_one_is_refused(encoder: Encoder, command: Any) -> None:
    assert isinstance(executor_of(1), InProcess)
    with pytest.raises(InputError, match="jobs=0: at least 1"):
        executor_of(0)
    code, _, err = command("compare", encoder.folder, "helpdesk", "--jobs", 0)
    assert (code, "--jobs 0: at least 1" in err) == (2, True)
    code, _, err = command("recommend", encoder.folder, "helpdesk", "--budget", "5%", "--jobs", -1)
    assert (code, "--jobs -1: at least 1" in err) == (2, True)
