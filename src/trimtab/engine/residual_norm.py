"""LayerNorm behind a linear map, dropout and a residual sum, as one step: LayerNorm(residual + dropout(dense(x))).

BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, MPNet and DeBERTa have a module of exactly this shape at the end of each half
of a layer. Statistics, weight and bias are float32 whatever the activations are.
"""

# Shapes: T tokens, H width.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .dropout import MASKS, Mask, dropout, masked
from .forward_context import CURRENT
from .proof import evaluating
from .residual_norm_triton import fits, fused_norm


class _ResidualNorm(torch.autograd.Function):
    """LayerNorm(residual + dropout(x)): saves the sum, its statistics and the mask's bytes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, mask: Mask | None
    ) -> Tensor:
        answer, saved = sum_normed(x, residual, weight, bias, eps, mask)
        ctx.save_for_backward(*saved, weight, bias)
        ctx.mask = mask
        return answer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *saved, weight, bias = ctx.saved_tensors
        needs = ctx.needs_input_grad
        wanted = [needs[0] or needs[1], needs[2], needs[3]]
        gradients = sum_gradients(grads[0].contiguous(), saved, weight, bias, ctx.mask, wanted)
        return *gradients, None, None


def sum_normed(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, mask: Mask | None
) -> tuple[Tensor, list[Tensor]]:
    """LayerNorm(residual + dropout(x)), outside of the graph, and what `sum_gradients` needs: the sum and its statistics."""
    total = residual + x if mask is None else torch.addcmul(residual, x, mask.kept, value=mask.scale)
    # Of every token the mean, and one over the standard deviation.
    answer, mean, scale = torch.native_layer_norm(total, [x.shape[-1]], weight, bias, eps)
    return answer, [total, mean, scale]


def sum_gradients(
    grad: Tensor, saved: Sequence[Tensor], weight: Tensor, bias: Tensor | None, mask: Mask | None, wanted: list[bool]
) -> tuple[Any, Any, Any, Any]:
    """The gradients of x, residual, weight and bias, or None: `wanted` says whether of both terms, of weight and of bias."""
    total, mean, scale = saved
    # The sum's gradient goes to both of its terms; where the norm alone is trained below which all is frozen, to none.
    dsum, dweight, dbias = torch.ops.aten.native_layer_norm_backward.default(
        grad, total, [total.shape[-1]], mean, scale, weight, bias, wanted
    )
    # x came in through dropout, so its gradient leaves through the same mask.
    return masked(dsum, mask) if wanted[0] and mask is not None else dsum, dsum, dweight, dbias


def residual_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, rate: float) -> Tensor:
    """`norm(residual + dropout(x))` in the dtype of `x`; `rate` is that of dropout."""
    # The embeddings come in float32, the layers' own sums in the dtype of their products.
    residual, masks = residual.to(x.dtype), MASKS.get()
    if fits(x) and norm.weight is not None and rate < 1 and (rate == 0 or masks is not None):
        seed, call = masks.drawn_on(x.device) if rate > 0 and masks is not None else (None, 0)
        return fused_norm(x, residual, norm.weight, norm.bias, norm.eps, rate, seed, call)
    # One after the other where there is no kernel of mixed dtypes, no weight or no pool to draw the mask from.
    if x.device.type != "cpu" or norm.weight is None or (rate > 0 and masks is None):
        return _normed(residual + dropout(x, rate, training=True), norm, x.dtype)
    mask = masks.mask(x.shape, rate, x.dtype) if rate > 0 and masks is not None else None
    return _ResidualNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, mask)  # pyright: ignore[reportReturnType]


def is_tail(module: nn.Module) -> bool:
    """Whether `module` is the end of half a layer: dense, dropout, LayerNorm and nothing else."""
    children = dict(module.named_children())
    return (
        children.keys() == {"dense", "dropout", "LayerNorm"}
        and isinstance(children["dropout"], nn.Dropout)
        and isinstance(children["LayerNorm"], nn.LayerNorm)
        and _normalises(module, children["dense"], children["LayerNorm"])
    )


def _normalises(module: nn.Module, dense: Any, norm: nn.LayerNorm) -> bool:
    """Whether the module's own forward method applies its norm; that of X-MOD leaves it to whoever calls it."""
    where = {"device": dense.weight.device, "dtype": dense.weight.dtype}
    x, residual = (
        torch.ones(1, 1, dense.in_features, **where),
        torch.arange(norm.normalized_shape[0], **where)[None, None],
    )
    try:
        with evaluating(module):
            answer = type(module).forward(module, x, residual)
            expected = functional.layer_norm(
                dense(x) + residual, norm.normalized_shape, norm.weight, norm.bias, norm.eps
            )
    except (RuntimeError, TypeError, AttributeError):
        return False
    return torch.allclose(answer.float(), expected.float(), rtol=1e-3, atol=1e-3)


def tail_forward(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward method that replaces a tail's own."""

    def forward(hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        context = CURRENT.get()
        if context is not None and context.firsts_only and input_tensor.shape[1] != hidden_states.shape[1]:
            # The attention's answer has first tokens only; so must what it is added to.
            input_tensor = context.firsts(input_tensor)
        rate = module.dropout.p if module.dropout.training else 0.0
        # Hooks on the norm see what it is given only where the norm itself is called.
        if context is not None and context.observed:
            hidden = module.dense(hidden_states)
            return module.LayerNorm(input_tensor.to(hidden.dtype) + dropout(hidden, rate, training=True))
        return residual_norm(module.dense(hidden_states), input_tensor, module.LayerNorm, rate)

    return forward


def norm_forward(module: nn.LayerNorm, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The forward method that replaces a LayerNorm's own: float32 statistics and parameters, `dtype` out."""

    def forward(x: Tensor) -> Tensor:
        return _normed(x, module, dtype)

    return forward


def _normed(x: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """`norm(x)` in `dtype`, its statistics and parameters in float32."""
    x = x if x.device.type == "cpu" else x.float()  # only the CPU's kernel mixes bfloat16 with float32 parameters
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)
