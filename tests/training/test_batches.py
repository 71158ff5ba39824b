"""Examples, and the batches that they are dealt into."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import examples_of, make_task

from trimtab.training.batches import shuffled_batches, token_groups


@pytest.mark.parametrize("apart", [False, True])
def test_rows_of_a_batch_are_those_of_its_examples(apart, encoder):
    examples = examples_of(encoder, make_task(pairs=True), apart=apart)
    batch = examples.take([5, 2, 9])
    assert len(batch) == 3
    assert batch.lengths == examples.lengths[[5, 2, 9]].tolist()
    others = (batch.take([2, 0]), examples.take([9, 5]), examples.subset([9, 5, 1]).take([0, 1]))
    for other in others:
        assert torch.equal(other.labels, others[0].labels)
        assert other.inputs.lengths == others[0].inputs.lengths
        assert other.inputs.texts_per_row == (2 if apart else 1)
        for name in ("ids", "type_ids"):
            pairs = zip(getattr(other.inputs, name), getattr(others[0].inputs, name), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5))
def test_an_epoch_holds_each_row_once(n_rows, batch_size, epoch):
    batches = shuffled_batches(n_rows, batch_size, 0, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n_rows))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


def test_no_rows_make_no_groups():
    assert token_groups(np.array([3, 4]), [], 10) == []


def test_epochs_and_seeds_differ():
    orders = [np.concatenate(shuffled_batches(50, 8, seed, epoch)).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_groups_hold_each_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths)
    groups = token_groups(lengths, range(len(lengths)), budget)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for group in groups:
        assert lengths[group].sum() <= budget or len(group) == 1
