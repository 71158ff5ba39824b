"""The cells of a study: one file, a line each, to which several processes append and which a kill cannot spoil."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..files import unwritable
from .outputs import probabilities_of, unpacked

FILE, CLAIMS = "cells.jsonl", "claims"  # in the folder of a study
FORMAT = 3  # of a line; in files of format 2 each cell had a file of its own
_APPENDING = "append.lock"


@dataclass(frozen=True)
class Cell:
    """One method on one task with one seed: what came of it, or why it could not be."""

    task: str
    method: str
    seed: int
    metric: str  # name of the task's main metric
    scores: Mapping[str, float] = field(default_factory=dict)  # validation, at the best step
    baseline: Mapping[str, float] = field(default_factory=dict)  # validation, before training
    elements: Mapping[str, int] = field(default_factory=dict)  # backbone and head, the first under the key "body"
    share: float = 0.0  # of the backbone
    seconds: float = 0.0  # the whole fit, as if nothing had been cached before it
    examples_per_second: float = 0.0
    peak_memory_bytes: int = 0  # of the process during the fit
    delta_bytes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)  # with the method's own filled in
    answers: list[Any] = field(default_factory=list, repr=False)  # the prediction for each validation row
    choosing_seconds: float | None = None  # of `seconds`: what the method took to choose; None where it was not noted
    refused: str | None = None  # why the method cannot be used here
    judged_by: str | None = None  # the score by which the best step was chosen; None where it was not noted
    outputs: str | None = field(
        default=None, repr=False
    )  # the prediction for each validation row, as `outputs.packed` has them

    forgetting: Mapping[str, Any] | None = (
        None  # what was kept of the encoder, on other texts; None where it was not asked for
    )

    @property
    def score(self) -> float:
        """The task's main score."""
        return self.scores[self.metric]

    @property
    def logits(self) -> NDArray | None:
        """The model's outputs (N, C) to the validation rows; None for values, and in cells of before they were kept."""
        return None if self.outputs is None else unpacked(self.outputs)

    @property
    def probabilities(self) -> NDArray | None:
        """The probability (N, C) of each class in each validation row; None where there are no `logits`."""
        return None if self.outputs is None else probabilities_of(self.outputs)

    def as_json(self) -> dict[str, Any]:
        """All but what is said of each row."""
        return {name: value for name, value in asdict(self).items() if name not in ("answers", "outputs")}


@dataclass(frozen=True)
class Identity:
    """What decides a cell, hashed: `now`, and `before` as files of format 2 have it, a hash for each metric it may have had."""

    now: str
    before: Mapping[str, str]  # metric -> hash


class Cells:
    """The finished cells in a folder; those that other processes add are seen when a cell is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._found: dict[str, list[Cell]] = {}  # by identity
        self._read = 0  # bytes of the file
        self._old: dict[str, Path] | None = (
            None  # files of format 2, by the first digits of the identity in their names
        )

    def find(self, identity: Identity, metric: str) -> Cell | None:
        """The cell; of several the one whose fit was given `metric`, else the last. None where there is none."""
        self._refresh()
        cells = self._found.get(identity.now) or self._imported(identity)
        return next((cell for cell in cells if cell.metric == metric), cells[-1] if cells else None)

    def append(self, identity: Identity, cell: Cell) -> None:
        """Adds the cell: when this returns, it is on the disk. Raises InputError where it cannot be written."""
        line = json.dumps({"format": FORMAT, "identity": identity.now} | asdict(cell)) + "\n"
        path = self.folder / FILE
        try:
            (self.folder / CLAIMS).mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / CLAIMS / _APPENDING), path.open("ab+") as file:
                whole = _cut_torn_end(file)
                try:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:  # a full disk: a part of a line may be there
                    file.truncate(whole)
                    raise
        except OSError as error:
            raise unwritable(path, error) from error

    @contextmanager
    def claim(self, identity: Identity, *, waits: bool) -> Iterator[bool]:
        """Whether the cell is ours to fit while inside: no other process then has it; one that dies lets go of it.

        With `waits` it is, once nobody else has it.
        """
        path = self.folder / CLAIMS / f"{identity.now[:32]}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path.parent, error) from error
        lock = FileLock(path)
        try:
            lock.acquire(timeout=-1 if waits else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def every(self) -> Iterator[tuple[str, Cell]]:
        """The identity and the cell of each line of the file, in their order."""
        self._refresh()
        yield from ((identity, cell) for identity, cells in self._found.items() for cell in cells)

    def _refresh(self) -> None:
        """Reads the lines that have been added; a last one without an end is somebody's who is writing, or was killed."""
        path = self.folder / FILE
        try:
            size = path.stat().st_size
            if size < self._read:  # not by us: somebody has mended it by hand
                self._found, self._read = {}, 0
            if size == self._read:
                return
            with path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except OSError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if found := _cell_of(line, FORMAT):
                self._found.setdefault(found[0], []).append(found[1])

    def _imported(self, identity: Identity) -> list[Cell]:
        """The cells of this identity in files of format 2, one for each metric."""
        if self._old is None:
            self._old = {path.stem[-10:]: path for path in self.folder.glob("*-??????????.json")}
        if not self._old:
            return []
        found = []
        for old in identity.before.values():
            path = self._old.get(old[:10])
            cell = None if path is None or not path.is_file() else _cell_of(path.read_bytes(), 2)
            if cell is not None and cell[0] == old:
                found.append(cell[1])
        return found


def _cut_torn_end(file: BinaryIO) -> int:
    """Takes a last line without an end off the file, which is locked; the bytes that are left."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    return whole


def _cell_of(text: bytes, form: int) -> tuple[str, Cell] | None:
    """Identity and cell in a line, or in a file of format 2; None where it is damaged, or refused, which is fitted again."""
    try:
        found = json.loads(text)
        if found.pop("format") != form:
            return None
        identity, cell = found.pop("identity"), Cell(**found)
    # No JSON, no object, or other fields than a Cell has.
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if cell.refused or not isinstance(identity, str) else (identity, cell)
