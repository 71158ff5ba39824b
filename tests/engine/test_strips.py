"""Neighbouring strips of one table are found again; anything else is not taken for one."""

import torch

from trimtab.engine.strips import joined


def test_strips_of_one_table() -> None:
    table = torch.arange(60.0).view(5, 12)
    found = joined(table.split([3, 4, 5], 1))
    assert found is not None
    assert torch.equal(found, table)
    assert found.data_ptr() == table.data_ptr()


def test_what_is_no_whole_table() -> None:
    table = torch.arange(60.0).view(5, 12)
    a, b, c = table.split(4, 1)
    assert joined([b, a, c]) is None  # out of order
    assert joined([a, b]) is None  # a column strip is missing, so rows do not follow one another
    assert joined([a, b, c.clone()]) is None
    assert joined([a[:3], b[:3], c]) is None
    assert joined([a.t(), b.t(), c.t()]) is None
