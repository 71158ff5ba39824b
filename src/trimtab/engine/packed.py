"""Run a sequence-classification model on a padding-free batch: its texts one after the other in one row of tokens.

The model's own forward runs. Attention is ours, through transformers' registry, and keeps the texts apart; behind the
last layer each text is replaced by its first token (or by its mean, where the head wants that), so that pooler and head
see B texts of one token. Families that compute attention without asking the registry are found by a probe and run
padded instead.
"""

# Shapes: T tokens, B texts, H width of the encoder, C outputs.

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.choices import Compute
from ..encoders.heads import LinearHead, agree, texts_per_row
from ..encoders.parameter_kinds import layers_of, runs_as
from ..encoders.positions import position_ids, uncounted
from ..errors import InputError, first_line
from . import forward_context, linear, residual_norm
from .bert_layer import WholeLayer, fits, whole_forward
from .dropout import dropout_forward
from .forward_context import ForwardContext
from .layout import Layout
from .padded import bucketed_logits, warn_padded
from .proof import check_training, evaluating, observe, padding_matters, probe_ids
from .sparse_gradient import embedding_forward

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedBatch:
    """B texts in one row of T tokens."""

    input_ids: Tensor  # (1, T) int64
    position_ids: Tensor  # (1, T) int64, anew in every text
    token_type_ids: Tensor | None  # (1, T) int64
    lengths: Tensor  # (B,) int64, on the CPU: tokens of each text
    starts: Tensor  # (B,) int64, on the CPU: the number of each text's first token
    layout: Layout | None = None  # where attention finds the texts; None: it follows from starts and lengths

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass
class _Plan:
    """What `prepare` decided for a model and did to it."""

    attention: str | None  # the model's attention implementation before
    packed: bool = False
    alike: bool = False  # whether only texts of one length may run together, since padding changes answers
    halved: bool = False  # whether its layers compute in bfloat16
    n_layers: int = 0  # modules in the stack: 1 where one is run for every layer
    firsts_from: nn.Module | None = None  # as in ForwardContext
    wholes: list[WholeLayer] = field(
        default_factory=list
    )  # layers that run in one step while their matrices are frozen
    patched: list[nn.Module] = field(default_factory=list)  # what has a forward method of ours
    hooks: list[Any] = field(default_factory=list)

    def patch(self, module: nn.Module, forward: Any) -> None:
        """Puts `forward` in front of the method of the module's class, which stays as it is."""
        module.forward = forward
        self.patched.append(module)

    def undo(self) -> None:
        """Takes away all hooks and forward methods that the plan has set."""
        while self.hooks:
            self.hooks.pop().remove()
        while self.patched:
            vars(self.patched.pop()).pop("forward", None)
        self.wholes.clear()


# Weak, so that a plan goes with its model: it holds modules inside of it, but not the model.
_PLANS: WeakKeyDictionary[nn.Module, _Plan] = WeakKeyDictionary()


def pack(ids: Sequence[np.ndarray], type_ids: Sequence[np.ndarray] | None, model: Any) -> PackedBatch:
    """The PackedBatch of B texts given by their token ids (and segment ids), on the device of `model`."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(row) for row in ids])
    starts = lengths.cumsum(0) - lengths
    return PackedBatch(
        _row(ids).to(device),
        torch.from_numpy(position_ids(ids, uncounted(model)))[None].to(device),
        None if type_ids is None else _row(type_ids).to(device),
        lengths,
        starts,
    )


def forward(model: Any, batch: PackedBatch) -> Tensor:
    """Float32 logits (B, C), with autograd; prepares the model as it is if that was not done yet."""
    if model not in _PLANS:
        prepare(model)
    plan = _PLANS[model]
    if not plan.packed:
        ids, types, lengths = batch.input_ids[0], batch.token_type_ids, batch.lengths.tolist()  # of each text
        return bucketed_logits(model, ids, types, lengths, alike=plan.alike)
    return packed_logits(model, batch)


def packed_logits(model: Any, batch: PackedBatch, observed: bool = False) -> Tensor:
    """Float32 logits (B, C) of a model that runs packed.

    Where it is `observed`, every norm is computed by its own module instead of in one step with what comes before it.
    """
    return _run(model, batch, _PLANS[model], observed=observed)[0]


def can_split(model: Any) -> bool:
    """Whether `states_before` and `forward_from` work on `model`: it is prepared and runs packed."""
    return model in _PLANS and _PLANS[model].packed


def takes_alike(model: Any) -> bool:
    """Whether texts of different lengths would change each other's answers in `model`, which is prepared."""
    return model in _PLANS and _PLANS[model].alike


