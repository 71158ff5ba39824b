"""Selection: a set of parameter elements, the one value that optimizer, delta, pool and report all read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..encoders.parameter_kinds import Part, plain_name
from ..errors import InputError
from ..files import BAD_TENSORS, open_tensors, write_tensors
from .choices import check_size

Indices = np.ndarray  # sorted, distinct int64 positions in the flattened parameter
Elements = Indices | None  # what is chosen of one parameter; None is all of it


@dataclass(frozen=True, eq=False)
class Selection:
    """Which elements of a model's parameters are chosen.

    `parts` is the universe: every parameter of the model. `elements` maps a parameter's name to None (all of it) or to the
    sorted positions in its flattened form; a name that is absent has none chosen. Selections of one model combine as sets:
    `a | b`, `a & b`, `a - b`, `~a`. Raises ValueError for unknown names, positions out of range, or two universes.
    """

    parts: Mapping[str, Part]  # by parameter name
    elements: Mapping[str, Indices | None]  # by parameter name, in the order of `parts`

    def __post_init__(self):
        unknown = set(self.elements) - set(self.parts)
        if unknown:
            raise ValueError(f"no such parameters: {sorted(unknown)[:5]}")
        # In the order of the parts, whatever order they were given in: equal selections are then saved to equal bytes.
        tidy = {
            name: _tidy(name, self.elements[name], self.parts[name].count)
            for name in self.parts
            if name in self.elements
        }
        # Nothing chosen is the same as an absent name, or `==` and `bool` would see a difference where there is none.
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
        """The chosen share of the backbone's elements, from 0 to 1."""
        total = sum(part.count for part in self.parts.values() if not part.is_head)
        return self.backbone.count / total if total else 0.0

    @property
    def backbone(self) -> Selection:
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

    def taken(self, places: np.ndarray) -> Selection:
        """The elements at `places`, distinct numbers that count the chosen elements from 0 through the parameters in order."""
        # Positions within a parameter must ascend, and sorting once keeps them so in each.
        places = np.sort(places)
        # `ends`: where each parameter's elements end in that numbering; `cuts`: how many places lie before it.
        counts = self.counts()
        ends = np.cumsum([*counts.values()], dtype=np.int64)
        cuts = np.searchsorted(places, ends)
        elements, begin = {}, 0
        for name, end, cut in zip(counts, ends, cuts, strict=True):
            # From numbers in the selection to numbers among what is chosen here, and to positions.
            inside = places[begin:cut] - (end - counts[name])
            at = self.elements[name]
            elements[name] = inside if at is None else at[inside]
            begin = cut
        return Selection(self.parts, elements)

    def values_of(self, values: Mapping[str, torch.Tensor]) -> np.ndarray:
        """(E,): `values` (parameter name -> a number for each of its elements) at the E chosen ones, in the order of `taken`."""
        # An empty selection has an empty result.
        picked = [np.empty(0, np.float32)]
        for name, at in self.elements.items():
            flat = values[name].detach().flatten().cpu().numpy()
            picked.append(flat if at is None else flat[at])
        return np.concatenate(picked)

    def highest(self, scores: np.ndarray, wanted: int) -> Selection:
        """The `wanted` elements with the highest `scores` (E,), in the order of `taken`; among equals the first."""
        # By the lowest score that is still taken, since sorting millions takes seconds.
        edge = np.partition(scores, len(scores) - wanted)[len(scores) - wanted] if wanted else np.inf
        above, level = np.flatnonzero(scores > edge), np.flatnonzero(scores == edge)
        return self.taken(np.concatenate([above, level[: wanted - len(above)]]))

    def same_elements(self, other: Selection) -> bool:
        """Whether both choose the same positions of the parameters of the same names, whatever else their models have."""
        if self.elements.keys() != other.elements.keys():
            return False
        return all(_same(self.elements[name], other.elements[name]) for name in self.elements)

    def save(self, path: str | Path) -> None:
        """Writes it as one safetensors file, whole or not at all; `selection:file=` reads it."""
        # A whole parameter is a name, not a list of all positions: a selection of everything takes a few kilobytes.
        positions = {name: torch.from_numpy(at) for name, at in self.elements.items() if at is not None}
        whole = [name for name, at in self.elements.items() if at is None]
        # `counts` tell another encoder; `chosen` and `in_vectors` are for the defaults of a method without a model.
        described = {
            "whole": whole, "counts": {name: self.parts[name].count for name in self.elements}, "chosen": self.backbone.count,
            "in_vectors": all(self.parts[name].is_vector for name in self.backbone.elements),
        }  # fmt: skip
        write_tensors(Path(path), positions, {"selection": json.dumps(described)})

    @classmethod
    def load(cls, path: str | Path, parts: Mapping[str, Part], added: Collection[str] = ()) -> Selection:
        """What `save` wrote, in the model of `parts`, of which those `added` to the encoder are no part of it.

        Raises InputError for another file, a damaged one, or another encoder.
        """
        # The names and sizes of parameters tell another encoder before any position is read.
        described = described_in(path)
        # What is added beside it may give the maps that it wraps another name.
        here = {plain_name(name): name for name in parts if name not in added}
        for name, count in described["counts"].items():
            found = parts[here[plain_name(name)]].count if plain_name(name) in here else None
            if found != count:
                there = "does not have it" if found is None else f"has {found} there"
                raise InputError(
                    f"{path} was made for another encoder: {name} has {count} elements in it; this one {there}"
                )
        try:
            with open_tensors(path) as file:
                elements = {here[plain_name(name)]: at for name, at in file.tensors().items()}
            return cls(parts, elements | dict.fromkeys(here[plain_name(name)] for name in described["whole"]))
        except (OSError, *BAD_TENSORS) as error:
            raise InputError(f"{path} is damaged ({error}): copy it again, or save the selection again") from None

    def __or__(self, other: Selection) -> Selection:
        """What either has chosen."""
        return self._combined(other, _union)

    def __and__(self, other: Selection) -> Selection:
        """What both have chosen."""
        return self._combined(other, _intersection)

    def __sub__(self, other: Selection) -> Selection:
        """What this one has chosen and `other` has not."""
        return self._combined(other, _difference)

    def __invert__(self) -> Selection:
        """All that is not chosen, head included."""
        return Selection.where(self.parts, lambda name, part: True) - self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection):
            return NotImplemented
        return self.same_elements(other) and dict(self.parts) == dict(other.parts)

    # Equal by content, which is in arrays and dictionaries: no hash goes with that.
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.elements)

    def __repr__(self) -> str:
        return f"Selection({self.backbone.count:,} backbone + {self.head.count:,} head elements in {len(self.elements)} tensors)"

    def _restricted(self, wanted: Callable[[Part], bool]) -> Selection:
        """What is chosen in the parameters whose Part is wanted."""
        return Selection(self.parts, {name: at for name, at in self.elements.items() if wanted(self.parts[name])})

    def _combined(self, other: Selection, operation: Callable[[Elements, Elements, int], Elements]) -> Selection:
        """Applies a set operation to what both have chosen of each parameter; raises ValueError for two universes."""
        if self.parts.keys() != other.parts.keys():
            raise ValueError("selections of two different models do not combine")
        # Names that neither has cannot come out of a union, intersection or difference.
        result: dict[str, Indices | None] = {}
        for name in self.parts:
            if name in self.elements or name in other.elements:
                mine, theirs = self.elements.get(name, _NONE), other.elements.get(name, _NONE)
                result[name] = operation(mine, theirs, self.parts[name].count)
        return Selection(self.parts, result)


