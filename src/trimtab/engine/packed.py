"""Run a sequence-classification model on a padding-free batch: its texts one after the other in one row of tokens.

The model's own forward runs. Attention is ours, through transformers' registry, and keeps the texts apart; behind the
last layer each text is replaced by its first token (or by its mean, where the head wants that), so that pooler and head
see B texts of one token. Families that compute attention without asking the registry are found by a probe and run
padded instead.
"""

# Shapes: T tokens, B texts, H width of the encoder, C outputs.

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.heads import LinearHead, ModelWithHead, agree, texts_per_row
from ..encoders.inputs import ModelInputs
from ..encoders.parameter_kinds import layers_of
from ..encoders.positions import position_ids, uncounted
from . import forward_context, residual_norm
from .bert_layer import WholeLayer, fits, whole_forward
from .forward_context import ForwardContext
from .layout import Layout
from .patches import Patches, bfloat16_forwards, patch_norms
from .proof import evaluating, probe_inputs
from .sparse_gradient import SparseGradients

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


def pack(model: nn.Module, inputs: ModelInputs) -> PackedBatch:
    """The texts in one row, on the device of `model`."""
    device = next(model.parameters()).device
    lengths = torch.tensor(inputs.lengths)
    return PackedBatch(
        _row(inputs.ids).to(device),
        torch.from_numpy(position_ids(inputs.ids, uncounted(model)))[None].to(device),
        None if inputs.type_ids is None else _row(inputs.type_ids).to(device),
        lengths,
        lengths.cumsum(0) - lengths,
    )