@torch.no_grad()
def states_before(model: Any, batch: PackedBatch, depth: int) -> Tensor:
    """What layer `depth` of a prepared model is given, (T, H).

    At the number of layers: what the head is given of each text, (B, H) float32 (a row of a pair apart has two texts). Raises
    ValueError for a `depth` beyond that.
    """
    plan = _PLANS[model]
    try:
        _run(model, batch, plan, depth=depth, wants_states=True)
    except forward_context.Reached as reached:
        # Less the padding text that `rounded` may have added behind the others.
        return reached.states[: len(batch) if depth == plan.n_layers else batch.input_ids.shape[1]]
    raise ValueError(f"{type(model).__name__} has no layer {depth}")


def forward_from(model: Any, states: Tensor, lengths: Sequence[int], depth: int) -> Tensor:
    """Float32 logits (B, C) from what `states_before` gave, with autograd; nothing below layer `depth` is run.

    `lengths` are the tokens of each text.
    """
    plan, pooled = _PLANS[model], depth == _PLANS[model].n_layers
    ids = [np.full(1 if pooled else length, model.config.pad_token_id or 0, np.int32) for length in lengths]
    if pooled and isinstance(model, LinearHead) and model.pooling == "mean":  # nothing else lies above
        with forward_context.fresh_noise():
            return model.answer(states).float()
    batch = pack(ids, None, model)  # stands in for the tokens, whose embeddings nothing will read
    return _run(model, batch, plan, depth=depth, states=states if pooled else states[None])[0]


def copies_bytes(model: Any) -> int:
    """What the bfloat16 copies of a prepared model take, once each layer has run forward and backward."""
    if model not in _PLANS or not _PLANS[model].halved:
        return 0
    layers = model.get_submodule(layers_of(model).path)
    # Two copies of each weight, 2 bytes an element.
    return sum(2 * 2 * module.weight.numel() for module in layers.modules() if isinstance(module, nn.Linear))


def prepare(model: Any, *, compute: Compute = "auto") -> None:
    """Makes `forward` run packed on `model`, its layers in bfloat16 where that pays; `restore` undoes it.

    Parameters are not touched: `model.state_dict()` stays float32 and exact, and which are trained is looked up at every
    call. Raises InputError where the model's answers are not numbers.
    """
    restore(model)
    try:
        expected, groups = observe(model)
    except Exception as error:  # of the model's own code, which asks for a pad token, an end of text, another head
        raise InputError(
            f"{type(model).__name__} cannot answer padded texts with this head: {first_line(error)}"
        ) from error
    if not bool(torch.isfinite(expected).all()):
        raise InputError(f"the answers of this {type(model).__name__} are not numbers (NaN): its weights are damaged")
    plan = _PLANS[model] = _Plan(model.config._attn_implementation)
    layers = model.get_submodule(layers_of(model).path)
    plan.n_layers = len(layers)
    plan.packed = _try_packed(model, plan, layers, expected)
    if not plan.packed:
        model.config._attn_implementation = plan.attention
        plan.alike = padding_matters(model, expected)
        check_training(model)
        if plan.alike and texts_per_row(model) > 1:
            restore(model)
            raise InputError(
                f"the answers of {type(model.base_model).__name__} depend on padding, so it cannot read pairs apart: "
                "give --pairs together"
            )
        warn_padded(model, alike=plan.alike)
    # Dropout and tables in all of the model, arithmetic in its layers only.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            plan.patch(module, dropout_forward(module))
        elif runs_as(module, nn.Embedding):
            plan.patch(module, embedding_forward(module))
    if resolved(compute, next(model.parameters()).device) == "bfloat16":
        plan.halved = True
        _use_bfloat16(plan, layers, groups)


_AUTO: ContextVar[Compute] = ContextVar("auto", default="auto")


@contextmanager
def computing(compute: Compute) -> Iterator[None]:
    """Within the block "auto" stands for `compute`: what a method measures is computed like the fit that it chooses for."""
    token = _AUTO.set(compute)
    try:
        yield
    finally:
        _AUTO.reset(token)


