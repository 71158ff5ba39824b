"""Ranks: processes that train one model together, each on its share of every batch (torchrun)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

TIMEOUT = timedelta(hours=2)  # rank 0 may compute a prefix for long while the others wait


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is. Every rank calls the same methods in the same order, or all wait until TIMEOUT."""

    rank: int = 0  # from 0 to count - 1
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and talks to the person."""
        return self.rank == 0

    def share(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """This rank's part of `rows`: dealt longest first, there and back, so that every rank has about as many tokens."""
        if self.count == 1:
            return rows
        # Longest first, dealt 0 1 2 2 1 0 0 1 ...: the sums of lengths differ by less than one row.
        ordered = rows[np.argsort(-sizes[rows], kind="stable")]
        turn = np.arange(len(ordered)) % (2 * self.count)
        return ordered[np.minimum(turn, 2 * self.count - 1 - turn) == self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks, in one message per dtype and device."""
        if self.count == 1:
            return
        # One message for all: gradients of norms are thousands of vectors of a few hundred numbers.
        groups: dict[tuple, list[Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for group in groups.values():
            flat = torch.cat([tensor.flatten() for tensor in group])
            dist.all_reduce(flat)
            for tensor, total in zip(group, flat.split([t.numel() for t in group]), strict=True):
                tensor.copy_(total.view(tensor.shape))

    def total(self, *values: float) -> list[float]:
        """The sum of each value over the ranks."""
        if self.count == 1:
            return list(values)
        # Float64, so that counts and sums of losses stay exact over many ranks.
        sums = torch.tensor(values, dtype=torch.float64, device=device())
        dist.all_reduce(sums)
        return sums.tolist()

    def agreed(self, value: Any) -> Any:
        """What rank 0 has found: for whatever is measured or read, and could come out differently elsewhere."""
        if self.count == 1:
            return value
        # Whatever can be pickled; what the other ranks have in its place is overwritten.
        found = [value]
        dist.broadcast_object_list(found, src=0, device=device())
        return found[0]

    def first_given(self, value: Any) -> Any:
        """The first rank's `value` that is not None: for what perhaps one of them alone was told."""
        if self.count == 1:
            return value
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return next((each for each in found if each is not None), None)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The block is run by rank 0 and then by the others, which find what it has left."""
        # They wait in front of the block, the first one behind it: one barrier for each, met once.
        if self.rank > 0:
            dist.barrier()
        try:
            yield
        finally:  # also after an error, or the others would wait until the timeout
            if self.rank == 0 and self.count > 1:
                dist.barrier()


ALONE = Ranks()  # one process for itself: nothing is shared, and nobody is waited for


@contextmanager
def joined() -> Iterator[Ranks]:
    """The Ranks that torchrun has started, joined for the block; a single one where there is no torchrun."""
    if started() == 1:
        yield Ranks()
        return
    # A caller that made the process group keeps it.
    ours = not dist.is_initialized()
    # NCCL adds up on GPUs, one for each process, and gloo on CPUs.
    if ours and torch.cuda.is_available():
        torch.cuda.set_device(device())
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=device())
    elif ours:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        # So that the next fit of these processes can join again.
        if ours:
            dist.destroy_process_group()


def started() -> int:
    """How many processes torchrun has started together; 1 where there is no torchrun."""
    # Some schedulers set WORLD_SIZE alone, for purposes of their own.
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that talks to the person, also before the others are joined."""
    return started() == 1 or os.environ["RANK"] == "0"


def device() -> torch.device:
    """Where this process trains: its own GPU where there are any."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
