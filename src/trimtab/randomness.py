"""Named streams of random numbers from one seed, so that the head, the data order and dropout never share draws."""

import hashlib
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of `seed`: the SHA-256 of both, the same on every machine."""
    # numpy's integers print otherwise than Python's.
    digest = hashlib.sha256(repr((operator.index(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds torch's global generators of the CPU and of `device`, and no others.

    torch.manual_seed also notes the call for every kind of device that there may be later, in a third of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def forked() -> AbstractContextManager[None]:
    """Restores torch's global generators behind the block: the CPU's, and that of the GPU in use."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(devices=devices)


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Runs the block with torch's global generators set to the stream `names` of `seed`, and restores them after."""
    with forked():
        torch.manual_seed(stream_seed(seed, *names))
        yield
