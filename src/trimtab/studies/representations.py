"""What an encoder makes of texts, layer by layer, and how much two encoders have in common in it."""

# Shapes: N texts, B texts of a pass, T tokens of the longest of them, L layers, H width.

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders.inputs import Inputs, ModelInputs
from ..training.batches import token_groups

NEIGHBOURS = 10
_TOKENS = 4096  # in one forward pass


@torch.no_grad()
def mean_states(backbone: Any, inputs: Inputs, pad_id: int, *, every_layer: bool) -> Tensor:
    """The means of the token states of each text, on the CPU in float32: (L + 1, N, H) with `every_layer`, else (1, N, H).

    First those that the first layer is given, last those that the last one gives. `backbone` is Hugging Face's own model, without
    dropout and in float32: two encoders are compared, and rounding is no difference of theirs.
    """
    found: list[Tensor] = []
    groups = token_groups(inputs.lengths, range(len(inputs)), _TOKENS)
    for rows in groups:
        tensors = padded(inputs.take(rows.tolist()), pad_id, next(backbone.parameters()).device)
        states = backbone(**tensors, output_hidden_states=every_layer)
        # The last of `hidden_states` is that in front of a final LayerNorm where a family has one.
        layers = [*(states.hidden_states[:-1] if every_layer else ()), states.last_hidden_state]
        weights = tensors["attention_mask"].float()  # (B, T)
        weights = weights / weights.sum(1, keepdim=True)
        found.append(torch.stack([torch.einsum("bth,bt->bh", layer.float(), weights) for layer in layers]).cpu())
    order = torch.from_numpy(np.concatenate(groups))
    return torch.cat(found, 1)[:, order.argsort()]


def padded(inputs: ModelInputs, pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """The texts as a model of Hugging Face takes them: ids, mask and, where there are some, segment ids, each (B, T)."""
    longest = max(inputs.lengths)
    rows = {"input_ids": (inputs.ids, pad_id), "attention_mask": ([np.ones(n, np.int64) for n in inputs.lengths], 0)}
    if inputs.type_ids is not None:
        rows["token_type_ids"] = (inputs.type_ids, 0)
    return {
        name: torch.from_numpy(
            np.stack([np.pad(text, (0, longest - len(text)), constant_values=fill) for text in texts]).astype(np.int64)
        ).to(device)
        for name, (texts, fill) in rows.items()
    }


def neighbours_kept(before: Tensor, after: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Of each text (N,) the share of its `k` nearest other texts before, by cosine, that are among its `k` nearest after.

    `before` and `after` are vectors (N, H) and (N, H') of the same texts. Two encoders that have nothing to do with each other
    share k / (N - 1).
    """
    ours, theirs = (_nearest(vectors, k) for vectors in (before, after))
    return (ours[:, :, None] == theirs[:, None, :]).any(2).float().mean(1)


def _nearest(vectors: Tensor, k: int) -> Tensor:
    """The numbers (N, k) of the nearest other texts of each."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    likeness = unit @ unit.T
    likeness.fill_diagonal_(-torch.inf)
    return likeness.topk(k, dim=1).indices


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of vectors (N, H) and (N, H') of the same texts, N at least 4.

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) (Kornblith et al. 2019, arXiv 1905.00414) with the unbiased estimator of HSIC (Song
    et al. 2012, Journal of Machine Learning Research 13, equation 5; in CKA: Nguyen et al. 2021, arXiv 2010.15327): with K = X X'
    and L = Y Y', and their diagonals set to 0,

        HSIC = (tr(K L) + (1'K 1)(1'L 1) / ((N - 1)(N - 2)) - 2 / (N - 2) 1'K L 1) / (N (N - 3)).

    The plain one is biased towards 1 where there are fewer texts than a few times the width: of two sets of random vectors it is
    not 0. This one is 1 of equal sets, about 0 of unrelated ones, and may be a little below. NaN where all vectors are the same.
    """
    k, m = _products(x), _products(y)
    together, of_x, of_y = _hsic(k, m), _hsic(k, k), _hsic(m, m)
    return together / (of_x * of_y) ** 0.5 if of_x > 0 and of_y > 0 else float("nan")


def _products(vectors: Tensor) -> Tensor:
    """K (N, N) in float64 with a diagonal of 0."""
    x = vectors.double()
    # A shift changes nothing of the estimate; without it large numbers are subtracted from each other.
    x = x - x.mean(0)
    found = x @ x.T
    return found.fill_diagonal_(0)


def _hsic(k: Tensor, m: Tensor) -> float:
    n = len(k)
    sums_k, sums_m = k.sum(0), m.sum(0)
    found = (k * m).sum() + sums_k.sum() * sums_m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums_k @ sums_m)
    return float(found) / (n * (n - 3))
