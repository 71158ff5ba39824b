"""Heads: what they must know of a task, the compact one, and how that of a regression starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from ..errors import InputError

POOLINGS = {"linear": "mean", "cls": "cls"}  # of our own heads: the mean of a text's token states, or its first one
_FAR = 4.0  # times their deviation that the mean of the labels may be from 0 where a head has no bias
_ROUNDING = 1e-6  # what predictions may differ by, in their unit, for no other reason than rounding


class ModelWithHead(nn.Module):
    """What `Encoder.with_head` makes: the family's own classifier from transformers, or a LinearHead. For annotations alone."""

    if TYPE_CHECKING:
        config: Any  # transformers.PretrainedConfig
        base_model: nn.Module  # the pretrained backbone
        base_model_prefix: str  # its name in the model
        num_labels: int  # C
        new_parameters: set[str]  # the names of those that the checkpoint lacked
        units: dict[str, float]  # as `in_units_of` gives them
        rate_factors: dict[str, float]  # parameter name -> what its learning rate is multiplied by
        head_kept: bool  # whether the head is the checkpoint's
        head_note: str  # what is to be said of the checkpoint's head


class Outputs(Protocol):
    """What a head must know of a task: its kind, and the class names in index order (none for regression).

    `centre` and `standard_deviation` are the mean of the labels of a regression and theirs, 0 and 1 for other kinds.
    """

    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def centre(self) -> float: ...
    @property
    def standard_deviation(self) -> float: ...


@dataclass(frozen=True)
class HeadShape:
    """The Outputs of a task that is not at hand, as a delta describes it."""

    kind: str
    classes: tuple[str, ...]
    centre: float = 0.0
    standard_deviation: float = 1.0


TWO_CLASSES = HeadShape("single_label", ("0", "1"))  # for looking at an encoder without a task


_RATES = (  # where families write the rate of the head's dropout
    "classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "hidden_dropout_prob", "hidden_dropout", "dropout",
)  # fmt: skip