def resolved(compute: Compute, device: torch.device) -> Compute:
    """What "auto" stands for: what `computing` says, else the faster on `device`, measured once per process."""
    compute = _AUTO.get() if compute == "auto" else compute
    if compute != "auto":
        return compute
    return "bfloat16" if linear.bfloat16_pays(device) else "float32"


def restore(model: Any) -> None:
    """Undoes `prepare`; a model that was not prepared stays as it is."""
    plan = _PLANS.pop(model, None)
    if plan is not None:
        model.config._attn_implementation = plan.attention
        plan.undo()


def _row(rows: Sequence[np.ndarray]) -> Tensor:
    """The arrays one after the other, (1, T) int64."""
    return torch.from_numpy(np.concatenate(rows).astype(np.int64))[None]


def _run(model: Any, batch: PackedBatch, plan: _Plan, **part: Any) -> tuple[Tensor, ForwardContext]:
    """The logits, and the context that they come from; `part` are fields of it that say where to begin or to stop."""
    n_rows = len(batch) // texts_per_row(model)
    states, only_head = part.get("states"), part.get("states") is not None and part["depth"] == plan.n_layers
    # A head alone has no large products, whose shapes would be worth rounding.
    if not only_head:
        batch = rounded(model, batch)
        if states is not None:
            part["states"] = functional.pad(states, (0, 0, 0, batch.input_ids.shape[1] - states.shape[1]))
    layout = batch.layout or Layout(batch.starts.tolist(), batch.lengths.tolist(), batch.input_ids.device)
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    if isinstance(model, LinearHead):  # its mean is over B texts of one token each
        inputs["attention_mask"] = torch.ones(len(batch), 1, device=batch.input_ids.device)
    with forward_context.in_force(ForwardContext(layout, plan.firsts_from, n_layers=plan.n_layers, **part)) as context:
        return model(**inputs).logits.float()[:n_rows], context  # without the padding text's answer


def rounded(model: Any, batch: PackedBatch) -> PackedBatch:
    """`batch` with one more text of padding, where it takes one to come to a round number of tokens and that pays.

    oneDNN builds a program for every shape of a product, and a run whose every step has another number of tokens would
    spend a tenth of its time on that. Some 16 sizes per doubling cost 2% more tokens.
    """
    tokens = batch.input_ids.shape[1]
    step = min(64, 1 << max(3, tokens.bit_length() - 5))  # tokens
    missing = -tokens % step
    if not missing or not _PLANS[model].halved or batch.input_ids.device.type != "cpu":
        return batch
    types = batch.token_type_ids
    return PackedBatch(
        functional.pad(batch.input_ids, (0, missing), value=model.config.pad_token_id or 0),
        torch.cat([batch.position_ids, batch.position_ids[:, :1].expand(1, missing)], 1),
        None if types is None else functional.pad(types, (0, missing)),
        torch.cat([batch.lengths, torch.tensor([missing])]),
        torch.cat([batch.starts, torch.tensor([tokens])]),
    )


def _try_packed(model: Any, plan: _Plan, layers: nn.Module, expected: Tensor) -> bool:
    """Sets `model` up for packed batches; whether the probe's logits then are the `expected` ones.

    Right is: our attention ran once in every layer, and the logits equal those of padded texts. Tried first with whole layers
    as one step, then with their ends as one step (and a last layer that computes first tokens only), then plainly.
    """
    model.config._attn_implementation = forward_context.NAME
    with evaluating(model):
        # Where no layer is one that runs whole, the second try would be the first one again.
        any_whole = any(fits(layer) for layer in layers.children())
        for whole, shortcuts in ((True, True), (False, True), (False, False))[0 if any_whole else 1 :]:
            try:
                _set_up(model, plan, layers, whole=whole, shortcuts=shortcuts)
                logits, context = _run(model, pack(probe_ids(model), None, model), plan)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
                _log.info("packed probe of %s failed: %s", type(model).__name__, error)
            else:
                n_calls = getattr(model.config, "num_hidden_layers", 1)
                # Where a head is small, texts that leak into each other change the answers by little: hence `apart`.
                same = logits.shape == expected.shape and agree(
                    model, logits, expected, rtol=1e-3, atol=1e-4, apart=1e-2
                )
                if same and len(context.attention_modules) == n_calls:
                    return True
            plan.undo()
            plan.firsts_from = None
    return False


