"""A linear head on the first token, written into the head that the encoder's family has in transformers.

Such a head is a dense map, an activation and a last map. The dense map is made to hand its input through, where the activation
is (nearly) a straight line: tanh close to 0, ReLU and GELU far above it. What its last map is to undo of that is known. Whether
a family's head is of this kind is not looked up: it is tried, and the predictions are compared.
"""

# Shapes: B texts, C outputs, H width.

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.encoder import Encoder
from ..encoders.heads import HeadShape, LinearHead, last_map
from ..encoders.weights import own_all
from ..engine import probe_logits, probe_vectors
from ..errors import first_line

_CLOSE = 1e-4  # the largest input of tanh: it differs from a line by a third of the square, and rounding is relative
_FAR = 12.0  # the least input of GELU, which there is a line to the rounding of float32
_TOLERANCE = 1e-3  # of the logits, as a share of the largest

_log = logging.getLogger(__name__)


def in_family_head(model: LinearHead, encoder: Encoder, outputs: HeadShape) -> Any | None:
    """The family's own model with the weights of `model`, which reads one text a row at its first token; it predicts the same.

    None where the family's head has no place for such a map.
    """
    try:
        own = encoder.with_head(outputs, head="default").eval()
    except Exception as error:  # of the family's own code: whatever it is, there is no such model
        _log.info("%s has no head of its own: %s", encoder.name, first_line(error))
        return None
    own_all(own)  # it is handed out
    ours = dict(model.named_parameters())
    dense = _dense_map(own, ours.keys())
    found = last_map(own)
    if dense is None or dense.bias is None or found is None or found[1].bias is None:
        return None
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if name in ours and ours[name].shape == parameter.shape and not name.startswith("classifier."):
                parameter.copy_(ours[name])
    expected = probe_logits(model)
    for scale, shift in _straight(float(probe_vectors(model).abs().max())):
        _write(dense, found[1], model.classifier, scale, shift)
        logits = probe_logits(own)
        if bool(torch.isfinite(logits).all()) and float((logits - expected).abs().max()) <= _TOLERANCE * max(
            1.0, float(expected.abs().max())
        ):
            return own
    return None


def _straight(largest: float) -> Iterator[tuple[float, float]]:
    """Scale and shift of inputs up to `largest` for which an activation may be a straight line."""
    yield _CLOSE / max(largest, _CLOSE), 0.0
    # Twice as far as the texts that were tried go, since others may go farther.
    yield 1.0, 2 * largest + _FAR


def _dense_map(own: Any, ours: Any) -> nn.Linear | None:
    """The one square map outside of what `ours` has; None where there are none or several."""
    width = own.config.hidden_size
    maps = [
        module
        for path, module in own.named_modules()
        if isinstance(module, nn.Linear) and f"{path}.weight" not in ours and module.weight.shape == (width, width)
    ]
    return maps[0] if len(maps) == 1 else None


@torch.no_grad()
def _write(dense: nn.Linear, last: nn.Linear, wanted: nn.Linear, scale: float, shift: float) -> None:
    """Makes `dense` give scale * x + shift, and `last` what `wanted` makes of x, given that."""
    dense.weight.copy_(scale * torch.eye(len(dense.weight)))
    dense.bias.fill_(shift)
    weight: Tensor = wanted.weight.double() / scale
    last.weight.copy_(weight)
    last.bias.copy_(wanted.bias.double() - shift * weight.sum(1))
