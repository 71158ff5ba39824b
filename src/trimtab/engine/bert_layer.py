"""A whole layer of the BERT family as one step of the graph, for a CPU, while its matrices are frozen.

The layer's own forward is some 30 modules, views and nodes of the graph, which on a batch of short sentences take as long as a
tenth of its products. The same arithmetic in one step needs none of them, and hands on gradients of biases and norms.
Layers of which a matrix is trained, adapted or watched by hooks run as they are.
"""

# Shapes: T tokens, B texts, Q the tokens that go on (T, or B where only first tokens do), H width.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import Call, Kept, attend_table, table_gradient
from .dropout import MASKS, Mask
from .forward_context import CURRENT, ForwardContext
from .linear import COMPUTE, Copies, Masters, is_intermediate
from .mixed_rows import MixedRows
from .residual_norm import is_tail, sum_gradients, sum_normed


class WholeLayer:
    """A layer that runs in one step; `fits` says which do."""

    def __init__(self, layer: Any, path: str, number: int):
        """`path` is that of the `layer`, `number` that among the layers."""
        attention = layer.attention.self
        self.number = number
        self.attention = attention
        self.heads: int = attention.num_attention_heads
        self.tails = layer.attention.output, layer.output  # dense, dropout and norm at the end of either half
        self.groups: list[list[nn.Linear]] = [
            [attention.query, attention.key, attention.value],
            [layer.attention.output.dense],
            [layer.intermediate.dense],
            [layer.output.dense],
        ]
        paths = {module: f"{path}.{name}" for name, module in layer.named_modules()}
        self.paths = [[paths[module] for module in group] for group in self.groups]
        self.norm_paths = [paths[tail.LayerNorm] for tail in self.tails]
        self.dtype = torch.float32  # of products, and of what leaves a linear map
        self.maps: Sequence[Masters | Copies] = [Masters(group) for group in self.groups]

    def use(self, copies: list[Copies]) -> None:
        """Computes in bfloat16 from now on, through these copies of the four groups of maps."""
        self.dtype, self.maps = COMPUTE, copies

    def matrices(self) -> list[Tensor]:
        """The weights of all maps."""
        return [module.weight for group in self.groups for module in group]

    def vectors(self) -> list[Tensor]:
        """The biases of all maps, and of both norms weight and bias: in the order in which `_changes` gives their gradients."""
        biases: list[Tensor] = [module.bias for group in self.groups for module in group]
        return biases + [vector for tail in self.tails for vector in (tail.LayerNorm.weight, tail.LayerNorm.bias)]


def fits(layer: Any) -> bool:
    """Whether `layer` has the parts of BERT's and no others; what it does with them must be tried."""
    children = dict(layer.named_children())
    if children.keys() != {"attention", "intermediate", "output"}:
        return False
    attention = dict(children["attention"].named_children())
    if attention.keys() != {"self", "output"} or not is_intermediate(children["intermediate"]):
        return False
    asking = dict(attention["self"].named_children())
    if asking.keys() != {"query", "key", "value", "dropout"} or not isinstance(asking["dropout"], nn.Dropout):
        return False
    if not all(hasattr(attention["self"], name) for name in ("num_attention_heads", "scaling")):
        return False
    tails = attention["output"], children["output"]
    if not all(
        is_tail(tail) and tail.LayerNorm.weight is not None and tail.LayerNorm.bias is not None for tail in tails
    ):
        return False
    maps = [asking[name] for name in ("query", "key", "value")] + [children["intermediate"].dense]
    maps += [tail.dense for tail in tails]
    # A subclass may multiply otherwise, as peft's adapters do.
    return all(type(m) is nn.Linear and m.bias is not None and m.weight.dtype == torch.float32 for m in maps)


