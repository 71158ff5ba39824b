"""What an encoder is made of, and what each method would train of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoders.choices import AUTO
from ..encoders.encoder import Encoder, encoder_of
from ..encoders.heads import TWO_CLASSES
from ..encoders.parameter_kinds import grid, parts_of
from ..errors import InputError
from .contract import Method, add_and_select
from .lora import Lora
from .method_text import method_text
from .methods import Biases, Full, Head, LastLayers, LayerNorms

# What `trimtab inspect` lists: every method that needs no task to choose.
SHOWN: tuple[Method, ...] = (
    Full(),
    Head(),
    LastLayers(),
    Biases(),
    Biases("query+intermediate"),
    LayerNorms(),
    LayerNorms("output"),
    LayerNorms("attention"),
    Lora(),
)


@dataclass(frozen=True)
class Inspection:
    """Parameter counts by layer and kind, and by method; the head is that of a task with two classes."""

    layers: list[str]  # "embeddings", "0", "1", ..., "after"
    kinds: list[str]  # those that the encoder has, in the order of KINDS
    counts: list[list[int]]  # layers x kinds
    methods: dict[str, dict[str, Any]]  # method -> {"body", "head", "share"} or {"refused": why}

    def as_json(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {"layers": self.layers, "kinds": self.kinds, "counts": self.counts, "methods": self.methods}


def inspect(encoder: Encoder | str | Path, head: str = AUTO) -> Inspection:
    """The Inspection of `encoder`, an Encoder or the name of one, with a `head` for two classes."""
    encoder = encoder_of(encoder)
    parts = parts_of(encoder.with_head(TWO_CLASSES, head=head))
    layers, kinds, counts = grid(parts, {name: part.count for name, part in parts.items()})
    methods = {method_text(method): _chosen(encoder, method, head) for method in SHOWN}
    return Inspection(layers, kinds, counts, methods)


def _chosen(encoder: Encoder, method: Method, head: str) -> dict[str, Any]:
    """What `method` would train: parameters of backbone and head, and the backbone's share; or why this encoder refuses it."""
    # A model for each, since a method may add modules to it.
    model = encoder.with_head(TWO_CLASSES, head=head)
    # Of the model and not of the selection, since a fit trains the head with every method.
    heads = sum(part.count for part in parts_of(model).values() if part.is_head)
    # A refusal is a result too: ModernBERT has no biases, ALBERT no last layers.
    try:
        selection, _ = add_and_select(method, model)
    except InputError as error:
        return {"refused": str(error)}
    return {"body": selection.backbone.count, "head": heads, "share": selection.share}
