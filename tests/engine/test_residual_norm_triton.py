"""The kernel of a residual sum with its norm, run by Triton's interpreter, against plain torch."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from torch.nn import functional
from trimtab.engine.residual_norm_triton import fused_norm, fused_norm_of_groups

torch.manual_seed(0)
for rate, has_bias, dtype in ((0.0, True, torch.float32), (0.3, True, torch.float32), (0.3, False, torch.float32),
                              (0.1, True, torch.bfloat16)):
    x, residual = (torch.randn(1, 7, 24).to(dtype).requires_grad_() for _ in range(2))
    weight, bias = torch.randn(24, requires_grad=True), torch.randn(24, requires_grad=True) if has_bias else None
    seed = torch.tensor([123456789012345]) if rate else None
    y = fused_norm(x, residual, weight, bias, 1e-5, rate, seed, 3)
    again = fused_norm(x, residual, weight, bias, 1e-5, rate, seed, 3)
    assert torch.equal(y, again) and y.dtype == dtype
    if rate:
        assert not torch.equal(y, fused_norm(x, residual, weight, bias, 1e-5, rate, seed, 4))
        assert not torch.equal(y, fused_norm(x, residual, weight, bias, 1e-5, rate, seed + 1, 3))
        # Which values are kept, from an x that the sum shows as it is: ones, no residual, and the norm undone.
        ones, none = torch.ones(1, 7, 24).to(dtype), torch.zeros(1, 7, 24).to(dtype)
        shown = fused_norm(ones, none, torch.ones(24), torch.zeros(24), 1e-5, rate, seed, 3)
        keep = (shown > shown.mean(-1, keepdim=True)).to(dtype) / (1 - rate)
    else:
        keep = torch.ones(1, 7, 24)
    total = (residual + keep * x).to(dtype)
    expected = functional.layer_norm(total.float(), [24], weight, bias, 1e-5)
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else dict(rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(y.float(), expected, **tolerance)
    given = [x, residual, weight, *([bias] if has_bias else [])]
    g = torch.randn(1, 7, 24)
    found = torch.autograd.grad((y.float() * g).sum(), given)
    wanted = torch.autograd.grad((expected * g).sum(), given)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        scaled = 1 if dtype == torch.float32 else float(b.abs().max())
        torch.testing.assert_close(a.float() / scaled, b.float() / scaled, **tolerance)

# The rate of what is dropped, within 5 standard deviations, and neighbouring calls unrelated.
ones, none = torch.ones(1, 400, 64), torch.zeros(1, 400, 64)
kept = []
for call in (1, 2):
    shown = fused_norm(ones, none, torch.ones(64), torch.zeros(64), 1e-5, 0.25, torch.tensor([7]), call)
    kept.append((shown > shown.mean(-1, keepdim=True)).float())
n = ones.numel()
assert abs(float(kept[0].mean()) - 0.75) < 5 * (0.75 * 0.25 / n) ** 0.5
assert abs(float(torch.corrcoef(torch.stack([k.flatten() for k in kept]))[0, 1])) < 5 / n**0.5

# Rows of several tasks, each with its own vectors.
groups = torch.tensor([2, 0, 0, 1, 2])
weights, biases = torch.randn(3, 24), torch.randn(3, 24)
for dtype in (torch.float32, torch.bfloat16):
    x, residual = (torch.randn(5, 24).to(dtype) for _ in range(2))
    for some in (biases, None):
        y = fused_norm_of_groups(x, residual, weights, some, groups, 1e-5)
        for row, group in enumerate(groups.tolist()):
            bias = None if some is None else some[group]
            expected = functional.layer_norm((x + residual)[row].float(), [24], weights[group], bias, 1e-5)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(y[row].float(), expected, rtol=tolerance, atol=tolerance)
print("done")
"""


def test_the_kernel_is_plain_torch() -> None:
    pytest.importorskip("triton")
    # Another process: Triton reads whether to interpret when the kernels are defined.
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=_environment(), check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "done"


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
