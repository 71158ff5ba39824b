"""Named streams of random numbers from one seed, so that the head, the data order and dropout never share draws."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of `seed`: the SHA-256 of both, the same on every machine."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Runs the block with torch's global generators set to the stream `names` of `seed`, and restores them after."""
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, *names))
        yield