class PackedModel:
    """A model that runs packed, once `set_up` has said that it can."""

    def __init__(self, model: ModelWithHead, patches: Patches, sparse: SparseGradients):
        self.model = model
        self.layers: Any = model.get_submodule(layers_of(model).path)
        self.n_layers = len(self.layers)  # modules in the stack: 1 where one is run for every layer
        self.wholes: list[WholeLayer] = []  # layers that run in one step while their matrices are frozen
        self._patches, self._sparse = patches, sparse
        self.firsts_from: nn.Module | None = None  # as in ForwardContext
        self.halved = False  # whether the layers compute in bfloat16

    def logits(self, batch: PackedBatch, observed: bool = False) -> Tensor:
        """Float32 logits (B, C), with autograd.

        Where it is `observed`, every norm is computed by its own module instead of in one step with what comes before it.
        """
        return self.run(batch, observed=observed)[0]

    @torch.no_grad()
    def states(self, batch: PackedBatch, depth: int) -> Tensor:
        """What layer `depth` is given, as `PreparedModel.states` says."""
        try:
            self.run(batch, stop=depth)
        except forward_context.Reached as reached:
            # Less the padding text that `rounded` may have added behind the others.
            return reached.states[: len(batch) if depth == self.n_layers else batch.input_ids.shape[1]]
        raise ValueError(f"{type(self.model).__name__} has no layer {depth}")

    def logits_from(self, states: Tensor, lengths: Sequence[int], depth: int) -> Tensor:
        """Float32 logits (B, C) from what `states` gave, as `PreparedModel.logits_from` says."""
        pooled = depth == self.n_layers
        if pooled and isinstance(self.model, LinearHead) and self.model.pooling == "mean":  # nothing else lies above
            with forward_context.fresh_masks():
                return self.model.answer(states).float()
        # Stand in for the tokens, whose embeddings nothing will read.
        padding = self.model.config.pad_token_id or 0
        ids = [np.full(1 if pooled else length, padding, np.int32) for length in lengths]
        return self.run(pack(self.model, ModelInputs(ids)), begin=depth, states=states if pooled else states[None])[0]

    def run(self, batch: PackedBatch, **part: Any) -> tuple[Tensor, ForwardContext]:
        """The logits, and the context that they come from; `part` are fields of it that say where to begin or to stop."""
        n_rows = len(batch) // texts_per_row(self.model)
        states = part.get("states")
        # A head alone has no large products, whose shapes would be worth rounding.
        if states is None or part["begin"] != self.n_layers:
            batch = self.rounded(batch)
            if states is not None:
                part["states"] = functional.pad(states, (0, 0, 0, batch.input_ids.shape[1] - states.shape[1]))
        layout = batch.layout or Layout(batch.starts.tolist(), batch.lengths.tolist(), batch.input_ids.device)
        context = ForwardContext(layout, self.firsts_from, n_layers=self.n_layers, **part)
        return self.forward(batch, context)[:n_rows], context  # without the padding text's answer

    def forward(self, batch: PackedBatch, context: ForwardContext) -> Tensor:
        """Float32 logits of the batch as it is; raises Reached where the pass is to stop."""
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        if isinstance(self.model, LinearHead):  # its mean is over B texts of one token each
            inputs["attention_mask"] = torch.ones(len(batch), 1, device=batch.input_ids.device)
        with forward_context.in_force(context):
            return self.model(**inputs).logits.float()

    def rounded(self, batch: PackedBatch) -> PackedBatch:
        """`batch` with one more text of padding, where it takes one to come to a round number of tokens and that pays.

        oneDNN builds a program for every shape of a product, and a run whose every step has another number of tokens would
        spend a tenth of its time on that. Some 16 sizes per doubling cost 2% more tokens.
        """
        if not self.halved or batch.input_ids.device.type != "cpu":
            return batch
        tokens = batch.input_ids.shape[1]
        return self.filled(batch, -tokens % round_step(tokens))

    def filled(self, batch: PackedBatch, missing: int) -> PackedBatch:
        """`batch` with one more text, of `missing` tokens of padding; itself where none is missing."""
        if not missing:
            return batch
        tokens, types = batch.input_ids.shape[1], batch.token_type_ids
        return PackedBatch(
            functional.pad(batch.input_ids, (0, missing), value=self.model.config.pad_token_id or 0),
            torch.cat([batch.position_ids, batch.position_ids[:, :1].expand(1, missing)], 1),
            None if types is None else functional.pad(types, (0, missing)),
            torch.cat([batch.lengths, torch.tensor([missing])]),
            torch.cat([batch.starts, torch.tensor([tokens])]),
        )

    def set_up(self, expected: Tensor) -> bool:
        """Sets the model up for packed batches; whether the probe's logits then are the `expected` ones.

        Right is: our attention ran once in every layer, and the logits equal those of padded texts. Tried first with whole layers
        as one step, then with their ends as one step (and a last layer that computes first tokens only), then plainly.
        """
        self.model.config._attn_implementation = forward_context.NAME
        with evaluating(self.model):
            # Where no layer is one that runs whole, the second try would be the first one again.
            any_whole = any(fits(layer) for layer in self.layers.children())
            for whole, shortcuts in ((True, True), (False, True), (False, False))[0 if any_whole else 1 :]:
                if self._tried(expected, whole=whole, shortcuts=shortcuts):
                    return True
                self._patches.undo()
                self.wholes.clear()
                self.firsts_from = None
        return False

    def _tried(self, expected: Tensor, *, whole: bool, shortcuts: bool) -> bool:
        """One try of `set_up`."""
        try:
            self._put_on(whole=whole, shortcuts=shortcuts)
            logits, context = self.run(pack(self.model, probe_inputs(self.model)))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            _log.info("packed probe of %s failed: %s", type(self.model).__name__, error)
            return False
        n_calls = getattr(self.model.config, "num_hidden_layers", 1)
        # Where a head is small, texts that leak into each other change the answers by little: hence `apart`.
        same = logits.shape == expected.shape and agree(self.model, logits, expected, rtol=1e-3, atol=1e-4, apart=1e-2)
        return same and len(context.attention_modules) == n_calls

    def _put_on(self, *, whole: bool, shortcuts: bool) -> None:
        """Sets hooks and forward methods, those of the shortcuts of `set_up` where they are wanted."""
        body, last, patches = self.model.base_model, self.layers[-1], self._patches
        if shortcuts:
            for module in self.layers.modules():
                if residual_norm.is_tail(module):
                    patches.patch(module, residual_norm.tail_forward(module))
        for number, layer in enumerate(self.layers):
            own = layer.forward
            if whole and fits(layer):
                self.wholes.append(WholeLayer(layer, f"{layers_of(self.model).path}.{number}", number))
                own = whole_forward(self.wholes[-1], own)
            patches.patch(layer, forward_context.layer_forward(own, number))
        patches.hook(body.register_forward_pre_hook(forward_context.without_mask, with_kwargs=True))
        # A mean needs every token of the last layer, so none can be left out of it.
        of_config = getattr(self.model.config, "classifier_pooling", "cls")
        pooling = self.model.pooling if isinstance(self.model, LinearHead) else of_config
        if pooling == "mean":
            patches.hook(body.register_forward_hook(forward_context.means))
            return
        # A first pass only counts: how often the last layer's module is called, and which modules attend.
        counter = last.register_forward_hook(forward_context.first_tokens(calls=-1))
        try:
            context = self.run(pack(self.model, probe_inputs(self.model)))[1]
        finally:
            counter.remove()
        if not context.attention_modules:
            return
        patches.hook(last.register_forward_hook(forward_context.first_tokens(context.last_layer_calls)))
        if shortcuts and context.last_layer_calls == 1:
            self._leave_out_others(context.attention_modules[-1], last)

    def _leave_out_others(self, attention: nn.Module, last: nn.Module) -> None:
        """Has the last layer compute first tokens only from its `attention` on, where its norms can do with that."""
        # Only tails know how to add the answers of first tokens to a residual of all: every norm must be in one.
        n_tails = sum(residual_norm.is_tail(module) for module in last.modules())
        n_norms = sum(isinstance(module, nn.LayerNorm) for module in last.modules())
        if attention in set(last.modules()) and n_tails == n_norms > 0:
            self.firsts_from = attention
            self._patches.hook(attention.register_forward_hook(forward_context.first_rows))

    def use_bfloat16(self, groups: list[list[nn.Linear]]) -> None:
        """Replaces the arithmetic of linear maps, adapters and norms in the layers."""
        self.halved = True
        for module, forward in bfloat16_forwards(self.layers, groups, self.wholes, self._sparse).items():
            self._patches.patch(module, forward)
        self._patches.hook(self.layers[-1].register_forward_hook(forward_context.in_float32))
        patch_norms(self._patches, self.layers)


def round_step(tokens: int) -> int:
    """What numbers of tokens near that one are rounded up to a multiple of."""
    return min(64, 1 << max(3, tokens.bit_length() - 5))


def _row(rows: Sequence[np.ndarray]) -> Tensor:
    """The arrays one after the other, (1, T) int64."""
    return torch.from_numpy(np.concatenate(rows).astype(np.int64))[None]
