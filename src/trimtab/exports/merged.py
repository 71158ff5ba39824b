"""A run as a plain Hugging Face folder: one model, its change written into the encoder's own parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..changes.delta_header import check_plain
from ..errors import InputError
from .guard import Form, Source, probe_rows

if TYPE_CHECKING:
    from ..encoders.encoder import Encoder
    from ..inference.predictor import Trained


def merge(encoder: Encoder | str | Path, run: Trained) -> Any:
    """A plain Hugging Face model: `encoder` with the run's delta applied.

    A linear map on the first token is written into the family's own head. Raises InputError for a head that has no place there:
    on the mean of the token states, or of pairs apart.
    """
    from ..changes.family_head import in_family_head
    from ..encoders.encoder import encoder_of
    from ..encoders.heads import HeadShape
    from ..inference.predictor import delta_of

    delta = delta_of(run)
    check_plain(delta.head, delta.pairs)
    encoder = encoder_of(encoder)
    model = delta.merged(encoder)
    if delta.head == "default":
        return model
    own = in_family_head(model, encoder, HeadShape(delta.task["kind"], tuple(delta.task["classes"])))
    if own is None:
        raise InputError(
            f"the head of this encoder's family ({delta.base['model_type']}) has no place for the run's cls head: fit with "
            "--head default to merge"
        )
    return own


def _refuse(described: Mapping[str, Any], run: Path) -> None:
    check_plain(described["head"], described.get("pairs", "together"))


def _write(source: Source, folder: Path) -> None:
    merge(source.base, source.delta).save_pretrained(folder)
    cutting_at(source.base.tokenizer, source.delta.max_length).save_pretrained(folder)


def _check(source: Source, folder: Path) -> None:
    """Loaded by AutoModelForSequenceClassification it has the run's logits to 1e-4 of their size."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = probe_rows(source.delta.task)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    columns = [list(column) for column in zip(*rows, strict=True)] if isinstance(rows[0], tuple) else [rows]
    inputs = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**inputs).logits
        ours = merge(source.base, source.delta).eval()(**inputs).logits
    if not torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4):
        raise InputError(
            f"the model written differs from the run by {float((theirs - ours).abs().max()):.2g} in its logits: this family "
            "cannot be exported as merged; serve it with trimtab serve"
        )


def cutting_at(tokenizer: Any, max_length: int) -> Any:
    """A copy of the tokenizer whose limit is that of the run, and which states no other."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_length
    # Left in some published tokenizers from their training.
    for name in ("max_length", "truncation_strategy", "stride"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


FORM = Form(_refuse, _write, _check)
