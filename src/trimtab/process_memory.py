"""The memory that this process holds, as the system tells it, and handing back what it does not need."""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

SHARE = 0.6  # of the free memory that activations, or a cache that finds no disk, may take
TIDY_PASSES = 4  # between looks at the memory that is held: with 8 the peak on sst2, of one pass a step, grew by 35 MB


def forget_peak() -> None:
    """Lets `peak_bytes` count from here, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only, and not in every container
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory used so far, or since `forget_peak`: of the CUDA allocator, else resident memory of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # Linux: of this process alone. What `getrusage` tells begins with the peak of the process that started it.
    with suppress(OSError, ValueError):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows, which nothing here was tried on

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Memory that this process holds now; its peak where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


def private_bytes() -> int:
    """Memory that this process holds and shares with no file; all of it where the system does not say."""
    try:
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


class Tidy:
    """Has C's allocator hand back what it keeps free, when the process holds more than `limit_bytes` of its own.

    Steps of ever other sizes leave holes that glibc keeps: a run on IMDB grew from 1.0 to 2.4 GB. Handing back takes tens of
    milliseconds and the pages must be fetched again, so it is done seldom; where it does not help, the limit rises.
    """

    def __init__(self, limit_bytes: float):
        self.limit_bytes = limit_bytes

    def now(self, expected_bytes: float = 0.0) -> None:
        """Hands back, if it is time to; the limit is not below what is to be `expected`."""
        self.limit_bytes = max(self.limit_bytes, expected_bytes)
        if private_bytes() > self.limit_bytes:
            give_back()
            self.limit_bytes = max(self.limit_bytes, 1.25 * private_bytes())


def give_back() -> None:
    """Has the allocators hand what they keep free back to the system: CUDA's, and of C's that of glibc."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def mapped_ranges(files: Iterable[Path]) -> list[tuple[int, int]]:
    """Start and end of each stretch of memory that is one of the `files`; none where the system does not say."""
    wanted, found = {str(path.resolve()) for path in files}, []
    with suppress(OSError):  # Linux only
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, *_, path = line.split(maxsplit=5)  # the path is the sixth, where there is one
            if path in wanted:
                start, end = (int(address, 16) for address in addresses.split("-"))
                found.append((start, end))
    return found


def forget_pages(address: int, n_bytes: int) -> None:
    """Takes the whole pages of a stretch of a mapped file out of this process's memory: when read again, they come from the file.

    What else is there, or was written there, would be lost: only for what `mapped_ranges` names, and nobody writes.
    """
    page = mmap.PAGESIZE
    start, end = -(-address // page) * page, (address + n_bytes) // page * page
    with suppress(OSError, AttributeError):
        if end > start:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def free_bytes(device: torch.device) -> int:
    """Memory that could still be used: free on a GPU, else all of the machine's or of its container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    containers = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    texts = [path.read_text().strip() for path in containers if path.is_file()]
    limits += [int(text) for text in texts if text.isdecimal()]  # or "max"
    return max(0, min(limits) - resident_bytes())
