"""Linear probe: the best last map of a head on frozen vectors, which is where training starts and all that `head` trains.

Logistic regression (multinomial, or one for each label of a multi-label task) by L-BFGS, or ridge regression for numbers, on
standardised vectors. The strength of the L2 penalty is chosen by cross-validation. No draw of the run's seed is in it: equal
rows have equal probes. Fine-tuning from such a head distorts features less than from a random one (Kumar et al. 2022,
"LP-FT", arXiv 2202.10054).
"""

# Shapes: N rows, F features, C outputs, K strengths.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.heads import ModelWithHead, is_new, last_map
from ..encoders.inputs import Inputs
from ..engine import PreparedModel
from ..tasks.losses import TaskLoss
from .frozen_prefix import Prefix
from .logits import all_logits, batch_logits
from .ranks import ALONE, Ranks

# Inverse penalties, as scikit-learn's C: the sum of the losses and |W|^2 / (2 C). The first is the strongest.
STRENGTHS = tuple(float(10.0**e) for e in np.arange(-5.0, 1.25, 0.5))
_UNJUDGED = 1e-2  # the strength where there are too few rows to choose one
_FOLDS = 5
_MOST_JUDGED = 3000  # rows that the strength is chosen on: it hardly depends on how many there are
_WORSE = 2  # strengths in a row that are worse than the best, behind which the weaker penalties are not tried
_BIAS_PENALTY = 1e-5  # per row: keeps the bias of a class finite that no row of a fold has
_ITERATIONS = 200
_REACH = 100.0  # of the features that the methods' default head rates are for: minilm's mean vectors have about so much
_CONSTANT = 1e-6  # of the largest deviation: a feature that moves less is constant


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear map on features as they are, and how it was found."""

    weight: Tensor  # (C, F) float32
    bias: Tensor  # (C,) float32; zeros where the map has none
    strengths: tuple[float, ...]  # inverse penalty: one, or one for each label of a multi-label task
    reach: float  # sum of the features' deviations: how far one step of AdamW at most moves an output, by its rate
    loss: float  # mean over rows of the loss on folds that it was not fitted on, in the unit of training; NaN where not judged


def fitted_probe(features: Tensor, labels: Tensor, loss: TaskLoss, n_outputs: int, *, centred: bool = True) -> Probe:
    """The Probe of `features` (N, F) for `labels` as `label_tensor` makes them; minimises what training would, and the penalty.

    Without `centred` the map has no bias, so features are only scaled.
    """
    x, mean, scale = _standardised(features, centred)
    reach = float((1 / scale[scale > 0]).sum())
    # As many dimensions as rows hold all that a penalised map can use of them (representer theorem).
    basis = None
    if x.shape[0] < x.shape[1]:
        u, s, basis = torch.linalg.svd(x, full_matrices=False)
        x = u * s
    solver = _Ridge if loss.kind == "regression" else _Logistic
    strengths, judged = _judged(x, labels, loss, n_outputs, solver, centred)
    weight, bias = solver(x, labels, loss, n_outputs, centred).solved(strengths)
    if basis is not None:
        weight = weight @ basis
    weight = weight * scale
    if centred:
        bias = bias - weight @ mean
    return Probe(weight.float(), bias.float(), tuple(strengths.unique_consecutive().tolist()), reach, judged)


def folded_logits(
    features: Tensor, labels: Tensor, loss: TaskLoss, n_outputs: int, strengths: Tensor, fold: Tensor
) -> Tensor:
    """Float64 logits (N, C) of rows by probes of the rows of all other folds (N,), at the inverse penalties (C,)."""
    found = torch.empty(len(features), n_outputs, dtype=torch.float64)
    solver = _Ridge if loss.kind == "regression" else _Logistic
    for k in fold.unique():
        inside = fold == k
        x, mean, scale = _standardised(features[~inside], True)
        weight, bias = solver(x, labels[~inside], loss, n_outputs, True).solved(strengths)
        found[inside] = ((features[inside].double() - mean) * scale) @ weight.T + bias
    return found


def head_inputs(
    prepared: PreparedModel, inputs: Inputs, tokens_per_batch: int, prefix: Prefix | None = None, ranks: Ranks = ALONE
) -> Tensor | None:
    """What the head's last map is given of each row, (N, F) float32; None where its output is not that of the model.

    The model runs in evaluation mode.
    """
    found = last_map(prepared.model)
    if found is None:
        return None
    _, last = found
    with _passing_through(last):
        features = all_logits(prepared, inputs, tokens_per_batch, prefix, ranks, width=last.in_features)
    # A head may do more behind its last map: then a map that is best by itself is not what it needs.
    some = np.arange(min(4, len(inputs)))
    with torch.no_grad():
        expected = batch_logits(prepared, inputs, some, prefix).cpu()
        with _passing_through(last):
            again = batch_logits(prepared, inputs, some, prefix)
        found_again = last(again.to(last.weight.device)).float().cpu()
    return (
        features
        if found_again.shape == expected.shape and torch.allclose(found_again, expected, atol=1e-4, rtol=1e-3)
        else None
    )


def can_start(model: ModelWithHead) -> bool:
    """Whether the head's last map is new, so that a probe may take its place."""
    found = last_map(model)
    return found is not None and is_new(model, found[0])


