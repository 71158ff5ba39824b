"""Which deltas are in memory: by content, counted by their users, and within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..changes.delta import Delta
from ..errors import InputError
from .served_delta import ServedDelta
from .slot_table import Layout, SlotTable


@dataclass
class _Resident:
    """A delta, and who uses it."""

    served: ServedDelta
    users: int  # names that stand for it, and calls that have begun with it
    slot: int | None  # None where it has left memory
    busy: int = 0  # calls that read its slot now


class Residents:
    """Values of deltas by their SHA-256; two names of one delta have them once."""

    def __init__(self, most_bytes: int | None, device: torch.device):
        self._most_bytes, self._device = most_bytes, device
        self._tables: dict[Layout, SlotTable] = {}
        self._known: OrderedDict[str, _Resident] = OrderedDict()  # the first has not been used for longest
        self._taken = 0  # bytes of the rows in use
        self._lock = threading.RLock()
        self._loading = threading.Lock()  # one is read from disk at a time, and nobody else waits

    @property
    def nbytes(self) -> int:
        """Of all values in memory, free rows included."""
        with self._lock:
            return sum(table.nbytes for table in self._tables.values())

    def has(self, served: ServedDelta) -> bool:
        """Whether its values are in memory."""
        with self._lock:
            found = self._known.get(served.sha256)
            return found is not None and found.slot is not None

    def take(self, served: ServedDelta, delta: Delta) -> None:
        """Takes the values of `delta` into memory, for one more user."""
        with self._lock:
            found = self._known.setdefault(served.sha256, _Resident(served, 0, None))
            found.users += 1
            if found.served.place is None:  # what was given in memory may lie in a folder too
                found.served = served
            if found.slot is None:
                self._enter(found, delta)
            self._used(found)

    def keep(self, served: ServedDelta) -> None:
        """Counts one more user of a delta that has one."""
        with self._lock:
            self._known[served.sha256].users += 1

    def release(self, served: ServedDelta) -> None:
        """Counts one user less; without any, it is forgotten."""
        with self._lock:
            found = self._known[served.sha256]
            found.users -= 1
            if found.users == 0:
                del self._known[served.sha256]
                self._leave(found)

    def values(self, served: ServedDelta) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Values and positions by name, which stay until `done`; read from disk where they have left memory.

        Raises InputError where they cannot be read any more, or are others by now.
        """
        while True:
            with self._lock:
                found = self._known[served.sha256]
                if found.slot is not None:
                    found.busy += 1
                    self._used(found)
                    return self._table(served).values(found.slot)
            with self._loading:
                if not self.has(served):
                    self._come_back(found)

    def done(self, served: ServedDelta) -> None:
        """Says that a call no longer reads what `values` gave it."""
        with self._lock:
            self._known[served.sha256].busy -= 1

    def _come_back(self, found: _Resident) -> None:
        place = found.served.place
        assert place is not None  # others never leave
        delta = Delta.load(place)
        if delta.sha256 != found.served.sha256:
            raise InputError(f"{place} holds another delta than when it was added: replace the task with it")
        with self._lock:
            self._enter(found, delta)
            self._used(found)

    def _used(self, found: _Resident) -> None:
        """Notes that it was used last, and has others leave where memory is more than it may be."""
        self._known.move_to_end(found.served.sha256)
        if self._most_bytes is None or self._taken <= self._most_bytes:
            return
        for each in [*self._known.values()]:
            if self._taken <= self._most_bytes:
                return
            if each is not found and each.slot is not None and not each.busy and each.served.place is not None:
                self._leave(each)

    def _enter(self, found: _Resident, delta: Delta) -> None:
        """Gives it a row."""
        found.slot = self._table(found.served).put(delta)
        self._taken += found.served.layout.row_bytes

    def _leave(self, found: _Resident) -> None:
        """Frees its row."""
        if found.slot is None:
            return
        layout = found.served.layout
        self._tables[layout].free(found.slot)
        found.slot = None
        self._taken -= layout.row_bytes
        if not self._tables[layout].nbytes:
            del self._tables[layout]

    def _table(self, served: ServedDelta) -> SlotTable:
        if served.layout not in self._tables:
            self._tables[served.layout] = SlotTable(served.layout, self._device)
        return self._tables[served.layout]
