"""Sums over texts of squared gradients, one gradient per text, from one backward pass over all of them.

A text's gradient of a weight is a sum over the rows (tokens) that are its own, so what the layers were given and what came
back to them is enough: for a linear map with inputs x and output gradients d it is d' x over the text's rows, for a norm
the sum of d times its normalised input, for a table of embeddings the sum of d by id. Summing by text before squaring is
the whole trick; no gradient of a batch is ever formed.
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
class _Watched:
    """A module with wanted parameters, and its calls in the pass that is under way."""

    module: nn.Module
    weight: str | None  # the name of the parameter, where it is wanted
    bias: str | None  # likewise
    calls: list[_Call] = field(default_factory=list)


class SquaredGradients:
    """`sums[name][g]` grows with every backward pass by the squared gradients of the texts of group g, added up; float32.

    Of the parameters `names` of `model`. `rest` are those among them that no hook can see by text (tables that all texts
    share, parameters outside of linear maps, norms and embeddings); their sums stay 0 until `add` is called.
    """

    def __init__(self, model: nn.Module, names: list[str], n_groups: int = 1):
        # (G, ...): for each group what has the parameter's shape.
        parameters = dict(model.named_parameters())
        self.sums = {
            name: torch.zeros(n_groups, *parameters[name].shape, device=parameters[name].device) for name in names
        }
        self.rest: set[str] = set()
        self._watched: list[_Watched] = []
        self._n_groups = n_groups
        self._texts: RowsOf | None = None  # of the pass under way; without any, hooks look away
        self._groups = torch.empty(0, dtype=torch.int64)  # (B,) of those texts
        by_module: dict[str, list[str]] = {}  # path -> names of its wanted parameters
        for name in names:
            by_module.setdefault(name.rpartition(".")[0], []).append(name)
        for path, members in by_module.items():
            module = model.get_submodule(path)
            wanted = {name.rpartition(".")[2]: name for name in members}
            # A rule knows what weight and bias do in its class of modules, and nothing of other parameters.
            if wanted.keys() <= {"weight", "bias"} and isinstance(module, tuple(_RULES)):
                self._watched.append(_Watched(module, wanted.get("weight"), wanted.get("bias")))
            else:
                self.rest |= set(members)

    @contextmanager
    def watching(self) -> Iterator[SquaredGradients]:
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
        """A backward pass is over: adds what is still waiting, of modules that are called several times in a pass."""
        for watched in self._watched:
            if len(watched.calls) > 1:
                self._take(watched, [call for call in watched.calls if call.gradient is not None])

    def add(self, name: str, gradient: Tensor, group: int) -> None:
        """Adds the squared gradient of one text, for the parameters in `rest`."""
        self.sums[name][group].addcmul_(gradient.float(), gradient.float())

    def _forget(self) -> None:
        """Lets go of a pass's texts and of the activations that were kept of it."""
        for watched in self._watched:
            watched.calls = []
        self._texts = None

    def _hook(self, watched: _Watched) -> Any:
        """A forward hook that keeps what the module is given, until the gradient of its answer arrives."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor | None:
            if self._texts is None or watched not in self._watched:
                return None
            # The one input that a module with a rule has, by position or by name.
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

    def _arrived(self, watched: _Watched, call: _Call, gradient: Tensor) -> None:
        """Notes the gradient of a call's answer; of several calls, `end` takes all together."""
        call.gradient = gradient.detach().flatten(0, -2)
        if len(watched.calls) == 1:
            self._take(watched, [call])

    @torch.no_grad()
    def _take(self, watched: _Watched, calls: list[_Call]) -> None:
        """Adds each text's squared gradient to the sums: that of all `calls` together, since it is squared last."""
        if not calls:
            return
        inputs, gradient, rows = _together(calls)
        # Of this pass; the next one over the same activations brings others.
        for call in calls:
            call.gradient = None
        rule = next(rule for kind, rule in _RULES.items() if isinstance(watched.module, kind))
        texts = _Segments(rows, self._groups, self._n_groups, gradient.device)
        if watched.bias is not None:
            self.sums[watched.bias] += texts.squares(texts.sums(gradient.float()))
        if watched.weight is not None:
            assert inputs is not None
            rule(watched.module, inputs, gradient, texts, self.sums[watched.weight])


class _Segments:
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

    def squares(self, by_text: Tensor) -> Tensor:
        """The sum (G, H) of the squares of `by_text` (B, H) in each group."""
        member = functional.one_hot(self.groups, self.n_groups).T.to(by_text.dtype)  # (G, B)
        return member @ by_text.square()


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


def _linear(module: Any, x: Tensor, d: Tensor, texts: _Segments, sums: Tensor) -> None:
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


def _layer_norm(module: Any, x: Tensor, d: Tensor, texts: _Segments, sums: Tensor) -> None:
    """(sum of d times the normalised x)^2 by text, into `sums` (G, H)."""
    normalised = functional.layer_norm(x.float(), module.normalized_shape, None, None, module.eps)
    sums += texts.squares(texts.sums(normalised * d.float()))


def _rms_norm(module: Any, x: Tensor, d: Tensor, texts: _Segments, sums: Tensor) -> None:
    """The same for a norm that divides by the root of the mean square."""
    normalised = functional.rms_norm(x.float(), module.normalized_shape, None, module.eps)
    sums += texts.squares(texts.sums(normalised * d.float()))


def _embedding(module: Any, ids: Tensor, d: Tensor, texts: _Segments, sums: Tensor) -> None:
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
_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, _Segments, Tensor], None]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
}