def whole_forward(whole: WholeLayer, own: Callable[..., Any]) -> Callable[..., Any]:
    """The forward method that replaces a layer's `own`, which still runs where the layer cannot run in one step."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get()
        if context is None or context.observed or hidden_states.device.type != "cpu":
            return own(hidden_states, *args, **kwargs)
        if context.mixed is not None:
            return _mixed(hidden_states[0].to(whole.dtype), whole, context, context.mixed)[None]
        graph = torch.is_grad_enabled()
        if graph and any(matrix.requires_grad for matrix in whole.matrices()):
            return own(hidden_states, *args, **kwargs)
        context.attention_modules.append(whole.attention)
        first = whole.attention is context.firsts_from
        rate = whole.attention.dropout.p if whole.attention.training else 0.0
        call = Call(context.layout, whole.attention.scaling, rate, first=first)
        context.firsts_only = context.firsts_only or first
        x = hidden_states[0].to(whole.dtype)
        vectors = whole.vectors()
        if graph and (x.requires_grad or any(vector.requires_grad for vector in vectors)):
            return _Whole.apply(x, whole, call, *vectors)[None]  # pyright: ignore[reportOptionalSubscript]
        return _answered(x, whole, call, keep=False)[0][None]

    return forward


POINTS = 6  # of a layer, at which rows may part: in front of its first maps, and of the five steps behind attention


def point_of(whole: WholeLayer, path: str) -> int:
    """Behind which point of the layer, from 0, the module at `path` does its work."""
    steps = [whole.paths[0], whole.paths[1], whole.norm_paths[:1], whole.paths[2], whole.paths[3], whole.norm_paths[1:]]
    return next(point for point, paths in enumerate(steps) if path in paths)


def _mixed(x: Tensor, whole: WholeLayer, context: ForwardContext, rows: MixedRows) -> Tensor:
    """The layer's answer to x (T, H), rows of several tasks, outside of the graph; at every point rows may become more."""
    point = 1 + POINTS * whole.number
    to_table, to_attended, to_inner, to_outer = whole.maps
    (x,) = rows.reach(point, x)
    first = whole.attention is context.firsts_from
    call = Call(rows.layout, whole.attention.scaling, first=first)
    table = rows.product(to_table, whole.groups[0], whole.paths[0], x)
    answer, _, _ = attend_table(table, whole.heads, call, keep=False)
    if first:
        x = x.index_select(0, rows.layout.first_rows())
        context.firsts_only = rows.by_text = True
    answer, x = rows.reach(point + 1, answer, x)
    answer = rows.product(to_attended, whole.groups[1], whole.paths[1], answer)
    answer, x = rows.reach(point + 2, answer, x)
    x = rows.normed(answer, whole.norm_paths[0], whole.tails[0].LayerNorm, x)
    (x,) = rows.reach(point + 3, x)
    inner = rows.product(to_inner, whole.groups[2], whole.paths[2], x, gelu=True)
    inner, x = rows.reach(point + 4, inner, x)
    outer = rows.product(to_outer, whole.groups[3], whole.paths[3], inner)
    outer, x = rows.reach(point + 5, outer, x)
    context.layout = rows.layout
    return rows.normed(outer, whole.norm_paths[1], whole.tails[1].LayerNorm, x)


@dataclass
class _State:
    """What backward must know beside its tensors."""

    whole: WholeLayer
    kept: Kept
    masks: list[Mask | None]  # of the two tails


