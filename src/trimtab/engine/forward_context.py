"""What the modules of a model must know while a packed batch runs through it, and their ways of asking.

transformers' own forward code runs; we stand in its registry of attention functions and behind a few of its modules.
"""

# Shapes: T tokens, B texts, H width of the encoder, N heads, D width of a head.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from . import dropout as noisy
from .attention import Call, attend
from .layout import Layout
from .mixed_rows import MixedRows

NAME = "trimtab_packed"  # of our attention in transformers' registry


@dataclass
class ForwardContext:
    """One forward pass over a packed batch: where its texts lie, where it begins and stops, and how far it is."""

    layout: Layout  # where attention finds the tokens
    firsts_from: nn.Module | None = None  # the attention module behind which only first tokens matter
    firsts_only: bool = False  # whether the pass is behind it
    n_layers: int = -1  # modules in the stack of layers; -1 is no depth, so nothing stops or begins behind them
    begin: int = 0  # layers below it are not run where `states` stands in for them
    states: Tensor | None = None  # what layer `begin` is given (1, T, H), or behind all layers, the texts (B, H)
    stop: int | None = None  # in front of which layer the pass ends
    mixed: MixedRows | None = None  # whose rows are whose, where they are of several tasks
    observed: bool = False  # whether every norm is to be computed by its own module
    last_layer_calls: int = 0  # so far, of the last layer's module
    attention_modules: list[nn.Module] = field(default_factory=list)  # in the order of their calls

    def firsts(self, hidden: Tensor) -> Tensor:
        """The first tokens' rows (1, B, ...) of `hidden` (1, T, ...), in the order of the texts."""
        return hidden.index_select(1, self.layout.first_rows())


class Reached(Exception):  # noqa: N818 (an outcome, not an error)
    """The pass has come to where it was to stop; `states` are what it found there."""

    def __init__(self, states: Tensor):
        super().__init__()
        self.states = states


CURRENT: ContextVar[ForwardContext | None] = ContextVar("forward context", default=None)
"""The pass that is under way in this thread; None outside of one."""


@contextmanager
def in_force(context: ForwardContext) -> Iterator[ForwardContext]:
    """Runs the block with `context` and fresh masks in force."""
    tokens = CURRENT.set(context), noisy.MASKS.set(noisy.DropoutMasks())
    try:
        yield context
    finally:
        CURRENT.reset(tokens[0])
        noisy.MASKS.reset(tokens[1])


@contextmanager
def fresh_masks() -> Iterator[None]:
    """Runs the block, a part of the model above its layers, with fresh masks in force."""
    token = noisy.MASKS.set(noisy.DropoutMasks())
    try:
        yield
    finally:
        noisy.MASKS.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Our entry in transformers' registry: (1, N, T, D) in, (1, T, N, D) out; outside of a pass torch's own."""
    context = CURRENT.get()
    # A prepared model that is called directly, on padded texts, answers as it always does.
    if context is None:
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    # The mask is not read: the layout says which tokens see each other.
    context.attention_modules.append(module)
    call = Call(
        context.layout,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout,
        sliding_window,
        first=module is context.firsts_from,
    )
    # Some families turn queries and keys in float32 (rotary positions) and leave the values in bfloat16.
    return attend(query.to(value.dtype), key.to(value.dtype), value, call), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The mask that goes with it: none while a packed batch runs."""
    return ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **kwargs) if CURRENT.get() is None else None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


def without_mask(body: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Hook before the body: the padding mask of a head over B texts of one token is not for T tokens."""
    if CURRENT.get() is None:
        return None
    return args, {name: value for name, value in kwargs.items() if name != "attention_mask"}


def means(body: nn.Module, inputs: Any, output: Any) -> Any:
    """Hook behind the body: each text becomes one token, the mean of its own."""
    context = CURRENT.get()
    if context is not None:
        mean = context.layout.means(output.last_hidden_state[0].float())
        # (B, 1, H): the head goes on as over B texts of one token.
        output.last_hidden_state = _behind_layers(context, mean)[:, None]
    return output


def first_rows(attention: nn.Module, inputs: Any, output: Any) -> Any:
    """Hook behind the last attention: from here on only the first tokens are computed."""
    context = CURRENT.get()
    if context is None or context.firsts_from is not attention:
        return None
    # The attention's answer is a tuple, states first; what runs behind it reads `firsts_only`.
    context.firsts_only = True
    return (context.firsts(output[0]), *output[1:])


def first_tokens(calls: int) -> Any:
    """Hook behind the last layer's module: at the last of its `calls`, each text becomes its first token, in float32."""

    def hook(layer: nn.Module, inputs: Any, output: Any) -> Any:
        context = CURRENT.get()
        if context is None:
            return None
        # Where one module is run for every layer, only its last answer is the last layer's.
        context.last_layer_calls += 1
        if context.last_layer_calls != calls:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        rows = hidden if context.firsts_only else context.firsts(hidden)
        chosen = _behind_layers(context, rows[0].float())[:, None]
        return (chosen, *output[1:]) if isinstance(output, tuple) else chosen

    return hook


def in_float32(layer: nn.Module, inputs: Any, output: Any) -> Any:
    """Hook behind the last layer's module: what follows is not ours and computes in float32."""
    return (output[0].float(), *output[1:]) if isinstance(output, tuple) else output.float()


def layer_forward(own: Any, number: int) -> Any:
    """The forward method that replaces layer `number`'s `own`: a pass may stop in front of it, or begin there."""
    in_tuple = False  # whether this family's layers answer in a tuple, as their last call showed

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal in_tuple
        context = CURRENT.get()
        if context is not None and context.stop == number:
            raise Reached(hidden[0])
        if context is not None and context.states is not None:
            # Below, states go through as they are; at `begin` those given take their place.
            if number < context.begin:
                return (hidden,) if in_tuple else hidden
            if number == context.begin:
                hidden = context.states
        output = own(hidden, *args, **kwargs)
        in_tuple = isinstance(output, tuple)
        return output

    return forward


def _behind_layers(context: ForwardContext, texts: Tensor) -> Tensor:
    """`texts` (B, H), or what stands in for them; where they are all that was wanted, the pass ends."""
    if context.stop == context.n_layers:
        raise Reached(texts)
    return context.states if context.states is not None and context.begin == context.n_layers else texts
