"""Sums over texts of squared gradients, one gradient per text, from one backward pass (per_example_gradients.py)."""

# Shapes: R rows of an activation, B texts, G groups of texts, I inputs, O outputs, H width.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .per_example_gradients import PerExampleGradients, Segments, Watched, bias_gradients, norm_gradients


class SquaredGradients:
    """`sums[name][g]` grows with every backward pass by the squared gradients of the texts of group g, added up; float32.

    Of the parameters `names` of `model`. Those in `per_example.rest` stay 0 until `add` is called.
    """

    def __init__(self, model: nn.Module, names: list[str], n_groups: int = 1):
        # (G, ...): for each group what has the parameter's shape.
        parameters = dict(model.named_parameters())
        self.sums = {
            name: torch.zeros(n_groups, *parameters[name].shape, device=parameters[name].device) for name in names
        }
        self.per_example = PerExampleGradients(model, names, tuple(_RULES), self._take, n_groups)

    def add(self, name: str, gradient: Tensor, group: int) -> None:
        """Adds the squared gradient of one text, for the parameters in `per_example.rest`."""
        self.sums[name][group].addcmul_(gradient.float(), gradient.float())

    def _take(self, watched: Watched, inputs: Tensor | None, gradient: Tensor, texts: Segments) -> None:
        """Adds each text's squared gradient to the sums."""
        rule = next(rule for kind, rule in _RULES.items() if isinstance(watched.module, kind))
        if watched.bias is not None:
            self.sums[watched.bias] += _squares(bias_gradients(gradient, texts), texts)
        if watched.weight is not None:
            assert inputs is not None
            rule(watched.module, inputs, gradient, texts, self.sums[watched.weight])


def _squares(by_text: Tensor, texts: Segments) -> Tensor:
    """The sum (G, H) of the squares of `by_text` (B, H) in each group."""
    member = functional.one_hot(texts.groups, texts.n_groups).T.to(by_text.dtype)  # (G, B)
    return member @ by_text.square()


def _linear(module: Any, x: Tensor, d: Tensor, texts: Segments, sums: Tensor) -> None:
    """(d' x)^2 by text, for x (R, I) and d (R, O), into `sums` (G, O, I)."""
    x, d = x[: texts.count].float(), d[: texts.count].float()
    if texts.single:  # the square of an outer product is the outer product of squares
        for group in range(len(sums)):
            mine = texts.groups == group
            sums[group].addmm_(d[mine].square().T, x[mine].square())
        return
    product = x.new_empty(d.shape[1], x.shape[1])
    for x_text, d_text, group in zip(x.split(texts.rows), d.split(texts.rows), texts.groups.tolist(), strict=True):
        torch.mm(d_text.T, x_text, out=product)
        sums[group].addcmul_(product, product)


def _norm(module: Any, x: Tensor, d: Tensor, texts: Segments, sums: Tensor) -> None:
    """(sum of d times the normalised x)^2 by text, into `sums` (G, H)."""
    sums += _squares(norm_gradients(module, x, d, texts), texts)


def _embedding(module: Any, ids: Tensor, d: Tensor, texts: Segments, sums: Tensor) -> None:
    """(sum of d where the id occurs)^2 by text, for ids (R,), into `sums` (G, V, H); nothing for the padding id."""
    ids, d = ids[: texts.count], d[: texts.count].float()
    # A text's gradient of a table's row is the sum over the places where its id stands: one number per (text, id).
    pairs, place = torch.unique(texts.owner() * module.num_embeddings + ids, return_inverse=True)
    by_pair = d.new_zeros(len(pairs), d.shape[1]).index_add_(0, place, d).square_()
    number, group = pairs % module.num_embeddings, texts.groups[pairs // module.num_embeddings]
    if module.padding_idx is not None:
        kept = number != module.padding_idx
        number, group, by_pair = number[kept], group[kept], by_pair[kept]
    sums.view(-1, d.shape[1]).index_add_(0, group * module.num_embeddings + number, by_pair)


# Class of modules -> what adds the squared gradients of its weight to the sums.
_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Segments, Tensor], None]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _norm,
    nn.RMSNorm: _norm,
    nn.Embedding: _embedding,
}
