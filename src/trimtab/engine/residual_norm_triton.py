"""LayerNorm(residual + dropout(x)) in one kernel on a GPU, written in Triton, and its backward pass in another.

torch takes five kernels for it, with sums in float32 between them: 16 passes over the memory of an activation instead of 4. With
s = residual + keep * x / (1 - p) and n = (s - mean) / deviation, the answer is w n + b. Of a gradient g, with h = w g,

    ds = (h - mean(h) - n mean(h n)) / deviation,   dx = keep * ds / (1 - p),   dw = sum of g n,   db = sum of g.

What dropout keeps is computed from a seed in memory, a number of the call and the place (twice the integer hash "lowbias32",
C. Wellons 2018), so that backward finds it again and nothing is stored; the rate is p to 2^-24.
"""

# Shapes: T tokens, H width, P programs of the backward kernel.

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

_WIDEST = 8192  # H that one program holds in registers
_FEW_ROWS = 4096  # up to so many each program of the backward kernel takes 4, so that all of a card is busy; else 8


@functools.cache
def _kernels() -> Any:
    """The two kernels; None where Triton is not installed."""
    try:
        from . import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def fits(x: Tensor) -> bool:
    """Whether the kernels can take activations such as `x` (..., H)."""
    return x.is_cuda and x.shape[-1] <= _WIDEST and _kernels() is not None


class _FusedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, rate: float,
        seed: Tensor | None, call: int,
    ) -> Tensor:  # fmt: skip
        width = x.shape[-1]
        flat, others = x.reshape(-1, width).contiguous(), residual.reshape(-1, width).contiguous()
        y, total = torch.empty_like(flat), torch.empty_like(flat)
        mean, scale = (torch.empty(len(flat), device=x.device) for _ in range(2))
        drop = (seed if seed is not None else mean, call, round(rate * 2**24), 1 / (1 - rate))
        grid, block = (len(flat),), 1 << (width - 1).bit_length()
        _kernels().forward[grid](
            flat, others, weight, weight if bias is None else bias, y, total, mean, scale, *drop, width, eps, mean,
            DROPS=seed is not None, HAS_BIAS=bias is not None, GROUPS=False, BLOCK=block,
        )  # fmt: skip
        ctx.save_for_backward(total, mean, scale, weight, seed)
        ctx.drop, ctx.block, ctx.has_bias = drop[1:], block, bias is not None
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total, mean, scale, weight, seed = ctx.saved_tensors
        rows, width = total.shape
        grad = grads[0].reshape(rows, width).contiguous()
        dresidual = torch.empty_like(total)
        dx = dresidual if seed is None else torch.empty_like(total)
        wants = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        # Each program adds up the rows it has; the few sums are added up behind it.
        per_program = 4 if rows <= _FEW_ROWS else 8
        n_programs = -(-rows // per_program)
        parts = torch.empty(2, n_programs if wants else 1, width, device=grad.device)
        _kernels().backward[(n_programs,)](
            grad, total, weight, mean, scale, dx, dresidual, parts[0], parts[1],
            mean if seed is None else seed, *ctx.drop, rows, width,
            DROPS=seed is not None, WANTS=wants, BLOCK=ctx.block, ROWS=per_program,
        )  # fmt: skip
        dweight, dbias = parts.sum(1) if wants else (None, None)
        shape = grads[0].shape
        return dx.view(shape), dresidual.view(shape), dweight, dbias if ctx.has_bias else None, None, None, None, None


def fused_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, rate: float, seed: Tensor | None, call: int
) -> Tensor:  # fmt: skip
    """The answer in the dtype of `x` and `residual` (..., H), statistics in float32; `weight` and `bias` (H,) are float32.

    Dropout at `rate` follows from `seed` (one int64 on the device) and the number of the `call`; there is none without a seed.
    """
    return _FusedNorm.apply(x, residual, weight, bias, eps, rate, seed, call)  # pyright: ignore[reportReturnType]


def fused_norm_of_groups(
    x: Tensor, residual: Tensor, weights: Tensor, biases: Tensor | None, groups: Tensor, eps: float
) -> Tensor:
    """LayerNorm(residual + x), (T, H), each row with the weight and bias of its group, from tables (G, H) float32; no gradients.

    `groups` (T,) int64 says which row of the tables.
    """
    rows, width = x.shape
    flat, others = x.contiguous(), residual.contiguous()
    y, total = torch.empty_like(flat), torch.empty_like(flat)
    mean, scale = (torch.empty(rows, device=x.device) for _ in range(2))
    _kernels().forward[(rows,)](
        flat, others, weights, weights if biases is None else biases, y, total, mean, scale, mean, 0, 0, 1.0, width, eps,
        groups, DROPS=False, HAS_BIAS=biases is not None, GROUPS=True, BLOCK=1 << (width - 1).bit_length(),
    )  # fmt: skip
    return y
