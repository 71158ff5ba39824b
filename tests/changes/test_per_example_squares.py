"""Squared gradients by text, against one backward pass per text."""

import pytest
import torch
from torch import Tensor, nn

from trimtab.changes.per_example_squares import SquaredGradients

ROWS = [3, 1, 4]


class Rows:
    """Three texts whose rows lie one behind the other."""

    def __init__(self, rows: list[int]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, shape: torch.Size) -> list[int] | None:
        count = shape[:-1].numel()
        return self._rows if count == sum(self._rows) else [1] * count if count == len(self._rows) else None


class Shared(nn.Module):
    """Uses one linear map twice, and a table that all texts share."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5, padding_idx=0)
        self.twice = nn.Linear(5, 5)
        self.norm = nn.LayerNorm(5)
        self.rms = nn.RMSNorm(5, eps=1e-6)
        self.shift = nn.Parameter(torch.randn(5))
        self.last = nn.Linear(5, 2, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.twice(self.table(ids)))
        return self.last(self.rms(torch.tanh(self.twice(x)) + self.shift))


def loop(model: nn.Module, ids: Tensor, weights: Tensor, rows: list[int], groups: list[int]) -> dict[str, Tensor]:
    """The plain way: for each text, its gradient by autograd, squared."""
    sums = {name: torch.zeros(2, *p.shape) for name, p in model.named_parameters()}
    for text, weight, group in zip(ids.split(rows), weights.split(rows), groups, strict=True):
        model.zero_grad()
        (model(text) * weight).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name][group] += parameter.grad**2
    model.zero_grad()
    return sums


@pytest.mark.parametrize("rows", [ROWS, [1] * 8, [8]])
def test_sums_are_those_of_a_loop(rows: list[int]) -> None:
    torch.manual_seed(0)
    model, ids, weights = Shared(), torch.randint(0, 7, (8,)), torch.randn(8, 2)
    groups = [i % 2 for i in range(len(rows))]
    expected = loop(model, ids, weights, rows, groups)
    squares = SquaredGradients(model, list(expected), n_groups=2)
    assert squares.per_example.rest == {"shift"}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with squares.per_example.watching():
        for _ in range(2):  # sums grow
            squares.per_example.begin(Rows(rows), torch.tensor(groups))
            (model(ids) * weights).sum().backward()
            squares.per_example.end()
    for name in expected.keys() - squares.per_example.rest:
        torch.testing.assert_close(squares.sums[name], 2 * expected[name], rtol=1e-5, atol=1e-9, msg=name)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_cannot_be_seen_by_text_is_found_by_a_probe() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward() -> Tensor:
        shared = model[1](torch.randn(1, 2, 4))  # two rows that are no text's
        return model[0](torch.randn(8, 4)).sum() + shared.sum()

    squares = SquaredGradients(model, [name for name, _ in model.named_parameters()])
    with squares.per_example.watching():
        squares.per_example.probe(Rows(ROWS), forward)
    assert squares.per_example.rest == {"1.weight", "1.bias"}


def test_only_what_is_wanted_is_kept() -> None:
    model = nn.Linear(4, 2)
    squares = SquaredGradients(model, ["bias"])
    assert squares.sums.keys() == {"bias"}
    with squares.per_example.watching():
        squares.per_example.begin(Rows([2]), torch.tensor([0]))
        model(torch.ones(2, 4)).sum().backward()
        squares.per_example.end()
    assert squares.sums["bias"].tolist() == [[4.0, 4.0]]
