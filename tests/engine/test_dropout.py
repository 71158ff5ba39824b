"""Cheap dropout masks: their rate, their scale, their independence, and their seed."""

import pytest
import torch

from trimtab.engine import dropout as dropout_module
from trimtab.engine.dropout import MASKS, DropoutMasks, dropout, dropout_forward


def noise(seed: int = 0, limit: int = 1 << 22) -> DropoutMasks:
    torch.manual_seed(seed)
    made = DropoutMasks(limit)
    made.mask(torch.Size([1]), 0.3, torch.int8)  # draws its seed
    return made


def dropped(x: torch.Tensor, rate: float, seed: int = 0) -> torch.Tensor:
    token = MASKS.set(noise(seed))
    try:
        return dropout(x, rate, training=True)
    finally:
        MASKS.reset(token)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_expectation(rate: float, dtype: torch.dtype) -> None:
    mask = noise().mask(torch.Size([1000, 1000]), rate, dtype)
    kept = float(mask.kept.float().mean())
    assert kept == pytest.approx(1 - rate, abs=1 / 512 + 0.002)
    assert kept * mask.scale == pytest.approx(1, abs=5 * (rate / (1 - rate) / 1e6) ** 0.5)  # 5 standard errors
    assert set(mask.kept.unique().tolist()) == {0, 1}


def test_values_are_independent() -> None:
    source = noise()
    masks = [source.mask(torch.Size([1000, 1000]), 0.1, torch.float32).kept - 0.9 for _ in range(2)]
    pairs = {
        "two masks": (masks[0], masks[1]),
        "neighbours": (masks[0][:, :-1], masks[0][:, 1:]),
        "rows": (masks[0][:-1], masks[0][1:]),
        "bytes of one draw": (masks[0][:, :-7], masks[0][:, 7:]),
    }
    for name, (a, b) in pairs.items():
        assert abs(float((a * b).mean() / 0.09)) < 0.006, name  # 6 standard errors of a correlation over 10^6


def test_beyond_the_pool_masks_stay_different() -> None:
    source = noise(limit=1 << 16)
    masks = [source.mask(torch.Size([160, 160]), 0.1, torch.float32).kept - 0.9 for _ in range(12)]
    for i, a in enumerate(masks):
        assert float(a.mean()) == pytest.approx(0, abs=0.01)
        for b in masks[:i]:
            assert abs(float((a * b).mean() / 0.09)) < 0.04


def test_a_request_larger_than_the_pool() -> None:
    kept = noise(limit=100).mask(torch.Size([10_000]), 0.5, torch.float32).kept
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("at_once", [8, 4096, 1 << 20])
def test_masks_do_not_depend_on_how_much_is_drawn_ahead(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def masks(at_once: int) -> list[torch.Tensor]:
        monkeypatch.setattr(dropout_module, "_DRAWN_AT_ONCE", at_once)
        torch.manual_seed(0)
        source = DropoutMasks(limit=1 << 12)
        sizes = [800, 1600, 800, 4000, 160_000, 8000, 160_000, 160_000]  # the pool grows twice, and is used up
        return [source.mask(torch.Size([size]), 0.1, torch.float32).kept.clone() for size in sizes]

    for found, expected in zip(masks(at_once), masks(1), strict=True):
        assert torch.equal(found, expected)


def test_seed() -> None:
    x = torch.ones(1000)
    assert torch.equal(dropped(x, 0.1, seed=1), dropped(x, 0.1, seed=1))
    assert not torch.equal(dropped(x, 0.1, seed=1), dropped(x, 0.1, seed=2))


def test_backward_uses_the_same_mask() -> None:
    x = torch.randn(1000, requires_grad=True)
    y = dropped(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y, x * x.grad)
    assert 0.2 < float((x.grad == 0).float().mean()) < 0.4


def test_no_dropout_where_none_is_asked_for() -> None:
    x, module = torch.ones(1000), torch.nn.Dropout(0.5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert dropout_forward(module.eval())(x) is x
    assert (dropout_forward(module.train())(x) == 0).any()  # torch's own, outside of a forward pass
    assert dropout_forward(torch.nn.Dropout(0.0))(x) is x
    assert (dropped(x, 1.0) == 0).all()
