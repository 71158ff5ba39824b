"""What a model does on three short texts: which linear maps share an input, which modules attend, and what comes out."""

# Shapes: C outputs.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.heads import LinearHead, ModelWithHead, agree, texts_per_row
from ..encoders.inputs import ModelInputs
from ..errors import InputError, first_line
from ..randomness import forked
from .padded import padded_logits, padded_vectors

LENGTHS = (5, 9, 3, 7)  # tokens of the texts tried: three, or two pairs where a row has two texts


def probe_inputs(model: ModelWithHead) -> ModelInputs:
    """The texts tried: of any tokens but padding, which the RoBERTa family does not count in its positions."""
    usable = np.setdiff1d(np.arange(min(model.config.vocab_size, 64)), [model.config.pad_token_id or 0])
    # Each text begins with another id, or texts that get mixed up could answer alike.
    return ModelInputs([usable[np.arange(3 + i, 3 + i + n) % len(usable)] for i, n in enumerate(_lengths(model))])


def _lengths(model: ModelWithHead) -> tuple[int, ...]:
    return LENGTHS[:3] if texts_per_row(model) == 1 else LENGTHS


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Runs the block with every module in evaluation mode and without gradients, and restores their modes."""
    # Module by module: frozen layers are in evaluation mode while the rest is trained.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def probe_logits(model: ModelWithHead) -> Tensor:
    """The answers of a model that is not prepared to the texts tried, (3, C), or (2, C) of pairs apart; in evaluation mode."""
    with evaluating(model):
        return padded_logits(model, probe_inputs(model))


def probe_vectors(model: LinearHead) -> Tensor:
    """What its head is given of each of the texts tried, (3, H), or (4, H) of pairs apart; in evaluation mode."""
    with evaluating(model):
        return padded_vectors(model, probe_inputs(model))


def check_training(model: ModelWithHead) -> None:
    """Raises InputError where `model`, which answers texts, cannot do so while it is trained: Reformer takes one length then."""
    modes = {module: module.training for module in model.modules()}
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modes):  # it would learn from the probe
        return
    model.train()
    try:
        with forked(), torch.no_grad():
            padded_logits(model, probe_inputs(model))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"{type(model).__name__} cannot be trained on texts of any length: {first_line(error)}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training


def observe(model: ModelWithHead) -> tuple[Tensor, list[list[nn.Linear]]]:
    """The padded logits (3, C) of the probe, and the linear maps that were given the very same tensors, in groups."""
    # The tensors are kept to the end, so that no two of them have one id.
    seen: dict[nn.Linear, list[Tensor]] = {}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        seen.setdefault(module, []).append(inputs[0])

    hooks = [m.register_forward_pre_hook(watch) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        with evaluating(model):
            logits = padded_logits(model, probe_inputs(model))
    finally:
        for hook in hooks:
            hook.remove()
    # By identity of the input tensor, not by names: query, key and value are found in any family that gives them one tensor.
    # In every call, where a map is called repeatedly; and biases of all or of none, to lie one above the other.
    groups: dict[Any, list[nn.Linear]] = {}
    for module, inputs in seen.items():
        groups.setdefault((*map(id, inputs), module.bias is None), []).append(module)
    return logits, [group for group in groups.values() if len(group) > 1]  # a map alone shares nothing


def padding_matters(model: ModelWithHead, together: Tensor) -> bool:
    """Whether the probe's texts are answered otherwise one by one than `together` and padded (3, C).

    XLNet's head reads the last position, whatever stands there; Fourier transforms and convolutions mix it into the others.
    Raises InputError where the model cannot answer them one by one: Funnel halves a text until it is too short.
    """
    texts = [ModelInputs([ids]) for ids in probe_inputs(model).ids]
    with evaluating(model):
        try:
            if isinstance(model, LinearHead) and model.texts_per_row > 1:
                alone = model.answer(torch.cat([padded_vectors(model, text) for text in texts]))
            else:
                alone = torch.cat([padded_logits(model, text) for text in texts])
        except (RuntimeError, ValueError, IndexError) as error:
            raise InputError(
                f"{type(model).__name__} cannot predict a text of few tokens by itself: {first_line(error)}"
            ) from error
    return not agree(model, together, alone, rtol=1e-3, atol=1e-4, apart=1e-2)
