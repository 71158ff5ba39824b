"""The gradient of a few elements of a matrix, read off its inputs and outputs instead of from the dense gradient.

A matrix of which few elements are trained is multiplied like a frozen one. Its dense gradient, a product as large as the
forward one, is never made: element (o, i) of it is the sum over tokens of (gradient at output o) times (input i).
"""

# Shapes: T tokens, I inputs, O outputs of a linear map, K picked elements, V rows and H columns of a table of embeddings.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_PIECE_VALUES = 1 << 20  # of products that are there at once
_FEW = 100  # below one element in so many of a linear map, picking is faster than the dense product (by 1.5 to 5 times)


@dataclass(frozen=True)
class Picked:
    """Which elements of a module's weight are trained, and what receives their gradient."""

    values: nn.Parameter  # (K,) float32
    rows: Tensor  # (K,) int64, ascending
    columns: Tensor  # (K,) int64


GradientOf = Callable[[Tensor, Tensor, Picked], Tensor]


class SparseGradients:
    """Of which matrices of a model some elements are trained by themselves, and what receives their gradients."""

    def __init__(self) -> None:
        self._picked: dict[nn.Module, Picked] = {}

    def pick(self, module: nn.Module, positions: Tensor, values: nn.Parameter) -> bool:
        """Has backward give `values` (K,) the gradient of the elements at the flat ascending `positions` of `module.weight`.

        Only where `module` runs through this engine; elsewhere the weight gets its dense gradient as before. Says whether
        that is possible and pays for this module and number of elements.
        """
        # On a GPU the dense product is cheap, and one step can be recorded with it: how many elements a text touches varies.
        if not isinstance(module, nn.Linear | nn.Embedding) or positions.device.type != "cpu":
            return False
        if isinstance(module, nn.Linear) and len(positions) * _FEW > module.weight.numel():
            return False
        width = module.weight.shape[1]
        self._picked[module] = Picked(values, positions // width, positions % width)
        return True

    def unpick(self, module: nn.Module) -> None:
        """Forgets what `pick` was told."""
        self._picked.pop(module, None)

    def has(self, module: nn.Module) -> bool:
        """Whether elements of the weight of `module` are trained by themselves."""
        return module in self._picked

    def of(self, module: nn.Module) -> Picked | None:
        """What `pick` was told of `module`, where this pass may ask for a gradient."""
        return self._picked.get(module) if torch.is_grad_enabled() else None


class _Tap(torch.autograd.Function):
    """y, whose gradient on its way back also becomes that of the picked elements of the weight that y was computed with.

    `gradient_of` says how, from y's gradient and from `source`, what the weight was applied to.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, values: Tensor, source: Tensor, picked: Picked, gradient_of: GradientOf) -> Tensor:
        ctx.save_for_backward(source)
        ctx.picked, ctx.gradient_of = picked, gradient_of
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (source,) = ctx.saved_tensors
        return grads[0], ctx.gradient_of(grads[0], source, ctx.picked), None, None, None


def _of_product(grad: Tensor, x: Tensor, picked: Picked) -> Tensor:
    """(K,): of elements of W in y = x W', from the gradient (T, O) of y and x (T, I)."""
    outputs, inputs = grad.t().contiguous(), x.t().contiguous()  # (O, T), (I, T)
    sums = torch.empty(len(picked.rows), device=x.device)
    # Some elements at a time, or many elements of a long batch would take gigabytes.
    step = max(1, _PIECE_VALUES // len(x))
    for start in range(0, len(sums), step):
        part = slice(start, start + step)
        products = outputs.index_select(0, picked.rows[part]).mul_(inputs.index_select(0, picked.columns[part]))
        torch.sum(products, 1, dtype=torch.float32, out=sums[part])
    return sums


def _of_lookup(grad: Tensor, ids: Tensor, picked: Picked) -> Tensor:
    """(K,): of elements of a table, from the gradient of what was looked up in it and the ids, of which -1 counts for nothing."""
    flat = ids.flatten()  # (T,)
    first, last = torch.searchsorted(picked.rows, flat), torch.searchsorted(picked.rows, flat, right=True)
    counts = last - first  # picked elements in the row of each token
    tokens = torch.arange(len(flat), device=flat.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    elements = torch.arange(len(tokens), device=flat.device) + (first - before)[tokens]
    gradients = grad.reshape(len(flat), -1)[tokens, picked.columns[elements]].float()
    return gradients.new_zeros(len(picked.rows)).index_add_(0, elements, gradients)


def tapped(y: Tensor, x: Tensor, picked: Picked | None, gradient_of: GradientOf = _of_product) -> Tensor:
    """`y` (T, O), the product of `x` (T, I) with a weight of which `picked` is trained; itself where that is None."""
    if picked is None:
        return y
    return _Tap.apply(y, picked.values, x, picked, gradient_of)  # pyright: ignore[reportReturnType]


def embedding_forward(module: nn.Embedding, sparse: SparseGradients) -> Any:
    """The forward method that replaces that of a table of embeddings."""
    own = module.forward

    def forward(ids: Tensor) -> Tensor:
        picked = sparse.of(module)
        if picked is None:
            return own(ids)
        y = functional.embedding(ids, module.weight.detach())
        wanted = ids if module.padding_idx is None else ids.masked_fill(ids == module.padding_idx, -1)
        return tapped(y, wanted, picked, _of_lookup)

    return forward
