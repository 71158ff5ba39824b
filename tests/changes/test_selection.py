"""Set laws of selections, against plain Python sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.changes.selection import Selection
from trimtab.encoders.parts import Part

PARTS = {
    "a": Part(-1, "embedding", "weight", 5),
    "b": Part(0, "query", "weight", 4),
    "c": Part(1, "output_norm", "bias", 3),
    "h": Part(2, "head", "weight", 2),
}
UNIVERSE = {(name, i) for name, part in PARTS.items() for i in range(part.count)}


def as_set(selection: Selection) -> set[tuple[str, int]]:
    found = set()
    for name, at in selection.elements.items():
        found |= {(name, int(i)) for i in (range(PARTS[name].count) if at is None else at)}
    return found


def from_set(elements: set[tuple[str, int]]) -> Selection:
    return Selection(PARTS, {name: np.array(sorted(i for n, i in elements if n == name), dtype=int) for name in PARTS})


subsets = st.sets(st.sampled_from(sorted(UNIVERSE)))


@given(subsets, subsets)
def test_operations_are_those_of_sets(a, b):
    x, y = from_set(a), from_set(b)
    assert as_set(x | y) == a | b
    assert as_set(x & y) == a & b
    assert as_set(x - y) == a - b
    assert as_set(~x) == UNIVERSE - a
    assert (x == y) == (a == b)
    assert bool(x) == bool(a)


@given(subsets)
def test_counts(a):
    x = from_set(a)
    assert x.count == len(a) == x.body.count + x.head.count
    assert x.head.count == len([e for e in a if e[0] == "h"])
    assert x.share == pytest.approx(x.body.count / 12)
    if a:
        assert x.first_layer == min(PARTS[name].layer for name, _ in a)


def test_a_whole_parameter_has_one_form():
    assert Selection(PARTS, {"b": np.arange(4)}) == Selection(PARTS, {"b": None})
    assert Selection(PARTS, {"b": np.array([2, 0, 2])}) == Selection(PARTS, {"b": np.array([0, 2])})


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"z": None}, "no such parameters"),
        ({"b": np.array([4])}, "do not fit"),
        ({"b": np.array([-1])}, "do not fit"),
        ({"b": np.array([0.5])}, "must be integers"),
    ],
)
def test_bad_elements_are_refused(elements, message):
    with pytest.raises(ValueError, match=message):
        Selection(PARTS, elements)


def test_two_universes_do_not_combine():
    with pytest.raises(ValueError, match="two different models"):
        Selection(PARTS, {"b": None}) | Selection({"b": PARTS["b"]}, {"b": None})


def test_an_empty_selection_has_no_first_layer():
    with pytest.raises(ValueError, match="empty"):
        _ = Selection(PARTS, {}).first_layer