def described_in(path: str | Path) -> dict[str, Any]:
    """What a saved selection says of itself: "counts" of its parameters, how many elements of the backbone are "chosen", and
    whether they all lie "in_vectors"; raises InputError for another file.
    """
    try:
        with open_tensors(path) as file:
            metadata, names = file.header, file.names
        if "fisher" in metadata:
            raise InputError(
                f"{path} holds Fisher information and no selection: trimtab fisher --share 0.2 --save-selection FILE makes one"
            )
        described = json.loads(metadata["selection"])
        found = {name: described[name] for name in ("whole", "counts", "chosen", "in_vectors")}
        # Each parameter with a count is there once: whole, by name, or in part, as a tensor.
        named = sorted([*found["whole"], *names])
        whole = isinstance(found["counts"], dict) and isinstance(found["chosen"], int)
        # Vectors need no count; the rate of scattered elements is divided by theirs.
        if not whole or named != sorted(found["counts"]) or found["chosen"] < (not found["in_vectors"]):
            raise InputError(
                f"{path} is damaged: it does not describe what it holds; copy it again, or save the selection again"
            )
        return found
    except (OSError, *BAD_TENSORS) as error:
        if isinstance(error, InputError):  # which is a ValueError
            raise
        why = "it holds something else" if isinstance(error, KeyError | TypeError) else error
        raise InputError(f"{path} is no saved selection (trimtab fisher --save-selection writes them): {why}") from None


