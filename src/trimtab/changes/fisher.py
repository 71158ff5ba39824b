"""The diagonal Fisher information: how much a task's predictions depend on each parameter of an encoder.

F(e) is the mean over rows of E_y [(d loss(y) / d e)^2], where the loss of a row is read as the negative logarithm of a
likelihood: cross-entropy (single_label), binary cross-entropy averaged over the C classes (multi_label), and (f - y)^2, which
is a Gaussian of variance 1/2 (regression). It is always this plain loss, even for a fit with class weights or label
smoothing: information is a property of the model and the task's labels, and not of how it is trained. Three estimators
differ in y:

- empirical: the label of the row (what FISH, arXiv 2111.09839, and arXiv 2403.20284 measure);
- sampled: one label drawn from the model's own prediction, so that its mean is the exact one;
- exact: the expectation over all labels, which takes C - 1 backward passes (C for multi_label, 1 for regression).

See Kunstner et al. 2019 (arXiv 1905.12558) for why the empirical one is not the others.
"""

# Shapes: B texts, C outputs, K backward passes.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..correlation import spearman
from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead
from ..encoders.inputs import ModelInputs
from ..encoders.parameter_kinds import Part
from ..engine import PreparedModel, prepare
from ..errors import InputError
from ..files import BAD_TENSORS, open_tensors, write_tensors
from .choices import ESTIMATORS, check_estimator
from .per_example_squares import SquaredGradients
from .selection import Selection, wanted_count

_MANY = 20  # classes from which on the exact one takes noticeably longer

_RANKED = 100_000  # elements whose ranks are compared: enough for a correlation to two digits
_FORMAT = 2  # of the file that `save` writes; `load` reads no other
_VALUES, _POSITIONS = "values/", "positions/"  # what names of tensors in a file begin with


class TextBatch(Protocol):
    """What a model reads of some rows, with labels as the task's loss takes them."""

    @property
    def inputs(self) -> ModelInputs: ...
    @property
    def lengths(self) -> list[int]: ...
    @property
    def labels(self) -> Tensor | None: ...
    def take(self, rows: Sequence[int]) -> TextBatch: ...