def _set_up(model: Any, plan: _Plan, layers: Any, *, whole: bool, shortcuts: bool) -> None:
    """Sets hooks and forward methods on `model`, those of the shortcuts of `_try_packed` where they are wanted."""
    body, last = model.base_model, layers[-1]
    if shortcuts:
        for module in layers.modules():
            if residual_norm.is_tail(module):
                plan.patch(module, residual_norm.tail_forward(module))
    for number, layer in enumerate(layers):
        own = layer.forward
        if whole and fits(layer):
            plan.wholes.append(WholeLayer(layer))
            own = whole_forward(plan.wholes[-1], own)
        plan.patch(layer, forward_context.layer_forward(own, number))
    plan.hooks.append(body.register_forward_pre_hook(forward_context.without_mask, with_kwargs=True))
    # A mean needs every token of the last layer, so none can be left out of it.
    pooling = model.pooling if isinstance(model, LinearHead) else getattr(model.config, "classifier_pooling", "cls")
    if pooling == "mean":
        plan.hooks.append(body.register_forward_hook(forward_context.means))
        return
    # A first run only counts: how often the last layer's module is called, and which modules attend.
    counter = last.register_forward_hook(forward_context.first_tokens(calls=-1))
    try:
        context = _run(model, pack(probe_ids(model), None, model), plan)[1]
    finally:
        counter.remove()
    if not context.attention_modules:
        return
    plan.hooks.append(last.register_forward_hook(forward_context.first_tokens(context.last_layer_calls)))
    attention = context.attention_modules[-1]
    # Only tails know how to add the answers of first tokens to a residual of all: every norm must be in one.
    n_tails = sum(residual_norm.is_tail(module) for module in last.modules())
    n_norms = sum(isinstance(module, nn.LayerNorm) for module in last.modules())
    if shortcuts and attention in set(last.modules()) and n_tails == n_norms > 0 and context.last_layer_calls == 1:
        plan.firsts_from = attention
        plan.hooks.append(attention.register_forward_hook(forward_context.first_rows))


def _use_bfloat16(plan: _Plan, layers: Any, groups: list[list[nn.Linear]]) -> None:
    """Replaces the arithmetic of linear maps, adapters and norms in the layers."""
    for module, forward in _bfloat16_forwards(plan, layers, groups).items():
        plan.patch(module, forward if plan.packed else linear.keeping_dtype(forward))
    if plan.packed:
        plan.hooks.append(layers[-1].register_forward_hook(forward_context.in_float32))
        for module in layers.modules():
            if runs_as(module, nn.LayerNorm):
                plan.patch(module, residual_norm.norm_forward(module, linear.COMPUTE))


def _bfloat16_forwards(plan: _Plan, layers: Any, groups: list[list[nn.Linear]]) -> dict[nn.Module, Any]:
    """Forward methods in bfloat16 of the linear maps in the layers, alone or in `groups` of one input, and of their adapters."""
    adapters = [module for module in layers.modules() if linear.is_adapter(module)]
    # `adapter_forward` reads the weights of an adapter's own small maps, so these stay as they are.
    inner = {m for adapter in adapters for part in (adapter.lora_A, adapter.lora_B) for m in part.modules()}
    maps = [m for m in layers.modules() if runs_as(m, nn.Linear) and m not in inner]
    # Whole layers and the modules in them, which run by themselves where a layer cannot, multiply through the same copies.
    made: dict[tuple[nn.Linear, ...], linear.Copies] = {}

    def copies_of(*group: nn.Linear) -> linear.Copies:
        return made.setdefault(group, linear.Copies(group))

    for whole in plan.wholes:
        whole.use([copies_of(*group) for group in whole.groups])
    forwards: dict[nn.Module, Any] = {module: linear.linear_forward(module, copies_of(module)) for module in maps}
    for group in groups:
        if set(group) <= set(maps):
            forwards |= zip(group, linear.shared_forwards(group, copies_of(*group)), strict=True)
    forwards |= {adapter: linear.adapter_forward(adapter) for adapter in adapters}
    for module in layers.modules():
        if linear.is_intermediate(module):
            forwards[module] = linear.intermediate_forward(module, copies_of(module.dense))
    return forwards
