"""The highest-ranking elements, against sorting by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.changes.ranking import highest, scores_at, top_of
from trimtab.changes.selection import Selection
from trimtab.encoders.parameter_kinds import Part
from trimtab.errors import InputError

SHAPES = {"a": (4, 3), "b": (6,), "c": (2, 5)}
PARTS = {
    "a": Part(0, "query", "weight", 12), "b": Part(0, "output_norm", "bias", 6), "c": Part(1, "key", "weight", 10),
}  # fmt: skip
ALL = Selection(PARTS, dict.fromkeys(PARTS))


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}


@given(st.integers(0, 99), st.integers(1, 27))
def test_no_element_that_was_left_out_ranks_higher(seed: int, count: int) -> None:
    found, values = highest(ALL, scores(seed), count), scores(seed)
    assert found.count == count
    if count < 28:
        assert scores_at(found, values).min() >= scores_at(ALL - found, values).max()


@given(st.integers(0, 99), st.integers(1, 28), st.sampled_from(["layer", "parameter"]))
def test_the_same_share_of_each_group(seed: int, count: int, per: str) -> None:
    found, values = top_of(ALL, scores(seed), "top", count=count, per=per), scores(seed)
    assert found.count == count
    groups = [["a", "b"], ["c"]] if per == "layer" else [["a"], ["b"], ["c"]]
    for names in groups:
        group = Selection(PARTS, dict.fromkeys(names))
        chosen = found & group
        assert abs(chosen.count - count * group.count / 28) < 1
        assert chosen == highest(group, values, chosen.count) if chosen else True


def test_whole_vectors_by_their_mean() -> None:
    values = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    values["a"][2] = 1.0  # three elements
    values["c"][1] = 0.9  # five
    values["b"][0] = 5.0  # one high element of six: a mean of 0.83
    found = top_of(ALL, values, "top", count=9, granularity="vector")
    assert {name: None if at is None else at.tolist() for name, at in found.elements.items()} == {
        "a": [6, 7, 8],
        "c": [5, 6, 7, 8, 9],
    }
    assert top_of(ALL, values, "top", count=14, granularity="vector").elements["b"] is None


def test_a_group_without_room_for_a_vector_takes_none() -> None:
    # Of 12 elements layer 0 has a share of 8 (a row of a, or b), and layer 1 one of 4, less than a row of c.
    found = top_of(ALL, scores(), "top", count=12, granularity="vector", per="layer")
    assert 3 <= found.count <= 8
    assert "c" not in found.elements
    with pytest.raises(InputError, match="too few for any of the highest-ranking vectors"):
        top_of(ALL, scores(), "top", count=2, granularity="vector", per="layer")


def test_bad_choices_are_refused() -> None:
    for options, message in (
        ({"count": 29}, "from 1 to the 28"), ({"share": 0.0}, "above 0"), ({"share": 1.1}, "at most 1"), ({}, "either"),
        ({"count": 3, "per": "row"}, "top:per=row is unknown"), ({"count": 3, "granularity": "x"}, "top:granularity=x"),
        ({"count": 2, "granularity": "vector"}, "2 elements are too few for any"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            top_of(ALL, scores(), "top", **options)  # type: ignore[arg-type]
    part = Selection(PARTS, {"a": np.arange(5)})
    with pytest.raises(InputError, match="needs whole parameters"):
        top_of(part, scores(), "top", count=3, granularity="vector")