class _Whole(torch.autograd.Function):
    """A layer's answer (Q, H) to x (T, H).

    Saved are rows of queries, keys and values, attention weights, the sums that are normed, and what GELU is of.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, whole: WholeLayer, call: Call, *vectors: Tensor) -> Tensor:
        y, ctx.state, tensors = _answered(x, whole, call, keep=True)
        ctx.save_for_backward(*tensors)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        dx, changes = _changes(grads[0].contiguous(), ctx.state, ctx.saved_tensors, [needs[0], *needs[3:]])
        return dx, None, None, *changes


def _answered(x: Tensor, whole: WholeLayer, call: Call, keep: bool) -> tuple[Tensor, _State | None, list[Tensor]]:
    """The layer's answer (Q, H) to x (T, H); with `keep`, what `_changes` needs."""
    to_table, to_attended, to_inner, to_outer = whole.maps
    answer, kept, of_attention = attend_table(to_table.product(x), whole.heads, call, keep)
    residual = x.index_select(0, call.layout.first_rows()) if call.first else x
    hidden, mask, of_norm = _normed(to_attended.product(answer), residual, whole.tails[0])
    # GELU in one step with the product where nothing will ask for what it is of.
    inner = to_inner.product(hidden, gelu=not keep)
    outer = to_outer.product(functional.gelu(inner) if keep else inner)
    y, last_mask, of_last_norm = _normed(outer, hidden, whole.tails[1])
    if kept is None:
        return y, None, []
    return y, _State(whole, kept, [mask, last_mask]), [*of_norm, *of_last_norm, inner, *of_attention]


def _normed(x: Tensor, residual: Tensor, tail: Any) -> tuple[Tensor, Mask | None, list[Tensor]]:
    """The tail's norm of residual + dropout(x), the mask, and what the gradients need."""
    norm, rate, masks = tail.LayerNorm, tail.dropout.p if tail.dropout.training else 0.0, MASKS.get()
    assert masks is not None
    mask = masks.mask(x.shape, rate, x.dtype) if rate > 0 else None
    y, saved = sum_normed(x, residual, norm.weight, norm.bias, norm.eps, mask)
    return y, mask, saved


def _changes(
    dy: Tensor, state: _State, tensors: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradients of x (T, H) and of the layer's `vectors`, from that of its answer (Q, H); None where `needs` says so.

    `needs` is of x first, then of the vectors.
    """
    needs_x, of_table, (of_attended, of_inner, of_outer) = needs[0], needs[1:4], needs[4:7]
    to_table, to_attended, to_inner, to_outer = state.whole.maps
    call, inner, of_attention = state.kept.call, tensors[6], tensors[7:]
    norm, last_norm = (tail.LayerNorm for tail in state.whole.tails)
    goes_on = needs_x or any(needs[1:6]) or any(needs[7:9])  # beyond the last map
    wanted = [goes_on or of_outer, *needs[9:11]]
    douter, dhidden, *last = sum_gradients(dy, tensors[3:6], last_norm.weight, last_norm.bias, state.masks[1], wanted)
    if not goes_on:
        return None, [*[None] * 5, _summed(douter, of_outer), None, None, *last]
    # The feed-forward half.
    dinner = to_outer.times_transposed(douter)
    torch.ops.aten.gelu_backward.grad_input(dinner, inner, grad_input=dinner)
    dhidden = to_inner.times_transposed(dinner).add_(dhidden)
    # The half that attends.
    wanted = [needs_x or any(of_table) or of_attended, *needs[7:9]]
    dattended, dx, *first = sum_gradients(dhidden, tensors[:3], norm.weight, norm.bias, state.masks[0], wanted)
    behind = [_summed(dattended, of_attended), _summed(dinner, of_inner), _summed(douter, of_outer), *first, *last]
    if dattended is None or not (needs_x or any(of_table)):
        return None, [None, None, None, *behind]
    dtable = table_gradient(to_attended.times_transposed(dattended), state.kept, of_attention)
    strips = dtable.sum(0, dtype=torch.float32).chunk(3) if any(of_table) else [None] * 3
    changes = [strip if need else None for strip, need in zip(strips, of_table, strict=True)] + behind
    if not needs_x:
        return None, changes
    through = to_table.times_transposed(dtable)
    return through.index_add_(0, call.layout.first_rows(), dx) if call.first else through.add_(dx), changes


def _summed(grad: Tensor | None, needed: bool) -> Tensor | None:
    """The gradient of a bias, summed in float32: thousands of bfloat16 terms would lose all but the first few hundred."""
    return grad.sum(0, dtype=torch.float32) if needed and grad is not None else None
