"""Cheap linear maps: bfloat16 products around float32 parameters.

Parameters stay as they are (float32, the masters). Frozen matrices are multiplied through a bfloat16 copy in the
layout that oneDNN computes in, with no gradient and no saved input; trained ones through a plain bfloat16 copy. Whether a
parameter is trained is looked up at every call, and copies are made again when their parameter changed in place.
"""

# Shapes: T tokens, I inputs, O outputs of a linear map, r rank of an adapter.

from __future__ import annotations

import functools
import logging
import threading
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.weights import kept_copies
from .dropout import dropout
from .layout import joined
from .sparse_gradient import SparseGradients, tapped

_log = logging.getLogger(__name__)

COMPUTE = torch.bfloat16  # the dtype of products and of what leaves a linear map


class Copies:
    """Bfloat16 copies of the weights of some linear maps, one above the other (O, I), and of their biases."""

    def __init__(self, modules: Sequence[nn.Linear], sparse: SparseGradients | None = None):
        self._modules = modules
        self.sparse = SparseGradients() if sparse is None else sparse  # of which maps some elements are trained
        self._made: dict[
            str, tuple[Any, list[Tensor], Tensor]
        ] = {}  # name -> what it was made of (its stamp, itself), the copy

    def weight(self) -> Tensor:
        """(O, I)"""
        return self._copy("weight", self._weights(), lambda w: w)

    def bias(self) -> Tensor | None:
        """(O,), or None where the maps have no bias; part of the graph where it is trained."""
        biases: list[Tensor] = [module.bias for module in self._modules if module.bias is not None]
        if not biases:
            return None
        if torch.is_grad_enabled() and any(bias.requires_grad for bias in biases):
            # In the graph and no copy that is kept, so that the parameters get their gradients.
            return biases[0] if len(biases) == 1 else torch.cat(biases)
        return self._copy("bias", biases, lambda b: b)

    def product(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x W' + bias, for a frozen W and outside of the graph."""
        return self.times(x, self.bias(), gelu=gelu)

    def times(self, x: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
        """x W' + bias, for frozen W; with `gelu`, GELU of it, computed before it leaves the processor."""
        bias = None if bias is None else bias.to(COMPUTE)
        if x.device.type != "cpu" or not _packs() or self._changing():
            y = functional.linear(x, self.weight(), bias)
            return functional.gelu(y) if gelu else y
        return _product(x, self._copy("forward", self._weights(), _packed), bias, gelu=gelu)

    def unbiased(self, x: Tensor) -> Tensor:
        """x W', for a frozen W and outside of the graph."""
        return self.times(x, None)

    def times_transposed(self, grad: Tensor) -> Tensor:
        """grad W, for frozen W."""
        if grad.device.type != "cpu" or not _packs() or self._changing():
            return grad @ self.weight()
        return _product(grad, self._copy("backward", self._weights(), lambda w: _packed(w.t().contiguous())), None)

    def _changing(self) -> bool:
        """Whether the weights change with every step, so that arranging copies anew costs more than it saves."""
        return any(map(self.sparse.has, self._modules))

    def _weights(self) -> list[Tensor]:
        """The maps' own weights (O, I), the masters of the copies."""
        return [module.weight for module in self._modules]

    def _copy(self, name: str, sources: Sequence[Tensor], arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """The copy called `name`: what `arrange` makes of the `sources`, in bfloat16 and one above the other."""
        # What a recorded CUDA graph reads must be made in it: at a replay the weights are others, and nobody looks at versions.
        changes = any(source.requires_grad and source.is_cuda for source in sources)
        if changes and torch.cuda.is_current_stream_capturing():
            return arrange(torch.cat([source.to(COMPUTE) for source in sources]))
        # Memory and version: torch counts every change in place, and a parameter that was moved lies elsewhere. The sources are
        # kept, since another tensor might lie where one was that is gone.
        stamp = [(source.data_ptr(), source._version) for source in sources]
        made = self._made.get(name)
        if made is None or made[0] != stamp or any(a is not b for a, b in zip(made[1], sources, strict=True)):
            made = self._made[name] = stamp, list(sources), self._arranged(name, sources, arrange)
        return made[2]

    def _arranged(self, name: str, sources: Sequence[Tensor], arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """A new copy, or that of another model of the encoder, where the `sources` are frozen weights that both share."""
        kept = kept_copies(sources)
        copies, key = ({}, ()) if kept is None else kept
        found = copies.get((name, key))
        if found is None:
            with torch.no_grad():
                found = copies[name, key] = arrange(torch.cat([source.to(COMPUTE) for source in sources]))
        return found


class Masters:
    """What Copies does, outside of the graph, in float32 and with the weights themselves."""

    def __init__(self, modules: Sequence[nn.Linear]):
        self._modules, self._widths = modules, [module.out_features for module in modules]

    def product(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """The maps' answers to x (T, I), side by side (T, O)."""
        if len(self._modules) > 1:  # each into its strip of one table, since a weight of all would be a copy
            y = x.new_empty(len(x), sum(self._widths))
            for module, strip in zip(self._modules, y.split(self._widths, 1), strict=True):
                torch.addmm(module.bias, x, module.weight.t(), out=strip)
        else:
            y = functional.linear(x, self._modules[0].weight, self._modules[0].bias)
        return functional.gelu(y) if gelu else y

    def unbiased(self, x: Tensor) -> Tensor:
        """The maps' answers without their biases."""
        y = x.new_empty(len(x), sum(self._widths))
        for module, strip in zip(self._modules, y.split(self._widths, 1), strict=True):
            torch.mm(x, module.weight.t(), out=strip)
        return y

    def times_transposed(self, grad: Tensor) -> Tensor:
        """grad W (T, I), for grad (T, O)."""
        first, *others = zip(grad.split(self._widths, 1), self._modules, strict=True)
        dx = first[0] @ first[1].weight
        for strip, module in others:
            dx.addmm_(strip, module.weight)
        return dx


@functools.cache
def _has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor; where it does not, torch's own products take seconds."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _packs() -> bool:
    """Whether torch's private operator that arranges a weight for oneDNN is there, and takes bfloat16."""
    return _has_bfloat16() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def _packed(weight: Tensor) -> Tensor:
    """The weight (O, I) in the blocked layout of oneDNN, opaque to torch: it need not be arranged anew at every call."""
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """x W' + bias for a `_packed` W, with GELU on the way out where it is wanted."""
    behind, form = ("gelu", "none") if gelu else ("none", "")  # "none" is GELU by erf, not by tanh
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, behind, [], form)


class _Frozen(torch.autograd.Function):
    """x W' + bias with frozen W, cut into columns: one answer per linear map."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, copies: Copies, widths: list[int]
    ) -> Tensor | tuple[Tensor, ...]:
        # Nothing of x is saved: the gradient of a frozen map needs its weight alone.
        ctx.copies = copies
        y = copies.times(x, bias)
        return y if len(widths) == 1 else y.split(widths, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        # The answers' gradients side by side are the gradient of the one wide product.
        grad = grads[0].contiguous() if len(grads) == 1 else _side_by_side(grads)
        dx = ctx.copies.times_transposed(grad) if ctx.needs_input_grad[0] else None
        # Summed in float32: thousands of bfloat16 terms would lose all but the first few hundred.
        db = grad.sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        return dx, db, None, None


def _side_by_side(strips: Sequence[Tensor]) -> Tensor:
    """The strips as one table: without a copy where attention has written them into one."""
    table = joined(strips)
    return torch.cat(list(strips), 1) if table is None else table


class _Trained(torch.autograd.Function):
    """x W' + bias with trained W: products in bfloat16, backward ones too; gradients of W and bias are handed on in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, copies: Copies) -> Tensor:
        plain = copies.weight()
        ctx.save_for_backward(x, plain)
        return functional.linear(x, plain, None if bias is None else bias.to(COMPUTE))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (x, weight), grad = ctx.saved_tensors, grads[0].contiguous()
        dx = grad @ weight if ctx.needs_input_grad[0] else None
        dw = (grad.t() @ x).float() if ctx.needs_input_grad[1] else None  # (O, I)
        db = grad.sum(0, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        return dx, dw, db, None


class _LowRank(torch.autograd.Function):
    """y + scale (x A') B', the sum of a linear map and its adapter; A (r, I) and B (O, r) are float32."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        a, b = a.to(COMPUTE), b.to(COMPUTE)
        inner = x @ a.t()  # (T, r)
        ctx.save_for_backward(x, inner, a, b)
        ctx.scale = scale
        return torch.addmm(y, inner, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, inner, a, b), grad = ctx.saved_tensors, grads[0]
        # Through B first: both gradients then cost T r (I + O), not T I O.
        through = (grad @ b).mul_(ctx.scale)  # (T, r)
        da = (through.t() @ x).float() if ctx.needs_input_grad[2] else None
        db = (grad.t() @ inner).float().mul_(ctx.scale) if ctx.needs_input_grad[3] else None
        return grad, through @ a if ctx.needs_input_grad[1] else None, da, db, None


def linear_forward(module: nn.Linear, copies: Copies | None = None) -> Callable[[Tensor], Tensor]:
    """The forward method that replaces a linear map's own: bfloat16 out, whatever comes in."""
    copies = copies or Copies([module])

    def forward(x: Tensor) -> Tensor:
        flat = x.to(COMPUTE).reshape(-1, x.shape[-1])  # (T, I)
        if _is_trained(module, copies.sparse):
            y: Any = _Trained.apply(flat, module.weight, module.bias, copies)
        else:
            y = _Frozen.apply(flat, copies.bias(), copies, [module.out_features])
            y = tapped(y, flat, copies.sparse.of(module))
        return y.view(*x.shape[:-1], -1)

    return forward


def is_intermediate(module: Any) -> bool:
    """Whether `module` is a linear map with exact GELU behind it and nothing else, as in BERT's layers."""
    children = dict(module.named_children())
    if children.keys() != {"dense", "intermediate_act_fn"} or not isinstance(children["dense"], nn.Linear):
        return False
    # By its answers and not its class: one function has several, and its tanh form is further off than this.
    activation, probe = children["intermediate_act_fn"], torch.linspace(-4, 4, 65)
    return torch.allclose(activation(probe), functional.gelu(probe), rtol=0, atol=1e-6)


def intermediate_forward(module: Any, copies: Copies) -> Callable[[Tensor], Tensor]:
    """The forward method that replaces such a module's own: both in one step where no gradient will ask for what is between.

    That is so in frozen first layers, whether they are run to fill a cache or within a training step, so that both come to the
    same bits; and not where hooks on the map within want to see what it does (changes/per_example_gradients.py).
    """
    own = module.forward

    def forward(hidden_states: Tensor) -> Tensor:
        x = hidden_states
        needs_gradient = x.requires_grad or any(p.requires_grad for p in module.dense.parameters())
        if module.dense._forward_hooks or (torch.is_grad_enabled() and needs_gradient):
            return own(x)
        y = copies.times(x.to(COMPUTE).reshape(-1, x.shape[-1]), copies.bias(), gelu=True)
        return y.view(*x.shape[:-1], -1)

    return forward


def shared_forwards(modules: Sequence[nn.Linear], copies: Copies | None = None) -> list[Callable[[Tensor], Tensor]]:
    """Forward methods for linear maps of one input (query, key, value): while all are frozen, the first call computes all."""
    copies = copies or Copies(modules)
    alone = [linear_forward(module, Copies([module], copies.sparse)) for module in modules]
    widths = [module.out_features for module in modules]
    # Pools and servers may run one model from several threads.
    state = threading.local()  # .input: what the waiting answers belong to; .answers: by number of the map

    def forward(x: Tensor, number: int) -> Tensor:
        # A trained one needs its own gradient product, so each goes alone.
        if any(_is_trained(module, copies.sparse) for module in modules):
            return alone[number](x)
        # The maps of a group are given one tensor, not equal ones: that is how they were found.
        if getattr(state, "input", None) is not x or number not in state.answers:
            flat = x.to(COMPUTE).reshape(-1, x.shape[-1])
            answers: Any = _Frozen.apply(flat, copies.bias(), copies, widths)
            taps = (tapped(y, flat, copies.sparse.of(module)) for y, module in zip(answers, modules, strict=True))
            state.input, state.answers = x, dict(enumerate(taps))
        y = state.answers.pop(number)
        # All are fetched, so the input need not be kept alive any longer.
        if not state.answers:
            state.input = None
        return y.view(*x.shape[:-1], -1)

    return [functools.partial(forward, number=i) for i in range(len(modules))]


def _is_trained(module: nn.Linear, sparse: SparseGradients) -> bool:
    """Whether this pass may ask for the gradient of the whole weight: else the copy for frozen weights is faster."""
    return module.weight.requires_grad and torch.is_grad_enabled() and not sparse.has(module)


def is_adapter(module: Any) -> bool:
    """Whether `module` is a linear map with peft's LoRA adapters around it."""
    return all(hasattr(module, name) for name in ("base_layer", "lora_A", "lora_B", "lora_dropout", "scaling"))


def adapter_forward(module: Any) -> Callable[..., Tensor]:
    """The forward method that replaces a LoRA-adapted linear map's own; peft's own where more is on than one adapter."""
    own = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = module.active_adapters
        # Whatever else peft can do, it does itself.
        plain = not (args or kwargs or module.disable_adapters or module.merged) and len(active) == 1
        if not plain or active[0] not in module.lora_A or active[0] in getattr(module, "lora_variant", {}):
            return own(x, *args, **kwargs)
        a, b = module.lora_A[active[0]].weight, module.lora_B[active[0]].weight
        y = module.base_layer(x)
        drop = module.lora_dropout[active[0]]
        inputs = dropout(x, getattr(drop, "p", 0.0), drop.training).to(COMPUTE)
        flat = y.to(COMPUTE).view(-1, y.shape[-1])
        total: Any = _LowRank.apply(flat, inputs.reshape(-1, x.shape[-1]), a, b, module.scaling[active[0]])
        # In the dtype of the base map's answer: float32 where the model runs padded.
        return total.view(y.shape).to(y.dtype)

    return forward


def keeping_dtype(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward` with answers in the dtype of its input, for models that mix them with float32."""
    return lambda x, *args, **kwargs: forward(x, *args, **kwargs).to(x.dtype)


@functools.cache
def bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on `device`, measured once."""
    # Every card that has it in hardware is faster with it.
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not _has_bfloat16():
        return False
    seconds = {}  # of the best of five products of 512 tokens with a map of a base model's width
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.randn(512, 768).to(dtype), torch.randn(768, 768).to(dtype)
        seconds[dtype] = min(timeit.repeat(lambda x=x, w=w: functional.linear(x, w), number=1, repeat=5))
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    _log.info("bfloat16 products run at %.1f times the speed of float32 here", ratio)
    return ratio > 1.2