@dataclass(frozen=True, eq=False)
class Fisher:
    """The information of each measured element, and what it was measured on."""

    values: Mapping[str, Tensor] = field(repr=False)  # name -> float32, shaped like the parameter
    within: Selection  # the elements that were asked about; `values` covers their parameters whole
    estimator: str  # one of ESTIMATORS
    rows: np.ndarray = field(repr=False)  # the training rows it was measured on, as numbers
    stability: float  # rank correlation between the two halves of the rows, see `stability_of`; 1 is perfect
    notes: Mapping[str, Any] = field(default_factory=dict)  # encoder, task, seed, ...: JSON

    @property
    def parts(self) -> Mapping[str, Part]:
        """All parameters of the model that was measured, by name."""
        return self.within.parts

    @property
    def measure(self) -> str:
        """What every number of it is, in words: the estimator, and whether an older version has measured it given the head."""
        return self.estimator + (", given the head" if self.notes.get("given") == "head" else "")

    def top(self, share: float | None = None, count: int | None = None) -> Selection:
        """The most informative elements of the backbone, by `share` or `count` of those measured there.

        Raises InputError for a share or count that does not fit.
        """
        backbone = self.within.backbone
        return backbone.highest(
            backbone.values_of(self.values), wanted_count("fisher_top", backbone.count, count, share)
        )

    def sums(self) -> dict[str, tuple[float, int]]:
        """Of each measured parameter: the sum of its information and how many elements were measured."""
        found = {}
        for name, at in self.within.elements.items():
            values = self.values[name].flatten().double()
            values = values if at is None else values[torch.from_numpy(at)]
            found[name] = float(values.sum()), len(values)
        return found

    def part_of(self, chosen: Selection) -> float:
        """The part of the backbone's information that its chosen elements hold, from 0 to 1."""
        total = sum(value for name, (value, _) in self.sums().items() if not self.parts[name].is_head)
        held = 0.0
        for name, at in (chosen.backbone & self.within).elements.items():
            values = self.values[name].flatten().double()
            held += float(values.sum() if at is None else values[torch.from_numpy(at)].sum())
        return held / total if total else 0.0

    def by(self, key: Literal["kind", "layer"]) -> dict[Any, dict[str, float]]:
        """kind or layer -> sum, mean per parameter, share of the backbone's sum, and count; the head's share is not counted."""
        sums = self.sums()
        total = sum(value for name, (value, _) in sums.items() if not self.parts[name].is_head) or 1.0
        found: dict[Any, dict[str, float]] = {}
        for name, (value, n) in sums.items():
            part = self.parts[name]
            entry = found.setdefault(getattr(part, key), {"sum": 0.0, "elements": 0, "share": 0.0})
            entry["sum"] += value
            entry["elements"] += n
            entry["share"] += 0.0 if part.is_head else value / total
        for entry in found.values():
            entry["mean"] = entry["sum"] / entry["elements"]
        return found

    def save(self, path: str | Path) -> None:
        """Writes it as one safetensors file, whole or not at all."""
        chosen = self.within.elements
        described = {
            "format": _FORMAT, "estimator": self.estimator, "stability": self.stability, "notes": dict(self.notes),
            "parts": {name: [p.layer, p.kind, p.role, p.count] for name, p in self.parts.items()},
            "whole": [name for name, at in chosen.items() if at is None],
        }  # fmt: skip
        tensors = {f"{_VALUES}{name}": value.contiguous() for name, value in self.values.items()}
        # As tensors: there may be millions, and a safetensors header holds no more than 100 MB.
        tensors |= {f"{_POSITIONS}{name}": torch.from_numpy(at) for name, at in chosen.items() if at is not None}
        tensors["rows"] = torch.from_numpy(np.asarray(self.rows, dtype=np.int64))
        write_tensors(Path(path), tensors, {"fisher": json.dumps(described)})

    @classmethod
    def load(cls, path: str | Path) -> Fisher:
        """What `save` wrote; raises InputError for any other file, a damaged one, and one of another format."""
        try:
            with open_tensors(path, "pt") as file:
                described, tensors = file.described("fisher"), file.tensors()
            if described["format"] != _FORMAT:
                raise ValueError(
                    f"it has format {described['format']}, and this version reads {_FORMAT}: measure again"
                )
            return cls._of(described, tensors)
        except (OSError, *BAD_TENSORS) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise InputError(
                f"{path} is no file of Fisher information that can be read (trimtab fisher writes them): {why}"
            ) from None

    @classmethod
    def _of(cls, described: dict[str, Any], tensors: dict[str, Tensor]) -> Fisher:
        """The Fisher of a file's description and tensors; raises what `load` puts in words where `save` did not write them."""
        parts = {
            name: Part(int(layer), str(kind), str(role), int(n))
            for name, (layer, kind, role, n) in described["parts"].items()
        }
        values = {name.removeprefix(_VALUES): t for name, t in tensors.items() if name.startswith(_VALUES)}
        positions = {n.removeprefix(_POSITIONS): t.numpy() for n, t in tensors.items() if n.startswith(_POSITIONS)}
        if sorted([*described["whole"], *positions]) != sorted(values):
            raise ValueError("its values are not of the parameters that it says were measured")
        for name, value in values.items():
            if value.dtype != torch.float32 or value.numel() != parts[name].count:
                raise ValueError(
                    f"{name} has {value.numel()} elements of {value.dtype}, and not {parts[name].count} of float32"
                )
        rows, notes, estimator = tensors["rows"], described["notes"], described["estimator"]
        if rows.dtype != torch.int64 or rows.dim() != 1 or not isinstance(notes, dict) or estimator not in ESTIMATORS:
            raise ValueError("its rows, notes or estimator are not what trimtab writes")
        within = Selection(parts, positions | dict.fromkeys(described["whole"]))
        return cls(values, within, estimator, rows.numpy(), float(described["stability"]), notes)


