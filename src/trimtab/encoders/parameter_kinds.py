"""The layer and the kind of every parameter, found from the module tree and not from a table of model classes.

Rules (they hold for BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, DistilBERT, DeBERTa-v2, MPNet, RoFormer, ModernBERT and
ALBERT): the layers are the longest ModuleList of one class; a norm is known by its class name; inside a layer a linear
map belongs to attention when its path says so, and of the others the last is the output and those before it are
intermediate; the head is what lies outside the pretrained backbone or was not in its checkpoint.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from torch import nn

EMBEDDINGS = -1  # the layer number of what comes before layer 0

KINDS = (  # in the order in which tables show them
    "embedding",
    "embedding_norm",
    "query",
    "key",
    "value",
    "query_key_value",  # the three in one matrix
    "position",  # maps of relative positions, as in DeBERTa
    "attention_output",
    "attention_norm",
    "intermediate",
    "output",
    "output_norm",  # of a layer, outside of attention
    "encoder_norm",  # behind the last layer
    "pooler",  # from the checkpoint; a new one counts as head
    "lora",  # what peft adds
    "head",
    "other",
)
NORM_KINDS = ("embedding_norm", "attention_norm", "output_norm", "encoder_norm")

# A word of the path by itself; `sa` is in DistilBERT's sa_layer_norm.
_IN_ATTENTION = re.compile(r"(^|[._])(attentions?|attn|sa)([._]|$)", re.IGNORECASE)
# Attention's norm, where its path does not say so.
_FIRST_NORM = re.compile(r"(^|\.)(input_layernorm|ln_1|layer_norm1)(\.|$)")
_ATTENTION_KINDS = (  # the first pattern that the last path component matches
    ("position", re.compile(r"^pos_", re.IGNORECASE)),
    ("query_key_value", re.compile(r"qkv|in_proj", re.IGNORECASE)),
    ("query", re.compile(r"^(q|query)(_|$)", re.IGNORECASE)),
    ("key", re.compile(r"^(k|key)(_|$)", re.IGNORECASE)),
    ("value", re.compile(r"^(v|value)(_|$)", re.IGNORECASE)),
)

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Part:
    """Where a parameter sits and what it does."""

    layer: int  # 0-based; EMBEDDINGS before the layers, the number of layers for what comes after them
    kind: str  # one of KINDS
    role: str  # "weight" or "bias"
    count: int  # elements

    @property
    def is_head(self) -> bool:
        """Whether the parameter is new with the task, so that it has nothing pretrained to preserve."""
        return self.kind == "head"

    @property
    def is_vector(self) -> bool:
        """Whether it is a bias or a norm's weight, and no matrix."""
        return self.role == "bias" or self.kind in NORM_KINDS


@dataclass(frozen=True)
class Layers:
    """The stack of equal layers in a model: its path, how many modules it has, and whether a layer is used repeatedly."""

    path: str
    count: int
    shared: bool  # ALBERT runs one module for every layer
    beside: tuple[str, ...] = ()  # paths of lists of its length with other pieces of the same layers, as XLM has them


def layers_of(model: nn.Module) -> Layers:
    """The longest ModuleList whose members are all of one class, and no tables; a model without one has no layers."""
    path, count = "", 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(member) for member in module}) == 1 and len(module) > count:
            if isinstance(module[0], nn.Embedding):  # MarkupLM has one for each depth of a page's tree
                continue
            path, count = name, len(module)
    stated = getattr(getattr(model, "config", None), "num_hidden_layers", count)
    beside = tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name != path
        and name.rpartition(".")[0] == path.rpartition(".")[0]
    )  # fmt: skip
    return Layers(path, count, shared=count < stated, beside=beside)


def parts_of(model: nn.Module) -> dict[str, Part]:
    """The Part of every parameter of `model`, by name, in the order of `named_parameters`.

    `model.base_model_prefix` names the pretrained backbone (all of the model where there is none), and
    `model.new_parameters`, where set, the parameters that the checkpoint lacked.
    """
    layers = layers_of(model)
    backbone, new = getattr(model, "base_model_prefix", ""), getattr(model, "new_parameters", frozenset())
    # The map that an adapter wraps has the wrapper's plain path: it goes in last and takes its place.
    modules = {plain_name(name): module for name, module in model.named_modules() if not name.endswith(".base_layer")}
    modules |= {plain_name(name): module for name, module in model.named_modules() if name.endswith(".base_layer")}
    outputs = _output_maps(modules, layers)
    parts, layers_seen = {}, False
    for name, parameter in model.named_parameters():
        path = plain_name(name.rpartition(".")[0])
        layer = _layer_number(path, layers)
        # What precedes the layers and what follows them is known by the order of definition.
        layers_seen = layers_seen or layer is not None
        if name in new or not _inside(path, backbone):
            kind, layer = "head", layers.count
        elif "lora_" in name:
            kind = "lora"
        elif layer is not None:
            kind = _kind_in_layer(path, modules, outputs)
            # DeBERTa keeps the biases of query and value beside the map that all three share.
            if kind == "other" and name.endswith("_bias") and _IN_ATTENTION.search(path):
                kind = _attention_kind(name.rpartition(".")[2], "other")
        else:
            kind = _kind_outside(path, modules, layers_seen)
        if layer is None:
            layer = layers.count if kind in ("pooler", "encoder_norm", "other") else EMBEDDINGS
        role = "bias" if "bias" in name.rpartition(".")[2] else "weight"
        parts[name] = Part(layer, kind, role, parameter.numel())
    return parts


