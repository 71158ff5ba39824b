"""Rows of one pass that belong to different tasks: what each task has changed stands in the place of the model's own.

Rows are sorted by task, so that each task's are one run: a norm is one kernel a run, a linear map one product for all and
thin ones a run (BitFit, LoRA and diff pruning in mixed batches: PetS, USENIX ATC 2022). A text that several tasks read is one
row up to the first module that one of them has changed, and is copied there.
"""

# Shapes: T tokens, R rows (texts, each once for every task that has its own), H width, I inputs, O outputs, r rank.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .layout import Layout
from .residual_norm_triton import fits, fused_norm_of_groups

NOBODY = -1  # the task of a row that several tasks read, or of padding: the model's own values
END = 1 << 30  # where a task begins that has changed the head alone


class LowRank(NamedTuple):
    """What is added to a linear map's answer: scale (x A') B'."""

    a: Tensor  # (r, I) float32
    b: Tensor  # (O, r) float32
    scale: float


class Entries(NamedTuple):
    """Some elements of a matrix (O, I): K of them, by row."""

    rows: Tensor  # (K,) int64, ascending
    columns: Tensor  # (K,) int64
    values: Tensor  # (K,) float32: in a table the new ones, in a linear map their distance from the model's own


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """What a task has put in the place of parameters of one module; None where they are the model's own."""

    weight: Tensor | None = None  # whole, float32
    bias: Tensor | None = None  # whole, float32
    entries: Entries | None = None  # of the weight
    low_rank: LowRank | None = None


@dataclass(frozen=True)
class TaskChange:
    """What a task has changed below the head, by path of the module."""

    modules: Mapping[str, ModuleChange]
    start: int  # the point of a pass in front of which nothing is changed, as `MixedModel.start_of` numbers them


class Run(NamedTuple):
    """Consecutive rows of one task, or of tasks that have not changed what is computed."""

    start: int
    stop: int
    change: TaskChange | None


class Products(Protocol):
    """Linear maps of one input, with weights that no task has changed: linear.Copies and linear.Masters."""

    def product(self, x: Tensor, *, gelu: bool = False) -> Tensor: ...
    def unbiased(self, x: Tensor) -> Tensor: ...


@dataclass
class _Row:
    """A text, and the tasks that it is computed for."""

    text: int
    tasks: tuple[int, ...]  # ascending; the first is the place of the row among others

    @property
    def task(self) -> int:
        return self.tasks[0] if len(self.tasks) == 1 else NOBODY


