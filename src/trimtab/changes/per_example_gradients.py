"""Gradients text by text from one backward pass over many texts.

A text's gradient of a weight is a sum over the rows (tokens) that are its own, so what the layers were given and what came
back to them is enough: for a linear map with inputs x and output gradients d it is d' x over the text's rows, for a norm
the sum of d times its normalised input, for a table of embeddings the sum of d by id. Hooks collect inputs and output
gradients here; who asked makes of them what it needs, and no gradient of a batch is ever formed.
"""

# Shapes: R rows of an activation, B texts, G groups of texts, I inputs, O outputs, H width.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.parameter_kinds import runs_as


class RowsOf(Protocol):
    """Which rows of an activation are whose."""

    def __len__(self) -> int: ...  # texts
    # How many rows of an activation of `shape` each text has, in order; None where they are no single text's.
    def rows(self, shape: torch.Size) -> list[int] | None: ...


@dataclass
class _Call:
    """One call of a module in the forward pass."""

    inputs: Tensor | None  # (R, I), or ids (R,); None where only the bias is wanted
    rows: list[int]  # of each text; empty where they are no single text's
    gradient: Tensor | None = None  # (R, O), of the backward pass that is under way


@dataclass
class Watched:
    """A module with wanted parameters, and its calls in the pass that is under way."""

    module: nn.Module
    weight: str | None  # the name of the parameter, where it is wanted
    bias: str | None  # likewise
    calls: list[_Call] = field(default_factory=list)


# What is made of a module's inputs (R, I), or None where only its bias is wanted, and of their output gradients (R, O).
Take = Callable[[Watched, Tensor | None, Tensor, "Segments"], None]


