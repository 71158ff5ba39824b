"""Where a fit's head begins: at the linear probe of the training rows, from one pass that the prefix cache keeps."""

# Shapes: N rows, F features.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..changes.selection import Selection
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder
from ..encoders.heads import LinearHead, ModelWithHead, last_map
from ..engine import PreparedModel, prepare
from ..process_memory import give_back
from ..results.recipe import Settings
from ..tasks.losses import TaskLoss
from .batches import Examples
from .frozen_prefix import MOST_TOKENS, Prefix, computed
from .linear_probe import Probe, fitted_probe, head_inputs, write_probe
from .ranks import ALONE, Ranks, device


def probed(
    prepared: PreparedModel,
    examples: Examples,
    loss: TaskLoss,
    at_once: int,
    prefix: Prefix | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Probe | None, Tensor]:
    """The linear probe of the rows and the features (N, F) it is of; None where the head is not of a kind that has one."""
    features = head_inputs(prepared, examples.inputs, at_once, prefix, ranks)
    found = last_map(prepared.model)
    if features is None or found is None:
        return None, torch.empty(0)
    assert examples.labels is not None
    # Solved by one rank, since the last bits may differ between machines.
    centred = found[1].bias is not None
    return ranks.agreed(fitted_probe(features, examples.labels, loss, prepared.n_outputs, centred=centred)), features


def started(
    encoder: Encoder, model: ModelWithHead, train: Examples, loss: TaskLoss, compute: Compute, settings: Settings,
    ranks: Ranks = ALONE,
) -> Probe | None:  # fmt: skip
    """Puts the linear probe of the training rows into the new head of `model`, otherwise as it was; None where it has none.

    What all layers make of the rows is kept like any prefix, so that a second fit on them starts at once.
    """
    at_once = settings.tokens_per_batch or MOST_TOKENS
    with _frozen_and_prepared(model, compute) as prepared:
        prefix = None
        if prepared.packed:
            named = named_states(encoder, model, compute)
            with ranks.first_alone():
                *_, (_, prefix) = computed(
                    prepared, train.inputs, prepared.n_layers, named, settings.cache_bytes, set(), at_once
                )
        probe, _ = probed(prepared, train, loss, at_once, prefix, ranks)
    if probe is not None:
        write_probe(model, probe)
    if device().type == "cpu":
        give_back()
    return probe


def probe_of(
    model: ModelWithHead, examples: Examples, loss: TaskLoss, compute: Compute, settings: Settings, ranks: Ranks
) -> Probe | None:
    """The linear probe of the rows on what `model` as it is makes of them; None where its head has none.

    Nothing is kept: its layers may be other than the encoder's.
    """
    with _frozen_and_prepared(model, compute) as prepared:
        probe, _ = probed(prepared, examples, loss, settings.tokens_per_batch or MOST_TOKENS, ranks=ranks)
    if device().type == "cpu":
        give_back()
    return probe


def has_probe(model: ModelWithHead, train: Examples, loss: TaskLoss, compute: Compute) -> bool:
    """Whether the head of `model` is of a kind that a linear probe can be put into, as a few rows show."""
    with _frozen_and_prepared(model, compute) as prepared:
        return probed(prepared, train.subset(range(min(4, len(train)))), loss, MOST_TOKENS)[0] is not None


@contextmanager
def _frozen_and_prepared(model: ModelWithHead, compute: Compute) -> Iterator[PreparedModel]:
    """Within the block all of `model` is frozen, so that every method computes the same bits, and the cache may keep them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    model.eval()
    try:
        with prepare(model, compute) as prepared:
            yield prepared
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def named_states(encoder: Encoder, model: ModelWithHead, compute: Compute) -> str:
    """All that frozen layers' states depend on beside the tokens; the class stands for the head's way of pooling, or its name."""
    pooling = model.pooling if isinstance(model, LinearHead) else ""
    return f"{encoder.sha256} {encoder.config_sha256} {type(model).__name__} {pooling} {compute} {device().type}"


def is_last_map(model: ModelWithHead, selection: Selection) -> bool:
    """Whether nothing of the backbone is trained, so that the head's last map is all that there is to find."""
    found = last_map(model)
    return found is not None and not selection.backbone and f"{found[0]}.weight" in selection.elements