class LinearHead(ModelWithHead):
    """A pretrained backbone, one vector a text (pooled from its last token states), dropout, and one linear map to C outputs.

    `pooling`: "mean" of the text's token states, or "cls", its first one. With two texts a row, as pairs apart have it, the map
    reads (u, v, |u - v|, u v) of their vectors u and v (Conneau et al. 2017, arXiv 1705.02364), here of one length (the root of
    H, so that all entries are about 1): the sum of the products then is their cosine, times H. The backbone keeps the name that
    Hugging Face gives it (`bert`, `roberta`, ...), so parameter names are theirs. H * C + C elements in all: 770 for two classes
    at width 384, where the default head of RoBERTa or ELECTRA takes H * H more.
    """

    def __init__(self, backbone: Any, prefix: str, n_outputs: int, pooling: str = "mean", texts_per_row: int = 1):
        super().__init__()
        self.base_model_prefix = prefix
        self.config = backbone.config
        self.pooling = pooling
        self.texts_per_row = texts_per_row
        self.add_module(prefix, backbone)
        self.dropout = nn.Dropout(_dropout_rate(backbone.config))
        width = backbone.config.hidden_size * (1 if texts_per_row == 1 else 4)
        self.classifier = nn.Linear(width, n_outputs)
        nn.init.normal_(self.classifier.weight, std=getattr(backbone.config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    @property
    def num_labels(self) -> int:
        """C, under the name that Hugging Face's models give it."""
        return self.classifier.out_features

    @property
    def base_model(self) -> nn.Module:
        """The pretrained backbone."""
        return getattr(self, self.base_model_prefix)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> SequenceClassifierOutput:
        """Logits (B, C) for padded texts (B, L), or for the 2 B texts of B pairs, the two of a pair one behind the other.

        `attention_mask` is 1 on tokens and 0 on padding.
        """
        return SequenceClassifierOutput(logits=self.answer(self.pooled(input_ids, attention_mask, **inputs)))

    def pooled(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """One vector a text, (B, H)."""
        states = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        weights = attention_mask.to(states.dtype)  # (B, L)
        return torch.einsum("blh,bl->bh", states, weights) / weights.sum(1, keepdim=True)

    def features(self, vectors: Tensor) -> Tensor:
        """What the map reads: the vectors (B, H), or of pairs (2 B, H) as (B, 4 H); an odd text, a filler, is left out."""
        if self.texts_per_row == 1:
            return vectors
        return compared(*vectors[: len(vectors) // 2 * 2].unflatten(0, (-1, 2)).unbind(1))

    def answer(self, vectors: Tensor) -> Tensor:
        """Logits (B, C) from one vector a text, (B, H) or (2 B, H)."""
        return self.classifier(self.dropout(self.features(vectors)))


def compared(u: Tensor, v: Tensor) -> Tensor:
    """What a map reads of pairs apart, (B, 4 H), of the vectors (B, H) of their first and their second texts."""
    u, v = (functional.normalize(each, dim=1) * each.shape[1] ** 0.5 for each in (u, v))
    return torch.cat([u, v, (u - v).abs(), u * v], 1)


def texts_per_row(model: ModelWithHead) -> int:
    """How many texts `model` reads for each row of a task: 2 for pairs apart."""
    return getattr(model, "texts_per_row", 1)


def last_map(model: ModelWithHead) -> tuple[str, nn.Linear] | None:
    """The linear map of the head that makes the logits, with its path; None where the head has none."""
    # Some families define their head before the backbone.
    backbone = f"{model.base_model_prefix}."
    maps = [
        (path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear) and not path.startswith(backbone)
    ]
    return maps[-1] if maps else None


def is_new(model: ModelWithHead, path: str) -> bool:
    """Whether the weight of the head's map at `path` was drawn, and is not the checkpoint's."""
    return isinstance(model, LinearHead) or f"{path}.weight" in model.new_parameters


@torch.no_grad()
def in_units_of(model: ModelWithHead, outputs: Outputs) -> dict[str, float]:
    """Moves the predictions of a new regression head to `outputs.centre`, and multiplies their distance from it by
    the standard deviation of the labels.

    Returns parameter name -> the factor that its learning rate needs (that deviation, of the last map): with it, AdamW learns
    labels of any unit as it would learn them standardised. Nothing for other kinds and for a head that the checkpoint had.
    Raises InputError for labels far from 0 where the head has no bias.
    """
    if outputs.kind != "regression":
        return {}
    found = last_map(model)
    if found is None or not is_new(model, found[0]):
        return {}
    path, last = found
    if last.bias is None and abs(outputs.centre) > _FAR * outputs.standard_deviation:
        raise InputError(
            f"the head of {type(model).__name__} has no bias, which would hold the labels' mean ({outputs.centre:.4g}): fit with "
            "--head linear, or subtract the mean from the labels"
        )
    last.weight.mul_(outputs.standard_deviation)
    if last.bias is not None:
        last.bias.fill_(outputs.centre)
    return {f"{path}.{name}": outputs.standard_deviation for name, _ in last.named_parameters()}


def rate_factors(model: nn.Module) -> Mapping[str, float]:
    """Parameter name -> what its learning rate is multiplied by: that of `in_units_of`, times that of a probe's features."""
    return getattr(model, "rate_factors", {})


def _units(model: nn.Module) -> Mapping[str, float]:
    """What `in_units_of` returned for `model`; nothing for one that is not from `Encoder.with_head`."""
    return getattr(model, "units", {})


def agree(
    model: nn.Module, found: Tensor, expected: Tensor, rtol: float, atol: float, apart: float = math.inf
) -> bool:  # fmt: skip
    """Whether logits are the `expected` ones of `model`, in the unit of its predictions: in that of a regression's labels.

    Those may be millionths, or years around 2,000 of which a small difference is all that the head says; so predictions are
    compared by their distance from the centre, in units of the standard deviation, to the rounding of float32. Of the distance
    between the expected predictions for different texts (their standard deviation) `atol` may be at most the share `apart`.
    """
    deviation = max(_units(model).values(), default=1.0)
    named = dict(model.named_parameters())
    biases = [named[name].detach() for name in _units(model) if name.endswith("bias")]
    centre = float(biases[0].mean()) if biases else 0.0
    rounding = 8 * torch.finfo(torch.float32).eps * abs(centre) / deviation
    a, b = ((logits - centre) / deviation for logits in (found, expected))
    if len(b) > 1:
        atol = min(atol, max(_ROUNDING, apart * float(b.std(0).max())))
    return torch.allclose(a, b, rtol=rtol, atol=atol + rounding)


def _dropout_rate(config: Any) -> float:
    """The rate that the family gives its own head; 0 where it says nothing."""
    stated = (getattr(config, name, None) for name in _RATES)
    return next((rate for rate in stated if rate is not None), 0.0)
