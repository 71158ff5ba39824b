"""Selection: a set of parameter elements, the one value that optimizer, delta, pool and report all read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..encoders.parts import Part

Indices = np.ndarray  # sorted, distinct int64 positions in the flattened parameter


@dataclass(frozen=True, eq=False)
class Selection:
    """Which elements of a model's parameters are chosen.

    `parts` is the universe: every parameter of the model. `elements` maps a parameter's name to None (all of it) or to the
    sorted positions in its flattened form; a name that is absent has none chosen. Selections of one model combine as sets:
    `a | b`, `a & b`, `a - b`, `~a`. Raises ValueError for unknown names, positions out of range, or two universes.
    """

    parts: Mapping[str, Part]
    elements: Mapping[str, Indices | None]

    def __post_init__(self):
        unknown = set(self.elements) - set(self.parts)
        if unknown:
            raise ValueError(f"no such parameters: {sorted(unknown)[:5]}")
        tidy = {
            name: _tidy(name, self.elements[name], self.parts[name].count)
            for name in self.parts
            if name in self.elements
        }
        object.__setattr__(self, "elements", {name: at for name, at in tidy.items() if at is None or len(at)})

    @classmethod
    def where(cls, parts: Mapping[str, Part], chosen: Callable[[str, Part], bool]) -> Selection:
        """All elements of the parameters for which `chosen(name, part)` holds."""
        return cls(parts, {name: None for name, part in parts.items() if chosen(name, part)})

    def counts(self) -> dict[str, int]:
        """How many elements are chosen in each parameter that has any."""
        return {name: self.parts[name].count if at is None else len(at) for name, at in self.elements.items()}

    @property
    def count(self) -> int:
        """How many elements are chosen, head included."""
        return sum(self.counts().values())

    @property
    def share(self) -> float:
        """The chosen share of the body's elements, from 0 to 1."""
        total = sum(part.count for part in self.parts.values() if not part.is_head)
        return self.body.count / total if total else 0.0

    @property
    def body(self) -> Selection:
        """What is chosen outside the head."""
        return self._restricted(lambda part: not part.is_head)

    @property
    def head(self) -> Selection:
        """What is chosen in the head."""
        return self._restricted(lambda part: part.is_head)

    @property
    def first_layer(self) -> int:
        """The lowest layer with a chosen element: below it nothing changes and no gradient is needed.

        -1 stands for the embeddings and the number of layers for what follows them; raises ValueError when empty.
        """
        if not self.elements:
            raise ValueError("an empty selection has no first layer")
        return min(self.parts[name].layer for name in self.elements)

    def __or__(self, other: Selection) -> Selection:
        return self._combined(other, np.union1d)

    def __and__(self, other: Selection) -> Selection:
        return self._combined(other, _intersection)

    def __sub__(self, other: Selection) -> Selection:
        return self._combined(other, _difference)

    def __invert__(self) -> Selection:
        return Selection.where(self.parts, lambda name, part: True) - self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection) or self.elements.keys() != other.elements.keys():
            return NotImplemented if not isinstance(other, Selection) else False
        same = all(_same(self.elements[name], other.elements[name]) for name in self.elements)
        return same and dict(self.parts) == dict(other.parts)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.elements)

    def __repr__(self) -> str:
        return f"Selection({self.body.count:,} body + {self.head.count:,} head elements in {len(self.elements)} parameters)"

    def _restricted(self, wanted: Callable[[Part], bool]) -> Selection:
        return Selection(self.parts, {name: at for name, at in self.elements.items() if wanted(self.parts[name])})

    def _combined(self, other: Selection, operation: Callable[[Indices, Indices], Indices]) -> Selection:
        """Applies a set operation by parameter; whole parameters are spelled out only where the other side has a part."""
        if self.parts.keys() != other.parts.keys():
            raise ValueError("selections of two different models do not combine")
        result: dict[str, Indices | None] = {}
        for name, part in self.parts.items():
            mine, theirs = self._at(name), other._at(name)
            if mine is not None and theirs is not None and not (len(mine) or len(theirs)):
                continue
            every = np.arange(part.count) if mine is None or theirs is None else None
            result[name] = operation(every if mine is None else mine, every if theirs is None else theirs)  # type: ignore[arg-type]
        return Selection(self.parts, result)

    def _at(self, name: str) -> Indices | None:
        return self.elements.get(name, _NONE)


_NONE: Indices = np.empty(0, dtype=np.int64)


def _tidy(name: str, at: Indices | None, count: int) -> Indices | None:
    """Sorted distinct int64 positions, or None when they cover the whole parameter."""
    if at is None:
        return None
    at = np.asarray(at)
    if at.size and not np.issubdtype(at.dtype, np.integer):
        raise ValueError(f"positions in {name} must be integers, not {at.dtype}")
    at = np.unique(at.astype(np.int64))
    if len(at) and (at[0] < 0 or at[-1] >= count):
        raise ValueError(f"{name} has {count} elements; positions {at[0]}..{at[-1]} do not fit")
    return None if len(at) == count else at


def _intersection(a: Indices, b: Indices) -> Indices:
    return np.intersect1d(a, b, assume_unique=True)


def _difference(a: Indices, b: Indices) -> Indices:
    return np.setdiff1d(a, b, assume_unique=True)


def _same(a: Indices | None, b: Indices | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)
