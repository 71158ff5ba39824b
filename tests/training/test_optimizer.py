"""AdamW over elements, against a plain AdamW written out here."""

import numpy as np
import pytest
import torch
from torch import nn

from trimtab.changes.methods import Full
from trimtab.changes.selection import Selection
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.parameter_kinds import parts_of
from trimtab.training.optimizer import SelectedAdamW, linear_rate


def plain_adamw(values, gradients, lr, decay):
    """The textbook: arXiv 1711.05101, algorithm 2, with betas 0.9 and 0.999 and epsilon 1e-8."""
    values, m, v = values.clone(), torch.zeros_like(values), torch.zeros_like(values)
    for t, gradient in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        values = values - lr * decay * values - lr * step
    return values


@pytest.mark.parametrize("at", [None, np.array([1, 4, 5, 11])], ids=["whole", "part"])
def test_selected_elements_follow_plain_adamw(at):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    start = model[0].weight.detach().clone()
    optimizer = SelectedAdamW(
        model, Selection(parts_of(model), {"0.weight": at}), lr=0.01, head_lr=0.01, weight_decay=0.1
    )
    gradients = []
    for _ in range(5):
        x = torch.randn(8, 4)
        (model(x) ** 2).sum().backward()
        weight = model[0].weight.detach().clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(((x @ weight.T + model[0].bias.detach()) ** 2).sum(), weight)[0].flatten())
        optimizer.step(1.0, clip=1e9)
    everywhere = plain_adamw(start.flatten(), gradients, 0.01, 0.1) if at is None else None
    if at is None:
        torch.testing.assert_close(model[0].weight.detach().flatten(), everywhere)
    else:
        picked = plain_adamw(start.flatten()[at], [g[at] for g in gradients], 0.01, 0.1)
        torch.testing.assert_close(model[0].weight.detach().flatten()[at], picked)
        rest = np.setdiff1d(np.arange(12), at)
        assert torch.equal(model[0].weight.detach().flatten()[rest], start.flatten()[rest])


def test_a_step_is_seen_by_whoever_watches_versions():
    """Copies of trained weights in another precision are made anew when the version counter has moved."""
    model = nn.Sequential(nn.Linear(4, 3))
    optimizer = SelectedAdamW(model, Full().attach(model), lr=0.01, head_lr=0.01, weight_decay=0.0)
    before = model[0].weight._version
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step(1.0, clip=1.0)
    assert model[0].weight._version > before


def test_so_is_one_of_a_few_elements_that_a_recording_writes(monkeypatch):
    """A replayed CUDA graph changes the parameter without torch's knowing of it; played here by a step that does nothing."""
    model = nn.Sequential(nn.Linear(4, 3))
    chosen = Selection(parts_of(model), {"0.weight": np.array([1, 5])})
    optimizer = SelectedAdamW(model, chosen, lr=0.01, head_lr=0.01, weight_decay=0.0)
    monkeypatch.setattr(optimizer, "_apply", lambda clip: torch.zeros(()))
    before = model[0].weight._version
    optimizer.step(1.0, clip=1.0)
    assert model[0].weight._version > before


def decayed(model):
    """The parameters that a step with gradients of 0 moves."""
    optimizer = SelectedAdamW(model, Full().attach(model), lr=0.1, head_lr=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0, clip=1.0)
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_no_decay_on_biases_and_norms():
    assert decayed(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))) == {"0.weight"}


def test_a_master_without_gradient_on_any_rank_stays_where_it_is():
    """Two ranks, the other played by `total`: neither saw the first weight, only the other one the second."""
    model = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)])
    optimizer = SelectedAdamW(model, Full().attach(model), lr=0.1, head_lr=0.1, weight_decay=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    model[2].weight.grad = torch.ones(2, 2)

    def total(values: list[torch.Tensor]) -> None:
        counts, *gradients = values
        counts += torch.tensor([0.0, 1, 1])
        for gradient, other in zip(gradients, (0, 2, 2), strict=True):
            gradient += other

    optimizer.add_up(total)
    assert optimizer.masters["0.weight"].grad is None
    assert optimizer.masters["1.weight"].grad.flatten().tolist() == [2.0] * 4
    assert optimizer.masters["2.weight"].grad.flatten().tolist() == [3.0] * 4
    optimizer.step(1.0, clip=100.0)
    assert [torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)] == [True, False, False]


def test_half_precision_masters_are_refused():
    model = nn.Sequential(nn.Linear(4, 3)).to(torch.bfloat16)
    with pytest.raises(ValueError, match="must be float32"):
        SelectedAdamW(model, Full().attach(model), lr=0.1, head_lr=0.1, weight_decay=0.0)


def test_clipping_bounds_the_norm_of_all_gradients(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 3))
    optimizer = SelectedAdamW(model, Full().attach(model), lr=0.1, head_lr=0.1, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    stepped = []
    monkeypatch.setattr(optimizer._adamw, "step", lambda: stepped.extend(p.grad.clone() for p in model.parameters()))
    assert float(optimizer.step(1.0, clip=1.0)) == pytest.approx(3.0 * 15**0.5)
    # One direction of 15 equal elements, whose norm is 1 now.
    assert torch.cat([gradient.flatten() for gradient in stepped]).tolist() == pytest.approx([15**-0.5] * 15)


def test_a_heads_own_norm_does_not_decay(encoder_of):
    """ModernBERT has one."""
    moved = decayed(encoder_of("modernbert").with_head(TWO_CLASSES))
    assert "head.dense.weight" in moved
    assert not [name for name in moved if "norm" in name]


def test_rate_rises_then_falls_to_zero():
    rates = [linear_rate(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == max(rates) == 1.0
    assert rates[100] == 0.0
    assert all(b > a for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(b < a for a, b in zip(rates[10:100], rates[11:], strict=True))
    assert linear_rate(0, 1, 0.0) == 1.0
