"""How many threads compute, and how long they spin while they wait: to be settled before torch is imported.

OpenMP's threads wait for the next parallel region by spinning: with torch's defaults for some ten milliseconds, where a step has
hundreds of shorter waits. Beside another busy process a spinning thread holds the core that the one it waits for should have
(benchmarks/speed/threads.py has both sides). This module imports nothing heavy.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

SPIN_COUNT = 3000
"""Turns of libgomp's waiting loop, a tenth of a millisecond or so, before a thread sleeps."""
ONE_THREAD_TOKENS = 96  # up to so many tokens in a pass, a second thread costs more than it saves

_CGROUPS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))


def settle_waiting() -> None:
    """Has threads wait for SPIN_COUNT turns and then sleep, where torch is not there yet and the user has not said otherwise."""
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def usable_cores() -> int:
    """The cores that this process may use: those of its affinity, or fewer where a container's quota of time says so."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(*_CGROUPS)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def share_cores() -> str | None:
    """Has torch compute with as many threads as cores were free since the program began, and says so; None: it stays as it is.

    Beside a process that keeps one of two cores busy, two threads take half as long again as one: each waits for the other, which
    waits for its core (benchmarks/speed/threads.py). A number that the user gave, or torchrun, is kept. Linux only.
    """
    others = _busy_elsewhere(_BEGAN, _times())
    cores = usable_cores()
    if "OMP_NUM_THREADS" in os.environ or others is None or cores < 2:
        return None
    free = max(1, round(cores - others))
    if free >= cores:
        return None
    use_threads(free)
    threads = "1 thread" if free == 1 else f"{free} threads"
    return (
        f"other processes keep {others:.1f} of {cores} cores busy: computing with {threads} (--threads {cores} for all)"
    )


def use_threads(count: int | None) -> None:
    """Has torch compute with `count` threads; None: with as many as there are usable cores, where a quota leaves fewer.

    Raises InputError for a count below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"--threads {count}: at least 1")
    if count is None:
        count = usable_cores()
        if "OMP_NUM_THREADS" in os.environ or count == os.cpu_count():
            return  # as the user has said, or as torch finds by itself
    os.environ["OMP_NUM_THREADS"] = str(count)  # for a torch that is imported later, and for processes begun here
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


@contextmanager
def threads_for(tokens: int) -> Iterator[None]:
    """While inside, passes of so few `tokens` compute with one thread; with more, nothing changes."""
    import torch

    before = torch.get_num_threads()
    if tokens > ONE_THREAD_TOKENS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _times() -> tuple[float, float, float] | None:
    """Seconds until now: of the clock, of all cores' work, and of this process's; None where the system does not tell."""
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, interrupts, soft, steal = ticks
    own = sum(os.times()[:4])
    return time.monotonic(), (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK"), own


def _busy_elsewhere(before: tuple[float, float, float] | None, now: tuple[float, float, float] | None) -> float | None:
    """Cores that other processes kept busy between two `_times`; None where that was less than a tenth of a second."""
    if before is None or now is None or now[0] - before[0] < 0.1:
        return None
    seconds, all_work, own = (after - first for after, first in zip(now, before, strict=True))
    return max(0.0, (all_work - own) / seconds)


def _quota(new: Path, old: Path) -> float | None:
    """Cores' worth of time that a container may take (cgroups of version 2 or 1), or None without a limit."""
    try:
        limit, period = new.read_text().split()[:2]
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit, period = int(old.read_text()), int(old.with_name("cpu.cfs_period_us").read_text())
        return None if limit <= 0 else limit / period
    except (OSError, ValueError):
        return None


_BEGAN = _times()
