"""Bfloat16 linear maps against float32 ones: values, gradients, and what they keep."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trimtab.engine import linear, residual_norm
from trimtab.engine.dropout import MASKS, DropoutMasks


def linear_map(*, trained: bool, bias: bool = True, outputs: int = 24) -> nn.Linear:
    module = nn.Linear(16, outputs, bias=bias)
    module.weight.requires_grad_(trained)
    return module


def rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).float()


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to bfloat16: 8 bits of mantissa, and sums of rounded products."""
    torch.testing.assert_close(
        found.float(), expected.float(), rtol=0.02, atol=0.02 * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_linear_maps(trained: bool, bias: bool) -> None:
    torch.manual_seed(0)
    module, x = linear_map(trained=trained, bias=bias), torch.randn(1, 50, 16, requires_grad=True)
    weights = torch.randn(1, 50, 24)
    found = linear.linear_forward(module)(x)
    expected = functional.linear(rounded(x), rounded(module.weight), module.bias)
    assert found.dtype == torch.bfloat16
    close(found, expected)
    inputs = [x, *[p for p in module.parameters() if p.requires_grad]]
    for a, b in zip(*[torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)], strict=True):
        assert a.dtype == torch.float32
        close(a, b)


def test_a_frozen_map_saves_no_input_and_gives_its_weight_no_gradient() -> None:
    module, x, saved = linear_map(trained=False), torch.randn(50, 16, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        linear.linear_forward(module)(x).sum().backward()
    assert saved == []
    assert module.weight.grad is None
    assert module.bias.grad is not None


def test_copies_follow_their_parameter() -> None:
    module, x = linear_map(trained=False), torch.randn(50, 16)
    forward = linear.linear_forward(module)
    forward(x)
    with torch.no_grad():
        module.weight.mul_(2)
        module.bias.add_(1)
    close(forward(x), module(x))
    module.weight = nn.Parameter(torch.randn(24, 16), requires_grad=False)
    close(forward(x), module(x))


def test_maps_of_one_input_are_computed_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    modules = [linear_map(trained=False, outputs=n) for n in (8, 8, 24)]
    x, y = torch.randn(1, 50, 16, requires_grad=True), torch.randn(1, 50, 16)
    forwards, products = linear.shared_forwards(modules), []
    times = linear.Copies.times
    monkeypatch.setattr(linear.Copies, "times", lambda *args: products.append(1) or times(*args))
    found = [forward(x) for forward in forwards]
    assert len(products) == 1
    weights = [torch.randn(1, 50, n) for n in (8, 8, 24)]
    inputs = [x, *[module.bias for module in modules]]

    def gradients(answers: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((a * w).sum() for a, w in zip(answers, weights, strict=True)), inputs)  # pyright: ignore

    expected = [module(x) for module in modules]
    for a, b in zip((*found, *gradients(found)), (*expected, *gradients(expected)), strict=True):
        close(a, b)
    close(forwards[2](y), modules[2](y))  # out of turn, and of another input
    close(forwards[0](x), modules[0](x))


def test_maps_of_one_input_with_one_trained_are_computed_alone() -> None:
    modules, x = [linear_map(trained=i == 1) for i in range(3)], torch.randn(50, 16)
    forwards = linear.shared_forwards(modules)
    sum(forward(x).float().sum() for forward in forwards).backward()  # pyright: ignore
    assert [module.weight.grad is not None for module in modules] == [False, True, False]


def test_adapters_with_dropout_and_several_or_none() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24))
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], lora_dropout=0.5, init_lora_weights=False)
    adapter: Any = peft.inject_adapter_in_model(config, model)[0]
    x, own = torch.randn(50, 16), adapter.forward
    assert linear.is_adapter(adapter)
    assert not linear.is_adapter(adapter.base_layer)
    forward = linear.adapter_forward(adapter)
    adapter.eval()
    close(forward(x), own(x))
    adapter.enable_adapters(False)
    assert torch.equal(forward(x), adapter.base_layer(x))
    adapter.enable_adapters(True)
    adapter.train()
    draws = [forward(x) for _ in range(2)]
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_the_end_of_a_half_layer(rate: float, bias: bool) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(16, bias=bias)
    nn.init.normal_(norm.weight)
    x, residual = torch.randn(1, 40, 16, requires_grad=True), torch.randn(1, 40, 16, requires_grad=True)
    weights, inputs = torch.randn(1, 40, 16), [x, residual, *norm.parameters()]
    token = MASKS.set(DropoutMasks())
    try:
        found = residual_norm.residual_norm(x, residual, norm, rate)
    finally:
        MASKS.reset(token)
    kept = torch.autograd.grad(found[..., 0].sum(), x, retain_graph=True)[0] != 0 if rate else torch.ones_like(x)
    expected = norm(residual + x * kept / (1 - rate))
    torch.testing.assert_close(found, expected)
    for a, b in zip(*[torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)], strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_norms_keep_float32_parameters() -> None:
    norm, x = nn.LayerNorm(16), torch.randn(1, 40, 16)
    y = residual_norm.norm_forward(norm, torch.bfloat16)(x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.float32
    close(y, norm(x))


def test_without_gradients_trained_maps_run_like_frozen_ones(monkeypatch) -> None:
    torch.manual_seed(0)
    maps = [nn.Linear(16, 16) for _ in range(3)]
    x = torch.randn(5, 16)
    forwards = [linear.linear_forward(maps[0]), *linear.shared_forwards(maps)]
    monkeypatch.setattr(linear._Trained, "apply", lambda *args: pytest.fail("kept for a gradient that nobody asks for"))
    with torch.no_grad():
        before = [forward(x) for forward in forwards]
        maps[0].weight.add_(1.0)  # as a step of the optimizer does
        after = [forward(x) for forward in forwards]
    assert all(not y.requires_grad for y in before)
    torch.testing.assert_close(after[0].float(), maps[0](x), rtol=2e-2, atol=5e-2)
    assert not torch.equal(before[1], after[1])
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), nn.ReLU()])
def test_a_linear_map_and_gelu_are_one_step_without_gradients(activation: nn.Module) -> None:
    class Intermediate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.intermediate_act_fn = nn.Linear(16, 40), activation

        def forward(self, hidden_states: Tensor) -> Tensor:
            return self.intermediate_act_fn(self.dense(hidden_states))

    torch.manual_seed(0)
    module, x = Intermediate(), torch.randn(1, 7, 16)
    expected = module(x)
    exact = isinstance(activation, nn.GELU) and activation.approximate == "none"
    assert linear.is_intermediate(module) == exact
    if exact:
        forward = linear.intermediate_forward(module, linear.Copies([module.dense]))
        with torch.no_grad():
            found = forward(x)
        assert found.dtype == torch.bfloat16
        close(found.float(), expected)
        assert torch.equal(forward(x), expected)  # with gradients it is as it was
        module.requires_grad_(False)
        assert torch.equal(forward(x), found)  # nothing asks for a gradient here
