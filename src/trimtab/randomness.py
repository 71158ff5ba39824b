"""Named streams of random numbers from one seed, so that the head, the data order and dropout never share draws."""

from __future__ import annotations

import hashlib
import operator
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

# Not before a draw needs it: rows are read, and their errors told, without waiting for it.
if TYPE_CHECKING:
    import torch

_LOCK = threading.RLock()
"""Held from seeding torch's global generators to the last draw from them: all threads of a process share them."""


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of `seed`: the SHA-256 of both, the same on every machine."""
    # numpy's integers print otherwise than Python's.
    digest = hashlib.sha256(repr((operator.index(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, *names))


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Runs the block with torch's global generators of the CPU and of `device` seeded, while no other thread draws from them.

    torch.manual_seed also notes the call for every kind of device that there may be later, in a third of a millisecond.
    """
    import torch

    with _LOCK:
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def forked() -> Iterator[None]:
    """Restores torch's global generators behind the block: the CPU's, and that of the GPU in use."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    stack = ExitStack()
    # Not held within the block, which may be a whole fit.
    with _LOCK:
        stack.enter_context(torch.random.fork_rng(devices=devices))
    try:
        yield
    finally:
        with _LOCK:
            stack.close()


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Runs the block with torch's global generators set to the stream `names` of `seed`, and restores them after.

    No other thread draws from them meanwhile.
    """
    import torch

    with _LOCK, forked():
        torch.manual_seed(stream_seed(seed, *names))
        yield
