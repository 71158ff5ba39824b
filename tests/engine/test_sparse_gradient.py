"""Gradients of picked elements against the dense gradients of whole weights."""

import pytest
import torch
from torch import Tensor, nn

from trimtab.engine import sparse_gradient as module
from trimtab.engine.sparse_gradient import Picked, SparseGradients, embedding_forward, tapped


def some_of(weight: Tensor, count: int) -> Tensor:
    """Sorted random flat positions."""
    return torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(1))[:count].sort().values


def test_a_linear_maps_elements_have_the_gradient_of_the_dense_product() -> None:
    x, weight, out = torch.randn(40, 16), torch.randn(24, 16, requires_grad=True), torch.randn(40, 24)
    (dense,) = torch.autograd.grad(((x @ weight.t()) * out).sum(), weight)
    at = some_of(weight, 50)
    picked = Picked(nn.Parameter(weight.detach().flatten()[at]), at // 16, at % 16)
    (tapped(x @ weight.detach().t(), x, picked) * out).sum().backward()
    torch.testing.assert_close(picked.values.grad, dense.flatten()[at])


def test_elements_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_VALUES", 40 * 7)  # 7 elements of 40 tokens at a time
    test_a_linear_maps_elements_have_the_gradient_of_the_dense_product()


@pytest.mark.parametrize("padding", [None, 0])
def test_a_tables_elements_have_the_gradient_of_the_dense_one(padding: int | None) -> None:
    table = nn.Embedding(30, 8, padding_idx=padding)
    ids = torch.tensor([[0, 3, 3, 29, 7, 0, 11, 3]])
    out = torch.randn(1, 8, 8)
    (dense,) = torch.autograd.grad((table(ids) * out).sum(), table.weight)
    at = some_of(table.weight, 100)
    values = nn.Parameter(table.weight.detach().flatten()[at])
    sparse = SparseGradients()
    assert sparse.pick(table, at, values)
    (embedding_forward(table, sparse)(ids) * out).sum().backward()
    torch.testing.assert_close(values.grad, dense.flatten()[at])
    assert table.weight.grad is None


def test_picking_is_for_few_elements_of_products_and_tables() -> None:
    values, sparse = nn.Parameter(torch.zeros(2)), SparseGradients()
    at = torch.tensor([0, 5])
    assert sparse.pick(nn.Linear(20, 10), at, values)
    assert not sparse.pick(nn.Linear(10, 10), at, values)
    assert not sparse.pick(nn.LayerNorm(20), at, values)
