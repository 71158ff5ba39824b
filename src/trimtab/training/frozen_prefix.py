"""Prefix: what the frozen first layers make of every row, computed once instead of at every visit.

It is right because those layers run without dropout and nothing in them changes. It is kept in a memory-mapped file
under a stated budget, named by everything it depends on, so that a second run on the same rows starts from it; where no
file can be written, in memory, if it has room.
"""

# Shapes: T tokens of all rows, N rows, B rows of a batch, H width.

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cache import cache_folder, delete, key_of, make_room, mark_used
from ..encoders.inputs import Inputs
from ..engine import PreparedModel
from ..files import flush_to_disk, part_of
from ..process_memory import SHARE, free_bytes
from ..version import VERSION
from .batches import token_groups

MOST_TOKENS = 4096  # in one forward pass while it is computed, without gradients

_SECONDS = struct.Struct("<d")  # behind the states in their file: what computing them took

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Prefix:
    """What layer `depth` is given of every row; behind the last layer, what pooler and head are given."""

    depth: int
    pooled: bool  # one state per row instead of one per token
    starts: np.ndarray = field(repr=False)  # (N + 1,) the first state of each row
    states: Tensor = field(repr=False)  # (T, H), or (N, H), of pairs apart (2 N, H)
    firsts: np.ndarray | None = None  # (N,) of pairs apart: states of each row's first text
    saved_seconds: float = 0.0  # that computing them took, where an earlier fit has spent them

    @cached_property
    def sizes(self) -> np.ndarray:
        """States per row (N,)."""
        return np.diff(self.starts)

    def logits(self, prepared: PreparedModel, rows: np.ndarray) -> Tensor:
        """Float32 logits (B, C) of the rows at `rows`, with gradients above `depth`."""
        states, lengths = self.of(rows)
        return prepared.logits_from(states.to(prepared.device), lengths, self.depth)

    def of(self, rows: np.ndarray) -> tuple[Tensor, list[int]]:
        """The states of the rows at `rows`, one text behind the other, and how many each text has."""
        if self.pooled and self.firsts is None:
            states = self.states[torch.from_numpy(rows)]
        else:
            # (T, H), one text behind the other.
            states = torch.cat([self.states[self.starts[row] : self.starts[row + 1]] for row in rows])
        sizes = self.sizes[rows]
        if self.firsts is not None:
            sizes = np.stack([self.firsts[rows], sizes - self.firsts[rows]], 1).ravel()
        return states, sizes.tolist()


def computed(
    prepared: PreparedModel, inputs: Inputs, depth: int, named: str, most_bytes: int, ours: set[Path], at_once: int
) -> Iterator[tuple[int, Prefix | None]]:
    """Yields (rows done, None) while it computes, and last (rows, the Prefix), or (0, None) where there is no room for it.

    The model is in evaluation mode; `named` says what the states depend on beside the inputs: the encoder, the
    head's way of pooling and the arithmetic. Files in `ours` are not deleted to make room; that of this prefix is added.
    There is none beyond `most_bytes`, nor where both disk and memory are full.
    `at_once` are the most tokens of a forward pass, which decide the last bits as well.
    """
    lengths, at_once = inputs.lengths, min(at_once, MOST_TOKENS)
    # One row shows the width and the dtype of the states, before any room is made for them.
    probe = prepared.states(inputs.take([0]), depth)
    # Behind the last layer the head reads one state per text, so no other is kept.
    pooled = depth == prepared.n_layers
    each = 1 if inputs.firsts is None else 2  # texts of a row
    starts = np.concatenate([[0], (np.full_like(lengths, each) if pooled else lengths).cumsum()])
    firsts = np.ones_like(lengths) if pooled and inputs.firsts is not None else inputs.firsts
    shape = (int(starts[-1]), probe.shape[1])
    n_bytes = math.prod(shape) * probe.element_size()
    path = cache_folder() / "prefix" / _key(inputs, depth, f"{named} {at_once}")
    found = _open(path, shape, probe.dtype) if n_bytes <= most_bytes else None  # a budget of 0 means no cache at all
    if found is not None:
        _log.info("the first %d layers' states are read from %s", depth, path)
        ours.add(path)
        states, seconds = found
        yield len(inputs), Prefix(depth, pooled, starts, states, firsts, seconds)
        return
    if not make_room(n_bytes, most_bytes, ours):
        _log.info("the states behind %d layers would take %.1f GB: computed at every visit", depth, n_bytes / 1e9)
        yield 0, None
        return
    # Under another name until it is whole: a file with the name of the key is a finished one.
    temporary = part_of(path)
    states, in_file = _created(temporary, shape, probe.dtype)
    if states is None:
        yield 0, None
        return
    try:
        done, began = 0, time.perf_counter()
        for rows in token_groups(lengths, range(len(inputs)), at_once):
            made = prepared.states(inputs.take(rows.tolist()), depth).to(states.device)
            for row, part in zip(rows, made.split(np.diff(starts)[rows].tolist()), strict=True):
                states[starts[row] : starts[row + 1]] = part
            done += len(rows)
            yield done, None
        if in_file:
            with suppress(OSError):  # another process has deleted it: the mapping is whole all the same
                with temporary.open("r+b") as file:
                    file.seek(n_bytes)
                    file.write(_SECONDS.pack(time.perf_counter() - began))
                flush_to_disk(temporary)
                temporary.replace(path)
                ours.add(path)
    finally:
        # Gone already where it was moved; a caller that stops on the way (Ctrl-C) closes this generator at its yield.
        delete(temporary)
    yield len(inputs), Prefix(depth, pooled, starts, states, firsts)


def _key(inputs: Inputs, depth: int, named: str) -> str:
    """The name of the file: a hash of all the states depend on, the versions of what computes them included."""
    made_by = [f"{package} {version(package)}" for package in ("torch", "transformers")]
    return key_of([named, str(depth), f"trimtab {VERSION}", *made_by, inputs.sha256])


def _open(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, float] | None:
    """The states in a finished file, and the seconds that computing them took; None where there is none of the right size."""
    count = math.prod(shape)
    n_bytes = count * dtype.itemsize
    try:
        if path.stat().st_size != n_bytes + _SECONDS.size:
            return None
        with path.open("rb") as file:
            file.seek(n_bytes)
            (seconds,) = _SECONDS.unpack(file.read(_SECONDS.size))
        # Mapped and not read: a page comes from the disk when a row in it is visited, and nothing is written back.
        states = torch.from_file(str(path), shared=False, size=count, dtype=dtype)
    except (OSError, RuntimeError):
        return None
    mark_used(path)
    return states.view(shape), seconds


def _created(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor | None, bool]:
    """Room for the states, and whether it is a file's: what is written to the tensor is then written to the file.

    None where neither the disk nor the memory has room.
    """
    count = math.prod(shape)
    n_bytes = count * dtype.itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _reserve(path, n_bytes)
        return torch.from_file(str(path), shared=True, size=count, dtype=dtype).view(shape), True
    except (OSError, RuntimeError) as error:
        delete(path)
        if n_bytes > SHARE * free_bytes(torch.device("cpu")):
            _log.info(
                "no file for the first layers' states (%s), and too little memory: computed at every visit", error
            )
            return None, False
        _log.info("no file for the first layers' states (%s): they are kept in memory", error)
        return torch.empty(shape, dtype=dtype), False


def _reserve(path: Path, n_bytes: int) -> None:
    """Makes a file of that size; raises OSError where the disk is full: in the mapping that would kill the process."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        elif n_bytes <= shutil.disk_usage(path.parent).free:  # macOS has no such call
            file.truncate(n_bytes)
        else:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