class Meter:
    """Measures the Fisher information of `within` on a model, batch by batch: that of the plain loss of the task's `kind`.

    The model is run in evaluation mode with all parameters frozen, in the arithmetic that `compute` says; "float32" is exact up
    to rounding, "bfloat16" is faster and right to about 1% of an element. Use it inside `measuring`.
    """

    def __init__(self, model: ModelWithHead, within: Selection, kind: str, estimator: str, seed: int):
        check_estimator(estimator)
        if not within:
            raise InputError("there is nothing to measure: no parameter of the encoder was chosen")
        self._model, self._within, self._kind, self._estimator = model, within, kind, estimator
        self._prepared: PreparedModel | None = None  # within `measuring`
        # Texts go to two groups by turns: how far these agree is the stability of the ranking.
        self._seen = SquaredGradients(model, list(within.elements), n_groups=2)
        self._generator = torch.Generator().manual_seed(seed)
        self.count = 0  # texts so far

    @contextmanager
    def measuring(self, compute: Compute = "float32") -> Iterator[Meter]:
        """The model set up for it within the block, and as it was behind it."""
        model, trained = self._model, [p for p in self._model.parameters() if p.requires_grad]
        with ExitStack() as stack:
            # Frozen, so that backward forms no gradient of a parameter: the squares come from those of activations.
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            stack.callback(lambda: [parameter.requires_grad_(True) for parameter in trained])
            prepared = self._prepared = stack.enter_context(prepare(model, compute))
            stack.enter_context(prepared.evaluating())
            stack.enter_context(self._seen.per_example.watching())
            # What the hooks cannot separate by text is found before anything is counted.
            probe = prepared.observed(prepared.probe)
            self._seen.per_example.probe(probe, probe.logits)
            yield self

    def add(self, batch: TextBatch, most_tokens: int | None = None) -> None:
        """Adds the texts of `batch`, at most `most_tokens` tokens at a time; raises InputError where a gradient is no number."""
        assert self._prepared is not None
        for piece in self._prepared.pieces(batch, most_tokens):
            self._add(self._prepared, piece)

    @torch.enable_grad()
    def _add(self, prepared: PreparedModel, batch: TextBatch) -> None:
        """`add`, of texts that run together."""
        texts = prepared.observed(batch.inputs)
        groups = (torch.arange(len(texts)) + self.count) % 2
        rest = self._seen.per_example.rest
        self._seen.per_example.begin(texts, groups)
        logits = texts.logits()
        # Of those in `rest` the hooks see nothing; they are asked one text at a time.
        if not logits.requires_grad and not rest:
            raise InputError("none of these parameters lies on the way from a text to its prediction")
        labels = batch.labels
        found = factors(logits.detach().cpu(), labels, self._kind, self._estimator, self._generator).to(logits.device)
        if not bool(torch.isfinite(found).all()):
            raise InputError("the model's predictions are not numbers (NaN), so there is no gradient to measure")
        # The squares of all K passes add up in the sums.
        for k, factor in enumerate(found if logits.requires_grad else ()):
            logits.backward(factor, retain_graph=k + 1 < len(found))
            self._seen.per_example.end()
        if rest:
            self._add_rest(prepared, batch, found, groups)
        self.count += len(texts)

    def result(self, rows: np.ndarray | None = None, notes: Mapping[str, Any] | None = None) -> Fisher:
        """The Fisher of all texts so far, which were `rows` (default: 0, 1, ...); raises InputError where it is no number."""
        halves = {name: sums.cpu() for name, sums in self._seen.sums.items()}
        values = {name: sums.sum(0) / self.count for name, sums in halves.items()}
        bad = [name for name, value in values.items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise InputError(f"the gradient of {bad[0]} is not a number (NaN) for some text: is the encoder damaged?")
        stability = stability_of(self._within.backbone, halves)
        rows = np.arange(self.count) if rows is None else rows
        return Fisher(values, self._within, self._estimator, rows, stability, dict(notes or {}))

    def _add_rest(self, prepared: PreparedModel, batch: TextBatch, found: Tensor, groups: Tensor) -> None:
        """One backward pass per text, for the few parameters that no hook can see by text."""
        rest = {name: p for name, p in self._model.named_parameters() if name in self._seen.per_example.rest}
        for parameter in rest.values():
            parameter.requires_grad_(True)
        for i in range(len(groups)):
            logits = prepared.observed(batch.inputs.take_rows([i])).logits()
            for factor in found[:, i : i + 1] if logits.requires_grad else ():  # else none of them matters
                gradients = torch.autograd.grad(
                    logits, list(rest.values()), factor, retain_graph=True, allow_unused=True
                )
                for name, gradient in zip(rest, gradients, strict=True):
                    if gradient is not None:
                        self._seen.add(name, gradient, int(groups[i]))
        for parameter in rest.values():
            parameter.requires_grad_(False)


def cost_note(estimator: str, kind: str, n_classes: int, n_rows: int) -> list[str]:
    """A sentence on what `exact` costs where there are many classes; nothing where there are few, and of other estimators."""
    if estimator != "exact" or kind == "regression" or n_classes < _MANY:
        return []
    return [
        f"exact Fisher information sums over {n_classes:,} classes: about {n_classes:,} backward passes for each of {n_rows:,} "
        "rows, where sampled takes one and has the same mean (estimator=sampled)"
    ]


def factors(
    logits: Tensor, labels: Tensor | None, kind: str, estimator: str, generator: torch.Generator | None = None
) -> Tensor:
    """(K, B, C): gradients of the loss by the logits (B, C), whose squares, pulled back to a parameter and added up, are F.

    For `exact` and one label of C they are the columns of the Cholesky factor of diag(p) - p p' (Tanabe and Sagae 1992), so
    C - 1 passes give what an expectation over C labels would. Raises InputError for `empirical` without labels.
    """
    c = logits.shape[1]
    if estimator == "empirical" and labels is None:
        raise InputError("the empirical Fisher information needs labels: use sampled or exact, or a task that has them")
    if kind == "regression":
        predictions = logits[:, 0]
        if estimator == "empirical":
            assert labels is not None
            return (2 * (predictions - labels))[None, :, None]
        # With y of variance 1/2 around f, the derivative 2 (f - y) has variance 2.
        if estimator == "sampled":
            return 2**0.5 * torch.randn(1, len(predictions), 1, generator=generator)
        return torch.full((1, len(predictions), 1), 2**0.5)
    if kind == "multi_label":
        p = torch.sigmoid(logits)
        # The classes are independent, of variance p (1 - p) each: one pass per class.
        if estimator == "exact":
            return torch.diag_embed((p * (1 - p)).sqrt()).transpose(0, 1) / c
        targets = labels if estimator == "empirical" else torch.bernoulli(p, generator=generator)
        assert targets is not None
        return (p - targets)[None] / c
    p = logits.double().softmax(1)
    if estimator == "exact":
        return _cholesky_columns(p).to(logits.dtype)
    drawn = labels if estimator == "empirical" else torch.multinomial(p, 1, generator=generator)[:, 0]
    assert drawn is not None
    return (p - torch.nn.functional.one_hot(drawn, c)).to(logits.dtype)[None]


def _cholesky_columns(p: Tensor) -> Tensor:
    """(C - 1, B, C) with sum_k b_k b_k' = diag(p) - p p', for probabilities p (B, C)."""
    tiny = torch.finfo(p.dtype).tiny  # where a probability is 0, its column is 0 and not NaN
    behind = p.flip(1).cumsum(1).flip(1)  # (B, C): p_k + p_{k+1} + ...
    columns = []
    for k in range(p.shape[1] - 1):
        before, after = behind[:, k], behind[:, k + 1]
        column = torch.zeros_like(p)
        column[:, k] = (p[:, k] * after / before.clamp(min=tiny)).sqrt()
        scale = (p[:, k] / (before * after).clamp(min=tiny)).sqrt()
        column[:, k + 1 :] = -p[:, k + 1 :] * scale[:, None]
        columns.append(column)
    return torch.stack(columns)


def mean_of(infos: Sequence[Fisher]) -> Fisher:
    """The mean of several tasks' information over one backbone, each divided by its own sum over the backbone first.

    The scale of a task's information is that of its loss (how unsure the model is, how many classes there are), and says
    nothing about which elements matter; after the division every task has one vote. Heads are left out: they are
    different parameters. Raises InputError for information about different elements or encoders, of different estimators, or
    of which only some is given the head.
    """
    first = infos[0].within.backbone
    for info in infos[1:]:
        # By name and position: parts may differ, because they hold the head of each task.
        encoders = {each.notes.get("encoder_sha256") for each in (infos[0], info)}
        if len(encoders) > 1 or not info.within.backbone.same_elements(first):
            raise InputError("these measurements are of different parameters or encoders, so they have no mean")
        if info.estimator != infos[0].estimator:
            raise InputError(
                f"these measurements are of different estimators ({infos[0].estimator} and {info.estimator}), so they have no "
                "mean: measure all tasks with the same one"
            )
        if info.notes.get("given") != infos[0].notes.get("given"):
            raise InputError("some of these measurements are given the head and some are not, so they have no mean")
    totals = [sum(v for name, (v, _) in info.sums().items() if name in first.elements) for info in infos]
    values = {
        name: torch.stack([i.values[name] / (t or 1.0) for i, t in zip(infos, totals, strict=True)]).mean(0)
        for name in first.elements
    }
    notes = dict(infos[0].notes) | {"tasks": [info.notes.get("task") for info in infos]}
    notes.pop("task", None)
    stability = min(info.stability for info in infos)
    return Fisher(values, first, infos[0].estimator, np.empty(0, np.int64), stability, notes)


def stability_of(backbone: Selection, halves: Mapping[str, Tensor]) -> float:
    """The rank correlation between the information of both halves of the texts (name -> (2, ...)), over elements of `backbone`.

    Only of elements with information in either half: those without any (the embeddings of words that do not occur, which can be
    half of an encoder) are tied in both, and would make any ranking look stable. NaN where there is nothing to rank.
    """
    a, b = (backbone.values_of({name: sums[half] for name, sums in halves.items()}) for half in (0, 1))
    informed = np.flatnonzero((a > 0) | (b > 0))
    if len(informed) > _RANKED:
        informed = np.random.default_rng(0).choice(informed, _RANKED, replace=False)
    return spearman(a[informed], b[informed])
