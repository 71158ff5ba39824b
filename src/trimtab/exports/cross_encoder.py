"""A run of pairs as a CrossEncoder of sentence-transformers: the merged model, and what is made of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import merged
from .guard import Form, Source

# What sentence-transformers applies to logits by default is a sigmoid where there is one, which is not for numbers. Of several
# classes `predict(..., apply_softmax=True)` gives probabilities.
_ACTIVATIONS = {
    "single_label": "torch.nn.modules.linear.Identity",
    "multi_label": "torch.nn.modules.activation.Sigmoid",
    "regression": "torch.nn.modules.linear.Identity",
}


def _refuse(described: Mapping[str, Any], run: Path) -> None:
    if len(described["task"]["text_columns"]) != 2:
        raise InputError(
            "sentence-transformers reads classifiers of pairs alone (CrossEncoder), and the run reads one text: export it with "
            "--to merged"
        )
    merged.FORM.refuse(described, run)


def _write(source: Source, folder: Path) -> None:
    model = merged.merge(source.base, source.delta)
    # Written as CrossEncoder.save_pretrained does; without modules.json the folder is read as a plain model with this.
    model.config.sentence_transformers = {"activation_fn": _ACTIVATIONS[source.delta.task["kind"]]}
    model.save_pretrained(folder)
    merged.cutting_at(source.base.tokenizer, source.delta.max_length).save_pretrained(folder)


FORM = Form(_refuse, _write, merged.FORM.check)
