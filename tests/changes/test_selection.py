"""Set laws of selections, against plain Python sets; and what was saved, read again."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from trimtab.changes.methods import Chosen
from trimtab.changes.selection import Selection
from trimtab.encoders.parameter_kinds import Part
from trimtab.errors import InputError

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
    assert x.count == len(a) == x.backbone.count + x.head.count
    assert x.head.count == len([e for e in a if e[0] == "h"])
    assert x.share == pytest.approx(x.backbone.count / 12)
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
        ({"b": np.array([[0, 1]])}, "in one dimension"),
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


GOOD = {"whole": ["c"], "counts": {"b": 4, "c": 3}, "chosen": 5, "in_vectors": False}


def test_saved_and_read_again(tmp_path):
    some = Selection(PARTS, {"b": np.array([1, 3]), "c": None})
    some.save(tmp_path / "some")
    assert Selection.load(tmp_path / "some", PARTS) == some
    save_file({"b": np.array([1, 3])}, tmp_path / "by hand", {"selection": json.dumps(GOOD)})
    assert Selection.load(tmp_path / "by hand", PARTS) == some


@pytest.mark.parametrize(
    "described",
    [
        "[]", "7", "null", "{", '"whole"', "{}",
        *(json.dumps(GOOD | change) for change in (
            {"whole": 3}, {"whole": ["b", "c"]}, {"whole": [["c"]]}, {"counts": ["b", "c"]}, {"counts": {"c": 3}},
            {"counts": None}, {"chosen": "many"}, {"chosen": 0}, {"chosen": -1}, {"chosen": None},
        )),
    ],
)  # fmt: skip
def test_odd_descriptions_are_refused(described, tmp_path):
    save_file({"b": np.array([1, 3])}, tmp_path / "odd", {"selection": described})
    with pytest.raises(InputError, match=r"no saved selection|is damaged"):
        Selection.load(tmp_path / "odd", PARTS)
    with pytest.raises(InputError, match=r"no saved selection|is damaged"):
        _ = Chosen(str(tmp_path / "odd")).defaults


@pytest.mark.parametrize("positions", [[4], [-1], [0.5], [[0, 1]]])
def test_positions_that_do_not_fit_are_damage(positions, tmp_path):
    save_file({"b": np.array(positions)}, tmp_path / "odd", {"selection": json.dumps(GOOD)})
    with pytest.raises(InputError, match="is damaged"):
        Selection.load(tmp_path / "odd", PARTS)


@pytest.mark.parametrize("counts", [{"b": 5, "c": 3}, {"b": "4", "c": 3}])
def test_another_encoder_is_refused(counts, tmp_path):
    save_file({"b": np.array([1])}, tmp_path / "other", {"selection": json.dumps(GOOD | {"counts": counts})})
    with pytest.raises(InputError, match="another encoder"):
        Selection.load(tmp_path / "other", PARTS)


@given(subsets, st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5]), min_size=14, max_size=14), st.integers(1, 14))
def test_the_highest_are_those_that_a_stable_sort_puts_first(elements, numbers, wanted):
    pool, wanted = from_set(elements), min(wanted, len(elements))
    scores = np.array(numbers[: len(elements)])
    order = np.argsort(-scores, kind="stable")[:wanted]
    assert pool.highest(scores, wanted) == pool.taken(order)
    assert pool.highest(scores.astype(np.int32), wanted).count == wanted


def test_values_are_read_in_the_order_of_the_elements():
    values = {name: torch.arange(part.count) + 10.0 * i for i, (name, part) in enumerate(PARTS.items())}
    assert from_set({("a", 3), ("c", 0), ("a", 1), ("h", 0), ("h", 1)}).values_of(values).tolist() == [1, 3, 20, 30, 31]
    assert from_set(set()).values_of(values).tolist() == []