@torch.no_grad()
def write_probe(model: ModelWithHead, probe: Probe) -> None:
    """Puts the probe into the head's last map, in place, and scales the rate of its weight to the features."""
    scale_rate(model, probe)
    found = last_map(model)
    assert found is not None
    _, last = found
    last.weight.copy_(probe.weight)
    if last.bias is not None:
        last.bias.copy_(probe.bias)


def scale_rate(model: ModelWithHead, probe: Probe) -> None:
    """Scales the rate of the weight of the head's last map to the features that the probe is of.

    AdamW moves every weight by about its rate, whatever the gradient: features that are many or large would be moved too far.
    """
    found = last_map(model)
    assert found is not None
    name = f"{found[0]}.weight"
    model.rate_factors[name] = model.units.get(name, 1.0) * (_REACH / probe.reach if probe.reach else 1.0)


@torch.no_grad()
def write_constant(model: ModelWithHead, labels: Tensor, loss: TaskLoss) -> None:
    """Makes the head predict the same for every row, what is most likely: the baseline of a probe."""
    found = last_map(model)
    assert found is not None
    _, last = found
    last.weight.zero_()
    if last.bias is None:
        return
    if loss.kind == "regression":
        last.bias.fill_(labels.double().mean())
    elif loss.kind == "multi_label":
        share = ((labels.double().sum(0) + 0.5) / (len(labels) + 1)).clamp(1e-6, 1 - 1e-6)
        last.bias.copy_(torch.logit(share))
    else:
        counts = torch.bincount(labels, minlength=len(last.bias)).double() + 0.5
        last.bias.copy_((counts / counts.sum()).log())


def constant_logits(model: ModelWithHead, n_rows: int) -> Tensor:
    """Float32 logits (N, C), on the CPU, of a model that predicts the same for every row, as `write_constant` leaves it."""
    found = last_map(model)
    assert found is not None
    _, last = found
    bias = torch.zeros(last.out_features) if last.bias is None else last.bias.detach().float().cpu()
    return bias.expand(n_rows, -1).clone()


@contextmanager
def _passing_through(last: nn.Linear) -> Iterator[None]:
    """Within the block the map returns what it is given."""
    own = vars(last).get("forward")
    last.forward = lambda input: input
    try:
        yield
    finally:
        if own is None:
            del last.forward
        else:
            last.forward = own