@dataclass
class MixedRows:
    """The rows of one pass, from where every text is one row to where every item (a text for a task) has one."""

    lengths: Sequence[int]  # tokens of each text
    tasks: Sequence[TaskChange]
    items: Sequence[tuple[int, int]]  # of text and task
    device: torch.device
    step: int = 1  # that tokens are filled up to a multiple of
    by_text: bool = False  # whether only first tokens are computed by now
    rows: list[_Row] = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        readers: dict[int, set[int]] = {}
        for text, task in self.items:
            readers.setdefault(text, set()).add(task)
        # Who has matrices of his own comes last, so that the others' products are one.
        self._place = {task: i for i, task in enumerate(sorted(range(len(self.tasks)), key=self._heaviness))}
        rows = [_Row(text, tuple(sorted(of, key=self._place.__getitem__))) for text, of in readers.items()]
        self._starts = {change.start for change in self.tasks}
        self._changed = {path for change in self.tasks for path in change.modules}
        self._take(self._split(rows, 0) or rows)

    def _heaviness(self, task: int) -> int:
        return sum(c.weight is not None and c.weight.ndim > 1 for c in self.tasks[task].modules.values())

    @property
    def texts(self) -> list[int]:
        """The text of each row (R,), in the order of the rows."""
        return [row.text for row in self.rows]

    def row_of(self) -> dict[tuple[int, int], int]:
        """The row of each item: several have one where they have changed nothing yet."""
        return {(row.text, task): i for i, row in enumerate(self.rows) for task in row.tasks}

    def changes(self, paths: Sequence[str]) -> bool:
        """Whether a task has changed a module at one of `paths`."""
        return any(path in self._changed for path in paths)

    def parts_at(self, point: int) -> bool:
        """Whether a row becomes several at `point`."""
        return self._split(self.rows, point) is not None

    def reach(self, point: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`tensors` (T, ...), or (R, ...) `by_text`, at `point`: with a row for each task that begins there."""
        if point not in self._starts:
            return tensors
        old = {(row.text, task): i for i, row in enumerate(self.rows) for task in row.tasks}
        rows = self._split(self.rows, point)
        if rows is None:
            return tensors
        sources = [old[row.text, row.tasks[0]] for row in rows]
        starts, lengths = self._token_starts, self._token_lengths
        self._take(rows)
        # Padding is any row once more.
        if self.by_text:
            found = np.array(sources + [0] * bool(self._padding))
        else:
            parts = [np.arange(starts[i], starts[i] + lengths[i]) for i in sources]
            found = np.concatenate([*parts, np.zeros(self._padding, np.int64)])
        index = torch.from_numpy(found).to(self.device)
        return tuple(tensor.index_select(0, index) for tensor in tensors)

    def _split(self, rows: list[_Row], point: int) -> list[_Row] | None:
        """The rows behind `point`; None where no row becomes several."""
        found: list[_Row] = []
        for row in rows:
            begun = [task for task in row.tasks if self.tasks[task].start <= point] if len(row.tasks) > 1 else []
            rest = tuple(task for task in row.tasks if task not in begun)
            found += [_Row(row.text, (task,)) for task in begun]
            found += [_Row(row.text, rest)] if rest else []
        if len(found) == len(rows) and point:
            return None
        return sorted(found, key=lambda row: (row.task != NOBODY, self._place[row.tasks[0]]))

    def _take(self, rows: list[_Row]) -> None:
        """From now on these are the rows."""
        self.rows = rows
        self._token_lengths = [self.lengths[row.text] for row in rows]
        self._token_starts = np.concatenate([[0], np.cumsum(self._token_lengths)]).tolist()
        tokens = self._token_starts.pop()
        self._padding = -tokens % self.step
        padding = [self._padding] if self._padding else []
        self.layout = Layout(self._token_starts + [tokens] * len(padding), self._token_lengths + padding, self.device)
        self._groups = self._grouped()

    def _grouped(self) -> tuple[list[Run], list[Run]]:
        """The runs of one task, in tokens and in texts; those of nobody, and padding, have no change."""
        in_tokens: list[Run] = []
        in_texts: list[Run] = []
        first = 0
        for i, row in enumerate(self.rows):
            last = i + 1 == len(self.rows)
            if not last and self.rows[i + 1].task == row.task:
                continue
            change = None if row.task == NOBODY else self.tasks[row.task]
            stop = self._token_starts[i] + self._token_lengths[i]
            in_tokens.append(Run(self._token_starts[first], stop, change))
            in_texts.append(Run(first, i + 1, change))
            first = i + 1
        if self._padding:
            in_tokens.append(Run(in_tokens[-1].stop, in_tokens[-1].stop + self._padding, None))
            in_texts.append(Run(in_texts[-1].stop, in_texts[-1].stop + 1, None))
        return in_tokens, in_texts

    def runs(self, paths: Sequence[str], n_rows: int) -> list[Run]:
        """All of `n_rows` in runs of one task that has changed a module at `paths`, or of such that have not."""
        in_tokens, in_texts = self._groups
        groups = in_tokens if n_rows == in_tokens[-1].stop else in_texts
        if n_rows != groups[-1].stop:
            raise RuntimeError(f"{n_rows} rows of {paths[0]} are neither tokens nor texts")
        found: list[Run] = []
        first, *others = (
            paths  # nearly always one, or all changed together: a hundred tasks ask for every module of a pass
        )
        for group in groups:
            change = group.change
            if change is not None and (first in change.modules or any(path in change.modules for path in others)):
                found.append(group)
            elif found and found[-1].change is None:
                found[-1] = Run(found[-1].start, group.stop, None)
            else:
                found.append(Run(group.start, group.stop, None))
        return found

    def normed(self, x: Tensor, path: str, norm: nn.LayerNorm, residual: Tensor | None = None) -> Tensor:
        """LayerNorm of x (T, H), or of residual + x, with each task's own weight and bias; in the dtype of x."""
        runs, shape, eps = self.runs([path], len(x)), list(norm.normalized_shape), norm.eps
        values = _norm_values(runs, path, norm)
        if x.device.type != "cpu":
            return _normed_by_index(x, residual, runs, values, eps)
        x = x if residual is None else residual + x
        # The kernel and the arithmetic of a batch of one task, so that a task's rows come to the same bits.
        parts = x.split([run.stop - run.start for run in runs])
        normed = [
            torch.native_layer_norm(part, shape, weight, bias, eps)[0]
            for part, (weight, bias) in zip(parts, values, strict=True)
        ]
        return normed[0] if len(normed) == 1 else torch.cat(normed)

    def product(
        self, maps: Products, modules: Sequence[nn.Linear], paths: Sequence[str], x: Tensor, *, gelu: bool = False
    ) -> Tensor:
        """The answers (T, O) of linear maps of one input to x (T, I), side by side; with `gelu`, GELU of them."""
        if not self.changes(paths):
            return maps.product(x, gelu=gelu)
        runs = self.runs(paths, len(x))
        widths = [module.out_features for module in modules]
        own = [run for run in runs if _owns(run, paths)]
        biased = any(run.change is not None and _biased(run.change, paths) for run in runs)
        shared = maps.unbiased if biased else maps.product
        if not own:
            y = shared(x)
        else:
            y = x.new_empty(len(x), sum(widths))
            for start, stop in _between(own, len(x)):
                y[start:stop] = shared(x[start:stop])
        for run in own:
            _write_own(modules, paths, x, run, y[run.start : run.stop].split(widths, 1), biased=biased)
        if biased:
            # In place and by run: a table of every row's bias would be as large as the answers.
            biases = torch.stack([_bias(run, modules, paths) for run in runs]).to(y.dtype)
            for bias, part in zip(biases.unbind(), y.split([run.stop - run.start for run in runs]), strict=True):
                part.add_(bias)
        _add_updates(runs, paths, x, y.split(widths, 1))
        return torch.ops.aten.gelu_(y) if gelu else y

    def looked_up(self, y: Tensor, ids: Tensor, path: str, module: nn.Embedding) -> Tensor:
        """`y` (T, H), which `module` has looked up for `ids` (T,), with the rows of tasks that have changed the table."""
        for start, stop, change in self.runs([path], len(ids)):
            changed = None if change is None else change.modules[path]
            if changed is None:
                continue
            if changed.weight is not None:
                y[start:stop] = functional.embedding(ids[start:stop], changed.weight).to(y.dtype)
            if changed.entries is not None:
                y[start:stop] = _with_entries(y[start:stop], ids[start:stop], changed.entries)
        return y


def _norm_values(runs: Sequence[Run], path: str, norm: nn.LayerNorm) -> list[tuple[Tensor, Tensor | None]]:
    """The weight and the bias of the norm for the rows of each run."""
    own_weight, own_bias = norm.weight, norm.bias
    found: list[tuple[Tensor, Tensor | None]] = []
    for run in runs:
        if run.change is None:
            found.append((own_weight, own_bias))
            continue
        changed = run.change.modules[path]
        weight, bias = changed.weight, changed.bias
        found.append((own_weight if weight is None else weight, own_bias if bias is None else bias))
    return found


def _normed_by_index(
    x: Tensor, residual: Tensor | None, runs: Sequence[Run], values: Sequence[tuple[Tensor, Tensor | None]], eps: float
) -> Tensor:
    """The same on a GPU, where a kernel a run would cost more than the norm: each row finds its own values in a table."""
    counts = torch.tensor([run.stop - run.start for run in runs])
    groups = torch.arange(len(runs)).repeat_interleave(counts).to(x.device)
    weights = torch.stack([weight for weight, _ in values])
    biases = None if values[0][1] is None else torch.stack([bias for _, bias in values if bias is not None])
    if residual is not None and fits(x):
        return fused_norm_of_groups(x, residual, weights, biases, groups, eps)
    total = x.float() if residual is None else (residual + x).float()
    y = functional.layer_norm(total, x.shape[1:], None, None, eps).mul_(weights[groups])
    return (y if biases is None else y.add_(biases[groups])).to(x.dtype)


def _owns(run: Run, paths: Sequence[str]) -> bool:
    """Whether the task has whole matrices of its own there."""
    modules = {} if run.change is None else run.change.modules
    return any(path in modules and modules[path].weight is not None for path in paths)


def _between(own: Sequence[Run], n_rows: int) -> list[tuple[int, int]]:
    """From where to where rows are whose tasks have no matrices of their own."""
    edges = [0, *(edge for run in own for edge in (run.start, run.stop)), n_rows]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]