def wanted_count(name: str, available: int, count: int | None, share: float | None) -> int:
    """The number of elements that `count` or `share` asks for; raises InputError unless exactly one is given and fits."""
    if (count is None) == (share is None):
        raise InputError(f"{name} needs either count= or share=, and not both")
    if not available:
        raise InputError(f"{name} has nothing to choose from: `within` names no parameter of the encoder")
    check_size(name, count, share)
    if count is not None and count > available:
        raise InputError(f"{name}:count={count} must be from 1 to the {available} parameters there are to choose from")
    # At least one, however small the share: an empty selection trains nothing.
    return count if count is not None else max(1, round(available * share))  # type: ignore[operator]


_NONE: Indices = np.empty(0, dtype=np.int64)  # what an absent name has chosen


def _tidy(name: str, at: Elements, count: int) -> Elements:
    """Sorted distinct int64 positions, or None when they cover the whole parameter."""
    if at is None:
        return None
    at = np.asarray(at)
    if at.ndim != 1 or (at.size and not np.issubdtype(at.dtype, np.integer)):
        raise ValueError(f"positions in {name} must be integers in one dimension, not {at.dtype} in {at.ndim}")
    at = at.astype(np.int64)
    # np.unique sorts, which takes seconds for millions of positions that mostly are in order already.
    if not (np.diff(at) > 0).all():
        at = np.unique(at)
    if len(at) and (at[0] < 0 or at[-1] >= count):
        raise ValueError(f"{name} has {count} elements; positions {at[0]}..{at[-1]} do not fit")
    return None if len(at) == count else at


def _union(a: Elements, b: Elements, count: int) -> Elements:
    """The positions in either; `count`, of the parameter's elements, is not needed."""
    if a is None or b is None:
        return None
    return np.union1d(a, b) if len(a) and len(b) else a if len(a) else b


def _intersection(a: Elements, b: Elements, count: int) -> Elements:
    """The positions in both; `count` is not needed."""
    if a is None or b is None:
        return b if a is None else a
    return np.intersect1d(a, b, assume_unique=True)


def _difference(a: Elements, b: Elements, count: int) -> Elements:
    """The positions in `a` and not in `b`, of a parameter of `count` elements."""
    if b is None:
        return _NONE
    if a is None:
        if not len(b):
            return None
        # The rest of a whole parameter: a mask is much faster than np.setdiff1d against all positions.
        kept = np.ones(count, bool)
        kept[b] = False
        return np.flatnonzero(kept)
    return np.setdiff1d(a, b, assume_unique=True)


def _same(a: Elements, b: Elements) -> bool:
    """Whether both are the same positions; all of a parameter is always None (see `_tidy`)."""
    return a is b if a is None or b is None else np.array_equal(a, b)