def _standardised(features: Tensor, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, F) in float64 less their mean and times `scale`; the mean (F,) and the scale (F,), 0 for constant ones."""
    x = features.double()
    mean = x.mean(0)
    deviation = (x - mean).square().mean(0).sqrt() if centred else x.square().mean(0).sqrt()
    known = deviation > _CONSTANT * deviation.max()
    scale = torch.where(known, 1 / deviation.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
    return (x - mean if centred else x) * scale, mean, scale


def _judged(
    x: Tensor, labels: Tensor, loss: TaskLoss, n_outputs: int, solver: Callable[..., Any], centred: bool
) -> tuple[Tensor, float]:
    """The inverse penalty of each output (C,) with the least loss on folds it was not fitted on, and that loss."""
    order = np.random.default_rng(0).permutation(len(x))
    rows = torch.from_numpy(order[:_MOST_JUDGED])
    x, labels = x[rows], labels[rows]
    n_folds = min(_FOLDS, len(x) // 2)
    if n_folds < 2:
        return torch.full((n_outputs,), _UNJUDGED, dtype=torch.float64), float("nan")
    fold = _folds(labels, loss.kind, n_folds)
    sums = torch.zeros(len(STRENGTHS), n_outputs if loss.kind == "multi_label" else 1, dtype=torch.float64)
    solvers = [solver(x[fold != k], labels[fold != k], loss, n_outputs, centred) for k in range(n_folds)]
    tried, worse = 0, 0
    for strength in STRENGTHS:
        every = torch.full((n_outputs,), strength, dtype=torch.float64)
        for k, each in enumerate(solvers):
            weight, bias = each.solved(every)  # begins at its last solution
            sums[tried] += _held_out(x[fold == k] @ weight.T + bias, labels[fold == k], loss)
        tried += 1
        worse = worse + 1 if tried > 1 and bool((sums[tried - 1] > sums[: tried - 1].min(0).values).all()) else 0
        if worse == _WORSE:
            break
    best = sums[:tried].argmin(0)
    chosen = torch.tensor(STRENGTHS, dtype=torch.float64)[best]
    least = float(sums[:tried].min(0).values.mean()) / len(x)
    return chosen.expand(n_outputs).clone(), least


def _held_out(logits: Tensor, labels: Tensor, loss: TaskLoss) -> Tensor:
    """The sum of the rows' losses, (1,), or of a multi-label task by label, (C,); in the unit of training."""
    if loss.kind != "multi_label":
        return loss.per_row(logits, labels.double() if loss.kind == "regression" else labels).sum()[None] / loss.unit
    weights = loss.class_weights
    columns = [
        replace(loss, class_weights=None if weights is None else weights[c : c + 1].double()).per_row(
            logits[:, c : c + 1], labels[:, c : c + 1].double()
        ).sum()
        for c in range(labels.shape[1])
    ]  # fmt: skip
    return torch.stack(columns)


def _folds(labels: Tensor, kind: str, n_folds: int) -> Tensor:
    """The fold (N,) of each row, which are in random order; stratified by class where a row has one."""
    number = torch.arange(len(labels))
    if kind == "single_label":
        order = labels.argsort(stable=True)
        number = torch.empty_like(order).scatter_(0, order, number)
    return number % n_folds


class _Logistic:
    """Penalised logistic regressions on the same rows, each begun at the last one's solution."""

    def __init__(self, x: Tensor, labels: Tensor, loss: TaskLoss, n_outputs: int, centred: bool):
        self._x = x
        self._labels = labels.double() if loss.kind == "multi_label" else labels
        weights = loss.class_weights
        self._loss = replace(loss, class_weights=None if weights is None else weights.double().cpu())
        self._unit = n_outputs if loss.kind == "multi_label" else 1  # its loss is a mean over labels: each counts whole
        self._weight = torch.zeros(n_outputs, x.shape[1], dtype=x.dtype, requires_grad=True)
        self._bias = torch.zeros(n_outputs, dtype=x.dtype, requires_grad=centred)

    def solved(self, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (C, F) and bias (C,) at the inverse penalties (C,)."""
        variables = [self._weight, self._bias] if self._bias.requires_grad else [self._weight]
        optimizer = torch.optim.LBFGS(
            variables, max_iter=_ITERATIONS, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )  # fmt: skip
        penalty = 1 / (strengths * len(self._x))

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses = self._loss.per_row(self._x @ self._weight.T + self._bias, self._labels)
            value = losses.mean() * self._unit + (penalty * self._weight.square().sum(1)).sum() / 2
            value = value + _BIAS_PENALTY / 2 * self._bias.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        return self._weight.detach().clone(), self._bias.detach().clone()


class _Ridge:
    """Ridge regressions on the same rows, from one matrix of products."""

    def __init__(self, x: Tensor, labels: Tensor, loss: TaskLoss, n_outputs: int, centred: bool):
        y = labels.double()
        self._centre = y.mean() if centred else y.new_zeros(())
        self._means = x.mean(0) if centred else torch.zeros_like(x[0])
        x = x - self._means
        self._products, self._targets = x.T @ x, x.T @ (y - self._centre)

    def solved(self, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (1, F) and bias (1,) at the inverse penalty."""
        penalty = torch.eye(len(self._products), dtype=self._products.dtype) / strengths[0]
        factor = torch.linalg.cholesky(self._products + penalty)
        weight = torch.cholesky_solve(self._targets[:, None], factor).T
        return weight, (self._centre - weight @ self._means).reshape(1)