def _biased(change: TaskChange, paths: Sequence[str]) -> bool:
    return any(path in change.modules and change.modules[path].bias is not None for path in paths)


def _bias(run: Run, modules: Sequence[nn.Linear], paths: Sequence[str]) -> Tensor:
    """The biases (O,) of the maps for the rows of `run`, side by side."""
    found = []
    for module, path in zip(modules, paths, strict=True):
        changed = None if run.change is None else run.change.modules.get(path)
        found.append(module.bias if changed is None or changed.bias is None else changed.bias)
    return found[0] if len(found) == 1 else torch.cat(found)


def _write_own(
    modules: Sequence[nn.Linear], paths: Sequence[str], x: Tensor, run: Run, strips: Sequence[Tensor], *, biased: bool
) -> None:
    """Writes the answers of a task that has matrices of its own into `strips`; without the biases, where all are added later."""
    assert run.change is not None
    rows = x[run.start : run.stop]
    for module, path, strip in zip(modules, paths, strips, strict=True):
        changed = run.change.modules.get(path)
        weight = module.weight if changed is None or changed.weight is None else changed.weight
        bias = None if biased or module.bias is None else module.bias.to(x.dtype)
        strip.copy_(functional.linear(rows, weight.to(x.dtype), bias))


def _add_updates(runs: Sequence[Run], paths: Sequence[str], x: Tensor, strips: Sequence[Tensor]) -> None:
    """Adds to the maps' answers (T, O) to x (T, I) what each task adds to its rows, with products in float32."""
    of_runs = [[] if run.change is None else _updated(run.change, paths) for run in runs]
    touched = sorted({i for of_run in of_runs for i, _ in of_run})
    if not touched:
        return
    # Thin products in bfloat16 would take three times as long; dtypes change for all rows at once.
    sizes, is_float32 = [run.stop - run.start for run in runs], x.dtype == torch.float32
    totals = {i: strips[i] if is_float32 else torch.zeros(strips[i].shape, device=x.device) for i in touched}
    parts = {i: total.split(sizes) for i, total in totals.items()}
    for number, (of_run, rows) in enumerate(zip(of_runs, x.float().split(sizes), strict=True)):
        updates = [(i, changed.low_rank) for i, changed in of_run if changed.low_rank is not None]
        # One product with all of the task's A, and one with each B.
        if updates:
            all_a = [update.a for _, update in updates]
            inner = rows @ (all_a[0] if len(all_a) == 1 else torch.cat(all_a)).t()
            for (i, update), of_map in zip(updates, inner.split([len(a) for a in all_a], 1), strict=True):
                parts[i][number].addmm_(of_map, update.b.t(), alpha=update.scale)
        for i, changed in of_run:
            if changed.entries is not None:
                at, columns, values = changed.entries
                parts[i][number].index_add_(1, at, rows.index_select(1, columns) * values)
    if not is_float32:
        for i, total in totals.items():
            strips[i].add_(total)


def _updated(change: TaskChange, paths: Sequence[str]) -> list[tuple[int, ModuleChange]]:
    """What the task adds to answers of the maps at `paths`, with the number of the map."""
    found = ((i, change.modules[path]) for i, path in enumerate(paths) if path in change.modules)
    return [(i, changed) for i, changed in found if changed.low_rank is not None or changed.entries is not None]


def _with_entries(y: Tensor, ids: Tensor, entries: Entries) -> Tensor:
    """`y` (T, H), looked up for `ids`, with the changed elements of their rows of the table."""
    first = torch.searchsorted(entries.rows, ids)
    counts = torch.searchsorted(entries.rows, ids, right=True) - first
    tokens = torch.arange(len(ids), device=ids.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    at = torch.arange(len(tokens), device=ids.device) + (first - before)[tokens]
    return y.index_put((tokens, entries.columns[at]), entries.values[at].to(y.dtype))