class PerExampleGradients:
    """Watches the parameters `names` of `model`: behind every backward pass, `take` is called with each module's part of it.

    `kinds` are the classes of modules whose weights and biases `take` knows what to do with. `rest` are the parameters that
    no hook can see by text (tables that all texts share, parameters outside of those modules), once `probe` was called.
    """

    def __init__(
        self, model: nn.Module, names: list[str], kinds: tuple[type[nn.Module], ...], take: Take, n_groups: int
    ):
        self.rest: set[str] = set()
        self._watched: list[Watched] = []
        self._hand_on = take
        self._n_groups = n_groups
        self._texts: RowsOf | None = None  # of the pass under way; without any, hooks look away
        self._groups = torch.empty(0, dtype=torch.int64)  # (B,) of those texts
        by_module: dict[str, list[str]] = {}  # path -> names of its wanted parameters
        for name in names:
            by_module.setdefault(name.rpartition(".")[0], []).append(name)
        for path, members in by_module.items():
            module = model.get_submodule(path)
            wanted = {name.rpartition(".")[2]: name for name in members}
            # Weight and bias mean what they mean in that class of modules; of other parameters nothing is known.
            if wanted.keys() <= {"weight", "bias"} and any(runs_as(module, kind) for kind in kinds):
                self._watched.append(Watched(module, wanted.get("weight"), wanted.get("bias")))
            else:
                self.rest |= set(members)

    @contextmanager
    def watching(self) -> Iterator[PerExampleGradients]:
        """Hooks on the model, within the block."""
        hooks = [
            watched.module.register_forward_hook(self._hook(watched), with_kwargs=True) for watched in self._watched
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()
            self._forget()

    def probe(self, texts: RowsOf, forward: Callable[[], Any]) -> None:
        """Finds out which modules `forward`, a pass over `texts`, never calls or calls on rows that are no single text's."""
        self.begin(texts, torch.zeros(len(texts), dtype=torch.int64))
        forward()
        for watched in list(self._watched):
            if not watched.calls or any(not call.rows for call in watched.calls):
                self._watched.remove(watched)
                self.rest |= {name for name in (watched.weight, watched.bias) if name is not None}
        self._forget()

    def begin(self, texts: RowsOf, groups: Tensor) -> None:
        """A forward pass over `texts` follows, of the groups (B,)."""
        self._forget()
        self._texts, self._groups = texts, groups

    def end(self) -> None:
        """A backward pass is over: takes what is still waiting, of modules that are called several times in a pass."""
        for watched in self._watched:
            if len(watched.calls) > 1:
                self._finish(watched, [call for call in watched.calls if call.gradient is not None])

    def _forget(self) -> None:
        """Lets go of a pass's texts and of the activations that were kept of it."""
        for watched in self._watched:
            watched.calls = []
        self._texts = None

    def _hook(self, watched: Watched) -> Any:
        """A forward hook that keeps what the module is given, until the gradient of its output arrives."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor | None:
            if self._texts is None or watched not in self._watched:
                return None
            # The one input that such a module has, by position or by name.
            given = args[0] if args else next(iter(kwargs.values()))
            rows = self._texts.rows(output.shape)
            if rows is None or not isinstance(given, Tensor):
                watched.calls.append(_Call(None, []))  # the probe takes this module out
                return None
            flat = given.detach().reshape(-1) if isinstance(module, nn.Embedding) else given.detach().flatten(0, -2)
            call = _Call(flat if watched.weight else None, rows)
            watched.calls.append(call)
            if not torch.is_grad_enabled():
                return None
            if not output.requires_grad:  # nothing below is watched: gradients begin here
                output = output.detach().requires_grad_().clone()
            output.register_hook(lambda gradient: self._arrived(watched, call, gradient))
            return output

        return hook

    def _arrived(self, watched: Watched, call: _Call, gradient: Tensor) -> None:
        """Notes the gradient of a call's output; of several calls, `end` takes all together."""
        call.gradient = gradient.detach().flatten(0, -2)
        if len(watched.calls) == 1:
            self._finish(watched, [call])

    @torch.no_grad()
    def _finish(self, watched: Watched, calls: list[_Call]) -> None:
        """Hands on what all `calls` together say, since a text's gradient is the sum over them."""
        if not calls:
            return
        inputs, gradient, rows = _together(calls)
        # Of this pass; the next one over the same activations brings others.
        for call in calls:
            call.gradient = None
        self._hand_on(watched, inputs, gradient, Segments(rows, self._groups, self._n_groups, gradient.device))


class Segments:
    """Rows that belong to texts, one text behind the other; texts beyond the groups are fillers and are left out."""

    def __init__(self, rows: list[int], groups: Tensor, n_groups: int, device: torch.device):
        self.n_groups = n_groups
        self.groups = groups.to(device)
        self.rows = rows[: len(groups)]  # of each text
        self.count = sum(self.rows)  # of all texts, which come before any filler's
        self.single = all(n == 1 for n in self.rows)  # as behind the layers

    def owner(self) -> Tensor:
        """The text of each row (R,)."""
        return torch.arange(len(self.rows)).repeat_interleave(torch.tensor(self.rows)).to(self.groups.device)

    def sums(self, values: Tensor) -> Tensor:
        """The sum (B, H) of each text's rows of `values` (R, H)."""
        values = values[: self.count]
        if self.single:
            return values
        return values.new_zeros(len(self.rows), values.shape[1]).index_add_(0, self.owner(), values)


def norm_gradients(module: Any, x: Tensor, d: Tensor, texts: Segments) -> Tensor:
    """Of a norm's weight, by text (B, H): the sum of d times the normalised x."""
    if isinstance(module, nn.RMSNorm):
        normalised = functional.rms_norm(x.float(), module.normalized_shape, None, module.eps)
    else:
        normalised = functional.layer_norm(x.float(), module.normalized_shape, None, None, module.eps)
    return texts.sums(normalised * d.float())


def bias_gradients(d: Tensor, texts: Segments) -> Tensor:
    """Of a bias, by text (B, H): the sum of d."""
    return texts.sums(d.float())


def _together(calls: list[_Call]) -> tuple[Tensor | None, Tensor, list[int]]:
    """The rows of all calls, text by text."""
    gradients = [call.gradient for call in calls if call.gradient is not None]
    if len(calls) == 1:
        return calls[0].inputs, gradients[0], calls[0].rows
    rows = [call.rows for call in calls]
    owner = torch.cat([torch.arange(len(r)).repeat_interleave(torch.tensor(r)) for r in rows])
    order = owner.argsort(stable=True)  # by text; inputs and gradients stay side by side
    inputs = None if calls[0].inputs is None else torch.cat([c.inputs for c in calls if c.inputs is not None])[order]
    return inputs, torch.cat(gradients)[order], [sum(each) for each in zip(*rows, strict=True)]
