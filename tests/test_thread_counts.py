"""How many threads compute, settled before torch is imported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trimtab import threads
from trimtab.threads import share_cores, threads_for, usable_cores, use_threads


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch):
    """Threads and environment are put back."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(before)


def spin_count_of(**environment: str) -> str:
    """GOMP_SPINCOUNT after `import trimtab` in a process with `environment`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    code = "import os, trimtab; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_waiting_threads_sleep_soon_unless_the_user_has_said_how_they_wait():
    assert spin_count_of() == str(threads.SPIN_COUNT)
    assert spin_count_of(OMP_WAIT_POLICY="active") == "None"
    assert spin_count_of(GOMP_SPINCOUNT="7") == "7"


def busy(monkeypatch: pytest.MonkeyPatch, others: float, cores: int = 4):
    """As if other processes had kept so many of so many cores busy since the program began."""
    monkeypatch.setattr(threads, "_BEGAN", (0.0, 0.0, 0.0))
    monkeypatch.setattr(threads, "_times", lambda: (10.0, 10 * others + 20.0, 20.0))
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)


@pytest.mark.parametrize(("others", "free"), [(1.1, 3), (2.9, 1), (9.0, 1)])
def test_cores_that_others_keep_busy_are_left_to_them(monkeypatch: pytest.MonkeyPatch, others: float, free: int):
    busy(monkeypatch, others)
    line = share_cores()
    assert torch.get_num_threads() == free
    assert line is not None
    assert f"{others:.1f} of 4 cores busy: computing with {free} thread" in line
    assert "--threads 4" in line


def test_free_cores_and_a_number_that_was_given_change_nothing(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(2)
    busy(monkeypatch, 0.3)
    assert share_cores() is None
    busy(monkeypatch, 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert share_cores() is None
    assert torch.get_num_threads() == 2


def test_a_quota_of_a_container_counts_as_fewer_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    new, old = tmp_path / "cpu.max", tmp_path / "cpu.cfs_quota_us"
    monkeypatch.setattr(threads, "_CGROUPS", (new, old))
    monkeypatch.setattr(os, "sched_getaffinity", lambda who: set(range(8)), raising=False)
    assert usable_cores() == 8
    old.write_text("-1")
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert usable_cores() == 8
    old.write_text("350000")
    assert usable_cores() == 4  # three and a half
    new.write_text("max 100000")
    assert usable_cores() == 8
    new.write_text("50000 100000")
    assert usable_cores() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    use_threads(None)
    assert torch.get_num_threads() == 1


def test_few_tokens_are_answered_by_one_thread():
    torch.set_num_threads(2)
    with threads_for(threads.ONE_THREAD_TOKENS):
        assert torch.get_num_threads() == 1
    with threads_for(threads.ONE_THREAD_TOKENS + 1):
        assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), threads_for(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_threads_are_an_option_of_what_computes(command: Callable[..., tuple[int, str, str]]):
    code, _, err = command("inspect", "minilm-that-is-not-there", "--threads", 1)
    assert code == 2
    assert torch.get_num_threads() == 1
    code, _, err = command("inspect", "minilm", "--threads", 0)
    assert (code, "--threads 0: at least 1" in err) == (2, True)