def layer_names(parts: Mapping[str, Part]) -> dict[int, str]:
    """Layer number -> the name people read, in order: "embeddings", "0", "1", ..., "after"."""
    numbers = sorted({part.layer for part in parts.values()})
    after = max((part.layer for part in parts.values() if part.is_head), default=None)
    return {n: "embeddings" if n == EMBEDDINGS else "after" if n == after else str(n) for n in numbers}


def grid(parts: Mapping[str, Part], counts: Mapping[str, int]) -> tuple[list[str], list[str], list[list[int]]]:
    """Layer names, kinds, and the layers x kinds sums of `counts` (elements by parameter name)."""
    rows = layer_names(parts)
    kinds = [kind for kind in KINDS if any(part.kind == kind for part in parts.values())]
    sums = [[0] * len(kinds) for _ in rows]
    position = {number: i for i, number in enumerate(rows)}
    for name, count in counts.items():
        sums[position[parts[name].layer]][kinds.index(parts[name].kind)] += count
    return list(rows.values()), kinds, sums


def is_norm(module: nn.Module) -> bool:
    """Whether `module` normalises activations, by its class name (LayerNorm, RMSNorm, ...)."""
    return "norm" in type(module).__name__.lower()


def runs_as(module: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Whether `module` is of the class `kind` and computes as that does: a subclass may scale or permute."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def plain_name(path: str) -> str:
    """The path, or the name of a parameter, without the wrappers that peft puts around an adapted linear map."""
    return re.sub(r"\.(base_layer|lora_\w+(\.\w+)?)(?=\.|$)", "", path)


def _inside(path: str, backbone: str) -> bool:
    """Whether `path` lies in the `backbone`; where that has no name, all of the model is backbone."""
    return not backbone or path == backbone or path.startswith(backbone + ".")


def _layer_number(path: str, layers: Layers) -> int | None:
    """The number of the layer that `path` lies in; None outside of the layers."""
    for stack in (layers.path, *layers.beside) if layers.path else ():
        if path.startswith(stack + "."):
            return int(path[len(stack) + 1 :].split(".", maxsplit=1)[0])
    # The convolution of large DeBERTas stands beside the layers and works behind the first.
    return 0 if layers.path and path.startswith(layers.path.rpartition(".")[0] + ".conv.") else None


def _output_maps(modules: Mapping[str, nn.Module], layers: Layers) -> set[str]:
    """The paths of each layer's last linear map outside attention."""
    last: dict[int, str] = {}
    for path, module in modules.items():
        number = _layer_number(path, layers)
        if number is not None and isinstance(module, nn.Linear) and not _IN_ATTENTION.search(path):
            last[number] = path  # a later one replaces it
    return set(last.values())


def _kind_in_layer(path: str, modules: Mapping[str, nn.Module], outputs: set[str]) -> str:
    """The kind of a parameter of the module at `path`, in a layer."""
    module = modules[path]
    in_attention = bool(_IN_ATTENTION.search(path))
    if is_norm(module):
        return "attention_norm" if _normalises_attention(path, modules) else "output_norm"
    if not isinstance(module, nn.Linear):
        return "other"
    if not in_attention:
        return "output" if path in outputs else "intermediate"
    return _attention_kind(path.rpartition(".")[2], "attention_output")


def _attention_kind(leaf: str, otherwise: str) -> str:
    """The kind in attention that the last component of a path says."""
    return next((kind for kind, pattern in _ATTENTION_KINDS if pattern.search(leaf)), otherwise)


def _normalises_attention(path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the norm at `path` of a layer goes with attention: in front of it, or behind it."""
    if _FIRST_NORM.search(path):
        return True
    parent, _, leaf = path.rpartition(".")
    # Llama calls the norm in front of the feed-forward maps so. It is the one behind attention in Gemma, which has norms of those
    # maps too, and in NomicBERT, which has none in front of attention.
    if leaf == "post_attention_layernorm":
        beside = [other[len(parent) + 1 :] for other in modules if other.startswith(f"{parent}.")]
        return "input_layernorm" not in beside or any("feedforward_layernorm" in other for other in beside)
    return bool(_IN_ATTENTION.search(path))


def _kind_outside(path: str, modules: Mapping[str, nn.Module], layers_seen: bool) -> str:
    """The kind of a parameter of the backbone outside of its layers; `layers_seen`: whether it is defined after them."""
    module = modules[path]
    if is_norm(module):
        return "embedding_norm" if not layers_seen or _beside_embedding(path, modules) else "encoder_norm"
    if "pooler" in path:
        return "pooler"
    is_embedding = isinstance(module, nn.Embedding) or "embed" in path or not layers_seen
    return "embedding" if is_embedding else "other"


def _beside_embedding(path: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether DeBERTa's table of relative positions has the same parent: it is normalised so, for every layer."""
    return isinstance(modules.get(f"{path.rpartition('.')[0]}.rel_embeddings"), nn.Embedding)
