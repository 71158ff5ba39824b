"""Rows of a table: what is put comes back, and blocks are given back when they are empty."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.serving import slot_table
from trimtab.serving.slot_table import Layout, SlotTable

CPU = torch.device("cpu")
SHAPES = st.dictionaries(
    st.sampled_from(["a", "b.weight", "b.bias", "c"]),
    st.tuples(st.lists(st.integers(1, 4), max_size=3).map(tuple), st.integers(0, 3)),  # positions where not 0
    min_size=1,
)


def values_of(shapes: Any, seed: int) -> Any:
    """What the table reads of a Delta: values, some of them at positions."""
    draw = torch.Generator().manual_seed(seed)
    found = SimpleNamespace(values={}, positions={})
    for name, (shape, n_positions) in shapes.items():
        if n_positions:
            found.values[name] = torch.randn(n_positions, generator=draw)
            found.positions[name] = torch.randperm(1 << 20, generator=draw)[:n_positions].sort().values.int()
        else:
            found.values[name] = torch.randn(shape, generator=draw)
    return found


def assert_holds(table: SlotTable, slot: int, delta: Any) -> None:
    values, positions = table.values(slot, Layout.of(delta))
    assert (values.keys(), positions.keys()) == (delta.values.keys(), delta.positions.keys())
    for found, expected in ((values, delta.values), (positions, delta.positions)):
        for name, value in expected.items():
            assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
            assert torch.equal(found[name], value)


@given(SHAPES, st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=40), st.integers(1, 400))
def test_what_is_put_stays_until_it_is_freed(shapes: Any, steps: list[int | None], block_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(slot_table, "_BLOCK_BYTES", block_bytes)
        table = SlotTable(Layout.of(values_of(shapes, 0)), CPU)
    row_bytes = Layout.of(values_of(shapes, 0)).row_bytes
    per_block = max(1, min(16, block_bytes // row_bytes))
    held: dict[int, Any] = {}
    most = 0
    for seed, step in enumerate(steps):
        if step is None or not held:
            delta = values_of(shapes, seed)
            slot = table.put(delta, Layout.of(delta))
            assert slot not in held
            held[slot] = delta
        else:  # the one of that number is freed
            slot = [*held][step % len(held)]
            table.free(slot)
            del held[slot]
        for slot, delta in held.items():
            assert_holds(table, slot, delta)
        # No more blocks than the most rows so far have needed, and none where there are no rows.
        most = max(most, len(held))
        assert table.nbytes <= -(-most // per_block) * per_block * row_bytes
        assert table.nbytes >= len(held) * row_bytes
        assert bool(table.nbytes) == bool(held)


def test_a_row_that_could_not_be_written_is_free() -> None:
    good, bad = values_of({"a": ((3,), 0)}, 0), values_of({"a": ((4,), 0)}, 0)
    table = SlotTable(Layout.of(good), CPU)
    first = table.put(good, Layout.of(good))
    with pytest.raises(RuntimeError):
        table.put(bad, Layout.of(good))
    second = table.put(good, Layout.of(good))
    assert second == first + 1
    table.free(first)
    table.free(second)
    assert table.nbytes == 0


def test_deltas_of_several_layouts_and_one_size_lie_in_one_table() -> None:
    a, b = values_of({"a": ((), 3), "c": ((), 2)}, 0), values_of({"a": ((), 1), "b.bias": ((), 4)}, 1)
    assert Layout.of(a).size == Layout.of(b).size == (5, 5)
    table = SlotTable(Layout.of(a), CPU)
    slots = [table.put(each, Layout.of(each)) for each in (a, b)]
    for slot, each in zip(slots, (a, b), strict=True):
        assert_holds(table, slot, each)
