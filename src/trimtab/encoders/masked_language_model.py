"""An encoder with the head that it was pretrained with, where its checkpoint has kept that."""

from __future__ import annotations

import copy
from typing import Any

from transformers import MODEL_FOR_MASKED_LM_MAPPING

from .encoder import Encoder, quiet


def masked_language_model(encoder: Encoder) -> Any | None:
    """The float32 masked language model of the encoder's weights; None where any of it would be random.

    Sentence encoders and discriminators (ELECTRA, DeBERTa-v3) come without such a head, as most fine-tuned checkpoints do. It
    reads the memory of the encoder's weights: who writes into it calls `weights.own` first. Raises InputError where the weights
    cannot be read.
    """
    if type(encoder.config) not in MODEL_FOR_MASKED_LM_MAPPING or encoder.tokenizer.mask_token_id is None:
        return None
    with quiet():
        model, found = encoder._read(
            MODEL_FOR_MASKED_LM_MAPPING, copy.deepcopy(encoder.config), ignore_mismatched_sizes=True
        )
    return None if found["missing_keys"] or found["mismatched_keys"] else model.eval()
