"""Which deltas are in memory: by content, counted by their users, and within a budget of bytes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..changes.delta import Delta
from ..errors import InputError
from .served_delta import ServedDelta
from .slot_table import SlotTable


@dataclass
class _Resident:
    """A delta, and who uses it."""

    served: ServedDelta
    # Names that stand for it and calls that have begun with it, by the folder that theirs came from: one of them may be gone.
    users: Counter[Path | None] = field(default_factory=Counter)
    slot: int | None = None  # None where it has left memory
    busy: int = 0  # calls that read its slot now

    @property
    def may_leave(self) -> bool:
        """Whether it is in memory, nobody reads it now, and every user's can come back from a folder."""
        return self.slot is not None and not self.busy and self.users[None] == 0


class Residents:
    """Values of deltas by their SHA-256; two names of one delta have them once."""

    def __init__(self, most_bytes: int | None, device: torch.device):
        self._most_bytes, self._device = most_bytes, device
        self._tables: dict[tuple[int, int], SlotTable] = {}  # by the size of their rows
        self._known: dict[str, _Resident] = {}
        self._present: OrderedDict[str, _Resident] = OrderedDict()  # in memory; the first has not been used for longest
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
            found = self._known.get(served.sha256, _Resident(served))
            if found.slot is None:
                self._enter(found, delta)
            # Known only now: where there is no memory for it, nothing is left behind.
            self._known[served.sha256] = found
            found.users[served.place] += 1
            self._present.move_to_end(served.sha256)

    def keep(self, served: ServedDelta) -> None:
        """Counts one more user of a delta that has one."""
        with self._lock:
            self._known[served.sha256].users[served.place] += 1

    def release(self, served: ServedDelta) -> None:
        """Counts one user less; without any, it is forgotten."""
        with self._lock:
            found = self._known[served.sha256]
            found.users[served.place] -= 1
            found.users = +found.users  # without places that nobody uses
            if not found.users:
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
                    return self._begun(found)
            with self._loading:
                if self.has(served):
                    continue
                delta = self._loaded(found)
                # Begun before others can have it leave again.
                with self._lock:
                    if found.slot is None:  # a name may have been added for it meanwhile
                        self._enter(found, delta)
                    return self._begun(found)

    def done(self, served: ServedDelta) -> None:
        """Says that a call no longer reads what `values` gave it."""
        with self._lock:
            found = self._known[served.sha256]
            found.busy -= 1
            if found.may_leave:  # a pass of many tasks takes more than may stay
                self._make_room()

    def _begun(self, found: _Resident) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """What `values` returns of one that is in memory."""
        assert found.slot is not None
        found.busy += 1
        self._present.move_to_end(found.served.sha256)
        return self._table(found.served).values(found.slot, found.served.layout)

    def _loaded(self, found: _Resident) -> Delta:
        """The delta from the first of its users' folders that still has it."""
        with self._lock:
            places = [place for place in found.users if place is not None]  # others never leave
        errors: list[InputError] = []
        for place in places:
            try:
                delta = Delta.load(place)
            except InputError as error:
                errors.append(error)
                continue
            if delta.sha256 == found.served.sha256:
                return delta
            told = f"{place} holds another delta than when it was added: replace the task with it"
            errors.append(InputError(told))
        raise errors[0]

    def _make_room(self) -> None:
        """Has those leave that were not used for longest, where memory is more than it may be; the last used one stays."""
        if self._most_bytes is None or self._taken <= self._most_bytes:
            return
        for each in [*self._present.values()][:-1]:
            if self._taken <= self._most_bytes:
                return
            if each.may_leave:
                self._leave(each)

    def _enter(self, found: _Resident, delta: Delta) -> None:
        """Gives it a row; the last used one, and others may have to leave."""
        found.slot = self._table(found.served).put(delta, found.served.layout)
        self._taken += found.served.layout.row_bytes
        self._present[found.served.sha256] = found
        self._make_room()

    def _leave(self, found: _Resident) -> None:
        """Frees its row."""
        if found.slot is None:
            return
        layout = found.served.layout
        self._tables[layout.size].free(found.slot)
        found.slot = None
        del self._present[found.served.sha256]
        self._taken -= layout.row_bytes
        if not self._tables[layout.size].nbytes:
            del self._tables[layout.size]

    def _table(self, served: ServedDelta) -> SlotTable:
        size = served.layout.size
        if size not in self._tables:
            self._tables[size] = SlotTable(served.layout, self._device)
        return self._tables[size]
