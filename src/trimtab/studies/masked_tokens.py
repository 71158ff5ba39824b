"""The loss of a masked language model on texts, the same tokens hidden whatever model is asked."""

# Shapes: N texts, B texts of a pass, T tokens of the longest of them, V words of the vocabulary.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..encoders.inputs import Inputs, ModelInputs
from ..randomness import stream_seed
from ..training.batches import token_groups
from .representations import padded

SHARE = 0.15  # of the tokens that are hidden, as in pretraining (Devlin et al. 2019, arXiv 1810.04805)
_LOGITS = 1 << 26  # in one forward pass: 256 MB in float32


def hidden_positions(inputs: Inputs, special: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """The positions in each text whose tokens are hidden: 15% of those that are not special, at least one where there is one."""
    chance, taken = np.random.default_rng(stream_seed(seed, "masked tokens")), []
    for ids in inputs.take(range(len(inputs))).ids:
        there = np.flatnonzero(~np.isin(ids, special))
        taken.append(np.sort(chance.permutation(there)[: max(1, round(SHARE * len(there)))]))
    return taken


@torch.no_grad()
def masked_bits(model: Any, inputs: Inputs, hidden: Sequence[np.ndarray], tokenizer: Any) -> np.ndarray:
    """Of each text (N,) the sum over its `hidden` tokens of -log2 of the probability that `model` gives them.

    All of them are replaced by the mask token, and none by another word or itself as in pretraining: this measures, and trains
    nothing.
    """
    device, bits = next(model.parameters()).device, np.zeros(len(inputs))
    most_tokens = max(64, _LOGITS // model.config.vocab_size)
    for rows in token_groups(inputs.lengths, range(len(inputs)), most_tokens):
        batch = inputs.take(rows.tolist())
        texts, targets = [], []
        for ids, row in zip(batch.ids, rows, strict=True):
            shown = np.array(ids)
            targets.append(shown[hidden[row]])
            shown[hidden[row]] = tokenizer.mask_token_id
            texts.append(shown)
        logits = model(**padded(ModelInputs(texts, batch.type_ids), tokenizer.pad_token_id or 0, device)).logits
        of = np.repeat(np.arange(len(rows)), [len(each) for each in targets])
        at = np.concatenate([hidden[row] for row in rows])
        losses = torch.nn.functional.cross_entropy(
            logits[torch.from_numpy(of), torch.from_numpy(at)].float(),
            torch.from_numpy(np.concatenate(targets)).long().to(device), reduction="none",
        )  # fmt: skip
        np.add.at(bits, rows[of], losses.double().cpu().numpy() / math.log(2))
    return bits
