"""A packed model whose passes hold rows of several tasks: which changes it can mix, and how it runs them."""

# Shapes: T tokens, R rows (texts, each counted once for every task that has its own), H width, C outputs.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.heads import LinearHead
from ..encoders.inputs import ModelInputs
from ..encoders.parameter_kinds import layers_of, runs_as
from . import forward_context, linear
from .bert_layer import POINTS, point_of
from .forward_context import CURRENT, ForwardContext
from .mixed_rows import END, Entries, LowRank, MixedRows, ModuleChange, TaskChange
from .packed import PackedModel, pack, round_step
from .patches import Patches
from .proof import evaluating, probe_inputs
from .residual_norm import is_tail
from .stand_ins import standing_in

Item = tuple[int, int]  # the number of a text, and of the task that reads it


class MixedModel:
    """Mixed passes of a packed model; made by `PreparedModel.mixed`, which takes all away again that this puts on modules."""

    def __init__(self, packed: PackedModel, patches: Patches):
        self.model, self._packed, self._layers = packed.model, packed, layers_of(packed.model)
        self._paths = {module: path for path, module in self.model.named_modules()}
        self._device = next(self.model.parameters()).device
        # Rows can part within a layer where nothing but its states goes through it.
        self._parts_within = len(packed.wholes) == packed.n_layers and self._device.type == "cpu"
        self._order = self._called()
        names = [name for name, _ in self.model.named_parameters()]
        self._path_of = {name: name.rpartition(".")[0] for name in names}  # looked up for every value of every task and pass
        self._starts = {path: self._start_of(path) for path in self._order}
        self._mixable = {path for path in self._order if self._is_known(self.model.get_submodule(path))}
        self._put_on(patches)
        if not self._is_right():
            self._mixable = set()
        self._head_is_a_map = self._maps_alone()

    @property
    def n_layers(self) -> int:
        """Modules in the stack of layers."""
        return self._packed.n_layers

    def mixes(self, name: str) -> bool:
        """Whether rows of one pass can each have their own values of the parameter called `name`."""
        return self._path_of.get(name) in self._mixable

    def is_above(self, name: str) -> bool:
        """Whether the parameter called `name` is read behind the texts' vectors alone: by the head."""
        return self._path_of.get(name) not in self._order

    def change(
        self, values: Mapping[str, Tensor], positions: Mapping[str, Tensor], low_rank: Mapping[str, LowRank]
    ) -> TaskChange:
        """What a task has changed below its head: float32 values by parameter name, and by path what is added to a linear map.

        Values at flat ascending `positions` are 1-D (K,), others whole. `mixes` must be true of every parameter.
        """
        found: dict[str, dict[str, Any]] = {path: {"low_rank": of} for path, of in low_rank.items()}
        for name, value in values.items():
            path = self._path_of[name]
            role, changes, at = name[len(path) + 1 :], found.setdefault(path, {}), positions.get(name)
            if at is None:
                changes[role] = value
                continue
            own = self.model.get_parameter(name).detach()
            if own.ndim == 1:  # a vector takes no more whole than with its positions
                changes[role] = own.index_put((at.long(),), value)
            else:
                changes["entries"] = _entries(own, at.long(), value, self.model.get_submodule(path))
        start = min((self._starts[path] for path in found), default=END)
        return TaskChange({path: ModuleChange(**changes) for path, changes in found.items()}, start)

    def first_layer(self, change: TaskChange) -> int:
        """The first layer that the task computes by itself: -1 where that is all, the number of layers where it shares them."""
        return self.n_layers if change.start == END else (change.start - 1) // POINTS

    @torch.no_grad()
    def vectors(
        self, texts: ModelInputs, tasks: Sequence[TaskChange], items: Sequence[Item]
    ) -> tuple[Tensor, dict[Item, int]]:
        """What the heads are given, (R, H) float32, and the row of each item; several have one where all is shared."""
        # Few shapes for ever, in every dtype: oneDNN keeps a program for each of them.
        rows = MixedRows(texts.lengths, tasks, items, self._device, round_step(sum(texts.lengths)))
        begin, states = 0, None
        for start in [] if self._parts_within else sorted({task.start for task in tasks if 0 < task.start < END}):
            if rows.parts_at(start):
                number = (start - 1) // POINTS
                states = self._run(texts, rows, begin, number, states)
                (states,) = rows.reach(start, states)
                begin = number
        states = self._run(texts, rows, begin, self.n_layers, states)
        return states[: len(rows.rows)], rows.row_of()

    @torch.no_grad()
    def logits(self, vectors: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Float32 logits (N, C) from vectors (N, H), or (2 N, H) of pairs apart, with `values` in the place of the head's own."""
        if self._head_is_a_map and isinstance(self.model, LinearHead):
            own = self.model.classifier
            weight, bias = values.get("classifier.weight", own.weight), values.get("classifier.bias", own.bias)
            return nn.functional.linear(self.model.features(vectors), weight, bias)
        with standing_in(self.model, values):
            return self._packed.logits_from(vectors, [1] * len(vectors), self.n_layers)

    def _run(self, texts: ModelInputs, rows: MixedRows, begin: int, stop: int, states: Tensor | None) -> Tensor:
        """What layer `stop` is given (T, H), or behind all layers the vectors, from what layer `begin` is given."""
        batch = pack(self.model, texts.take(rows.texts))
        batch = self._packed.filled(batch, sum(rows.layout.lengths) - batch.input_ids.shape[1])
        context = ForwardContext(
            rows.layout, self._packed.firsts_from, n_layers=self.n_layers, begin=begin, stop=stop, mixed=rows,
            states=None if states is None else states[None],
        )  # fmt: skip
        try:
            self._packed.forward(batch, context)
        except forward_context.Reached as reached:
            return reached.states
        raise RuntimeError(f"{type(self.model).__name__} has no layer {stop}")

    def _called(self) -> dict[str, int]:
        """The paths of modules with parameters that a pass goes through in front of the head, numbered in that order."""
        order: dict[str, int] = {}
        # Steps that are several modules in one do not call these: all that is in a layer is called with it.
        inner = {layer: [m for m in layer.modules() if _owns(m)] for layer in self._packed.layers}

        def watch(module: nn.Module, *_: Any) -> None:
            for each in inner.get(module, [module]):
                order.setdefault(self._paths[each], len(order))

        outer = [m for m in self.model.modules() if _owns(m) and not self._paths[m].startswith(f"{self._layers.path}.")]
        hooks = [module.register_forward_pre_hook(watch) for module in (*outer, *self._packed.layers)]
        try:
            with evaluating(self.model):
                self._packed.states(pack(self.model, probe_inputs(self.model)), self.n_layers)
        finally:
            for hook in hooks:
                hook.remove()
        return order

    def _is_known(self, module: nn.Module) -> bool:
        return any(runs_as(module, kind) for kind in (nn.LayerNorm, nn.Linear, nn.Embedding))

    def _start_of(self, path: str) -> int:
        """The point of a pass at which the module at `path` does its work: 0 in front of the layers, then POINTS a layer."""
        if self._layers.shared:
            return 0
        last = self.n_layers - 1
        if not path.startswith(f"{self._layers.path}."):
            # What lies behind the layers, a last norm, is taken for a part of the last one.
            within = (at for other, at in self._order.items() if other.startswith(f"{self._layers.path}."))
            return 1 + POINTS * last if self._order[path] > max(within) else 0
        number = int(path[len(self._layers.path) + 1 :].split(".", maxsplit=1)[0])
        return 1 + POINTS * number + (point_of(self._packed.wholes[number], path) if self._parts_within else 0)

    def _put_on(self, patches: Patches) -> None:
        """Has the modules that a pass calls one by one ask it for their values; whole layers do so by themselves."""
        for path, module in [(path, self.model.get_submodule(path)) for path in self._mixable]:
            halved = self._packed.halved and path.startswith(f"{self._layers.path}.")
            patches.patch(module, _forward(module, path, torch.bfloat16 if halved else None))
        for module in self._packed.layers.modules():
            if is_tail(module):
                patches.patch(module, _tail_forward(module, self._paths[module.LayerNorm]))
            elif linear.is_intermediate(module):
                patches.patch(module, _intermediate_forward(module))

    def _maps_alone(self) -> bool:
        """Whether nothing lies between the texts' vectors and the linear map of a LinearHead: no last norm of first tokens."""
        if not isinstance(self.model, LinearHead):
            return False
        with evaluating(self.model):
            texts = probe_inputs(self.model)
            vectors = self._packed.states(pack(self.model, texts), self.n_layers)
            above = self._packed.logits_from(vectors, [1] * len(texts), self.n_layers)
            return torch.allclose(above, self.model.answer(vectors), rtol=1e-4, atol=1e-5)

    def _is_right(self) -> bool:
        """Whether a task with other vectors everywhere is answered as by the model that has them, beside one that has none."""
        draw = torch.Generator().manual_seed(0)
        values = {
            name: p.detach() * (1 + 0.1 * torch.rand(p.shape, generator=draw).to(p)) + 0.01
            for name, p in self.model.named_parameters()
            if p.ndim == 1 and self.mixes(name)
        }
        texts = probe_inputs(self.model)
        numbers = range(len(texts))
        try:
            with evaluating(self.model):
                tasks = [self.change(values, {}, {}), self.change({}, {}, {})]
                found, row = self.vectors(texts, tasks, [(text, task) for task in (0, 1) for text in numbers])
                batch = pack(self.model, texts)
                plain = self._packed.states(batch, self.n_layers)
                with standing_in(self.model, values):
                    changed = self._packed.states(batch, self.n_layers)
        except (RuntimeError, ValueError, KeyError, IndexError):
            return False
        tolerance = 0.1 if self._packed.halved else 1e-3
        return all(
            torch.allclose(found[[row[text, task] for text in numbers]], expected, rtol=tolerance, atol=tolerance)
            for task, expected in enumerate((changed, plain))
        )


def _owns(module: nn.Module) -> bool:
    """Whether it has parameters of its own."""
    return any(True for _ in module.parameters(recurse=False))


def _entries(own: Tensor, at: Tensor, value: Tensor, module: nn.Module) -> Entries:
    """The Entries of the new values of `own` (O, I) at the flat positions `at`."""
    rows, columns = at // own.shape[-1], at % own.shape[-1]
    return Entries(rows, columns, value if runs_as(module, nn.Embedding) else value - own[rows, columns])


def _current() -> MixedRows | None:
    """The rows of the mixed pass that is under way in this thread."""
    context = CURRENT.get()
    return None if context is None else context.mixed


def _forward(module: Any, path: str, dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    """The forward method in front of a module's: with the values of each row's task; `dtype` is that of what goes in and out."""
    own, is_norm, is_table = module.forward, runs_as(module, nn.LayerNorm), runs_as(module, nn.Embedding)
    maps = None if is_norm or is_table else linear.Masters([module]) if dtype is None else linear.Copies([module])

    def forward(x: Tensor) -> Tensor:
        rows = _current()
        if rows is None or not rows.changes([path]):
            return own(x)
        if is_table:
            y = own(x)
            return rows.looked_up(y.flatten(0, -2), x.flatten(), path, module).view(y.shape)
        flat = x.to(dtype or x.dtype).reshape(-1, x.shape[-1])
        y = rows.normed(flat, path, module) if maps is None else rows.product(maps, [module], [path], flat)
        return y.view(*x.shape[:-1], -1)

    return forward


def _tail_forward(module: Any, path: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward method in front of that of a half layer's end, which reads the norm's values instead of calling it."""
    own = module.forward

    def forward(hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        context, rows = CURRENT.get(), _current()
        if context is None or rows is None or not rows.changes([path]):
            return own(hidden_states, input_tensor)
        if context.firsts_only and input_tensor.shape[1] != hidden_states.shape[1]:
            input_tensor = context.firsts(input_tensor)
        hidden = module.dense(hidden_states)
        return rows.normed(hidden[0], path, module.LayerNorm, input_tensor[0].to(hidden.dtype))[None]

    return forward


def _intermediate_forward(module: Any) -> Callable[[Tensor], Tensor]:
    """The forward method in front of that of a linear map with GELU, which may compute both in one step."""
    own = module.forward

    def forward(hidden_states: Tensor) -> Tensor:
        if _current() is None:
            return own(hidden_states)
        return module.intermediate_act_fn(module.dense(hidden_states))

    return forward
