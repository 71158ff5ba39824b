"""Values of many deltas in memory: a row of a table each, and no tensor for each parameter, which would take as much again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..changes.delta import Delta

_BLOCK_ROWS, _BLOCK_BYTES = 16, 1 << 20  # of a block, at most; or one row


class Entry(NamedTuple):
    """A parameter of a delta: the shape of its values, and how many positions they have where they are not all of it."""

    name: str
    shape: tuple[int, ...]
    n_positions: int


@dataclass(frozen=True)
class Layout:
    """Which values a delta holds, in the order in which they lie in its row."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, delta: Delta) -> Layout:
        """That of `delta`."""
        positions = delta.positions
        return cls(
            tuple(
                Entry(name, tuple(value.shape), len(positions[name]) if name in positions else 0)
                for name, value in sorted(delta.values.items())
            )
        )

    @cached_property
    def n_values(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.entries)

    @cached_property
    def n_positions(self) -> int:
        return sum(entry.n_positions for entry in self.entries)

    @property
    def size(self) -> tuple[int, int]:
        """The values and positions of the rows of its table, which may have a few more."""
        if not self.n_positions:
            return self.n_values, 0
        # Of equally large subsets one may hold a vector whole: rounded up, by 6% at most, they share a table all the same.
        return _rounded(self.n_values), _rounded(self.n_positions)

    @property
    def row_bytes(self) -> int:
        """Of one delta in its table: values of float32 and positions of int32."""
        return 4 * sum(self.size)


def _rounded(count: int) -> int:
    step = 1 << max(0, count.bit_length() - 5)
    return -(-count // step) * step


class SlotTable:
    """Rows of one size, which never move: blocks are added as needed, and given back when all of their rows are free.

    Deltas of several layouts lie in one table where they have as many values and positions: a random subset is laid out otherwise
    for every seed.
    """

    def __init__(self, layout: Layout, device: torch.device):
        self._device = device
        self._n_values, self._n_positions = layout.size
        self._rows_per_block = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, layout.row_bytes)))
        self._blocks: dict[int, tuple[Tensor, Tensor]] = {}  # number -> values and positions, a row for each delta
        self._free: dict[int, list[int]] = {}  # number of a block -> its free rows

    def put(self, delta: Delta, layout: Layout) -> int:
        """The number of the row that now holds the values of `delta`, which are laid out so."""
        block = next((number for number, free in self._free.items() if free), None)
        if block is None:
            block, n = max(self._blocks, default=-1) + 1, self._rows_per_block
            self._blocks[block] = (
                torch.empty(n, self._n_values, device=self._device),
                torch.empty(n, self._n_positions, dtype=torch.int32, device=self._device),
            )
            self._free[block] = [*range(n)]
        row = self._free[block][0]
        values, positions = (table[row] for table in self._blocks[block])
        names = [entry.name for entry in layout.entries]
        values[: layout.n_values] = torch.cat([delta.values[name].float().flatten() for name in names])
        if self._n_positions:
            positions[: layout.n_positions] = torch.cat(
                [delta.positions[name] for name in names if name in delta.positions]
            )
        del self._free[block][0]  # not before all is there
        return block * self._rows_per_block + row

    def values(self, slot: int, layout: Layout) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Values and positions at `slot`, by name: views of its row."""
        number, row = divmod(slot, self._rows_per_block)
        values, positions = (table[row] for table in self._blocks[number])
        entries = layout.entries
        parts = values[: layout.n_values].split([math.prod(entry.shape) for entry in entries])
        found = {
            entry.name: part if len(entry.shape) == 1 else part.view(entry.shape)
            for entry, part in zip(entries, parts, strict=True)
        }
        if not self._n_positions:
            return found, {}
        given = [entry for entry in entries if entry.n_positions]
        places = positions[: layout.n_positions].split([entry.n_positions for entry in given])
        return found, {entry.name: place for entry, place in zip(given, places, strict=True)}

    def free(self, slot: int) -> None:
        """Gives the row back."""
        number, row = divmod(slot, self._rows_per_block)
        self._free[number].append(row)
        if len(self._free[number]) == self._rows_per_block:
            del self._free[number], self._blocks[number]

    @property
    def nbytes(self) -> int:
        """Of all blocks, free rows included."""
        return sum(values.nbytes + positions.nbytes for values, positions in self._blocks.values())
