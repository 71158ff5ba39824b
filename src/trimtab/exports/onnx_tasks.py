"""Many tasks of one encoder on a device: one graph that reads what differs between them, and a small file for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..changes.delta_header import header_of
from ..encoders.places import find_base
from ..errors import InputError, shortened
from ..results.run_folder import ONNX
from .guard import check_free, new_folder
from .onnx_folder import (
    TASKS,
    about_folder,
    about_task,
    check_equal,
    check_installed,
    check_options,
    finish_folder,
    inputs_read,
    program_of,
    rows_to_score,
    write_folder,
)

if TYPE_CHECKING:
    from ..changes.delta import Delta
    from ..encoders.encoder import Encoder

_FEW = 3  # rows that tasks behind the first are compared on
_LABELS = "labels.json"  # of a task, in its file


def export_tasks(
    runs: Mapping[str, str | Path], to: str, out: str | Path | None, encoder: Encoder | str | Path | None,
    options: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Writes the runs, by the names of their tasks, as one graph into the new folder `out`, and returns it.

    Raises InputError as `export` does, and for runs that cannot share a graph: of other encoders or heads, or whose methods
    change matrices of the encoder.
    """
    if to != ONNX:
        raise InputError(
            f"--to {to} has a place for one run: export each by itself, or all as one graph with --to onnx"
        )
    if out is None:
        raise InputError("several runs need a folder of their own: give --out FOLDER")
    check_installed()
    check_options(options)
    if options.get("data") is not None:
        raise InputError("--data is the rows of one task: several are scored each on its own held-out rows")
    described = _described(runs)
    folder = Path(out)
    check_free(folder)
    chosen = {}
    if options.get("int8") is not None:
        chosen = {name: rows_to_score(each, Path(runs[name]), options) for name, each in described.items()}
    first = next(iter(described.values()))
    wanted = find_base(first["base"], encoder) if encoder is None or isinstance(encoder, str | Path) else encoder

    from ..changes.delta import Delta
    from ..encoders.encoder import quiet
    from ..inference.predictor import base_encoder

    deltas = {name: Delta.load(run) for name, run in runs.items()}
    base = base_encoder(next(iter(deltas.values())), wanted)
    with new_folder(folder) as temporary, quiet():
        _write(
            temporary, base, deltas, options, {n: (deltas[n], each) for n, each in chosen.items() if each is not None}
        )
    return folder


def _described(runs: Mapping[str, str | Path]) -> dict[str, dict[str, Any]]:
    """The headers of the runs' deltas; raises InputError where two cannot share a graph."""
    for name in runs:
        if not name.strip() or not name.isprintable() or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
            raise InputError(f"{name!r:.80} cannot be the name of a task, which is that of a file: write NAME=RUN")
    found = {name: header_of(run) for name, run in runs.items()}
    first, *others = found
    for name, each in found.items():
        if each.get("additions") or each.get("loras"):
            raise InputError(
                f"task {name!r} was trained with {each['method']}, which adds to matrices of the encoder: it cannot share a "
                "graph; export it by itself, or fit it with layer_norms or biases"
            )
    for name in others:
        for what, ours, theirs in (
            ("encoder", found[first]["base"]["sha256"], found[name]["base"]["sha256"]),
            ("head", found[first]["head"], found[name]["head"]),
            ("reading of pairs", found[first].get("pairs"), found[name].get("pairs")),
        ):
            if ours != theirs:
                raise InputError(
                    f"tasks {first!r} and {name!r} cannot share a graph, since each has another {what} ({ours!s:.12} and "
                    f"{theirs!s:.12}): export them by themselves"
                )
    return found


def _write(
    folder: Path, base: Encoder, deltas: Mapping[str, Delta], options: Mapping[str, Any], chosen: Mapping[str, Any]
) -> None:
    """The graph, a file for each task, and all that a folder of one task has too."""
    import numpy as np

    from .onnx_graph import graph_of

    # The task of the most classes is traced: a dimension of one would be taken for a constant.
    model = max(deltas.values(), key=lambda delta: len(delta.task["classes"])).merged(base)
    names = list(dict.fromkeys(name for delta in deltas.values() for name in delta.values))
    _check_small(model, names, deltas)
    graph = graph_of(model, inputs_read(base), {name: _dimensions(name, deltas) for name in names})
    about = about_folder(base, next(iter(deltas.values()))) | {"tasks": True}
    write_folder(folder, graph, base, about)
    (folder / TASKS).mkdir()
    read, first = None, next(iter(deltas))
    for name, delta in deltas.items():
        model = delta.merged(base)
        own = dict(model.named_parameters())
        text = json.dumps(about_task(delta), ensure_ascii=False).encode()
        values: dict[str, Any] = {_LABELS: np.frombuffer(text, np.uint8)}
        np.savez_compressed(
            folder / TASKS / f"{name}.npz", **values, **{each: own[each].detach().numpy() for each in names}
        )
        read = read or program_of(folder).Model(folder, name, threads=1)
        read.use(name)
        # Lengths are the graph's own business, and have been tried with the first of them.
        check_equal(read, model, base, delta, most=None if name == first else _FEW)
    finish_folder(folder, graph, about, deltas, options, chosen)


def _check_small(model: Any, names: Sequence[str], deltas: Mapping[str, Delta]) -> None:
    """Raises InputError where matrices of the encoder would have to be kept for each task."""
    own, backbone = dict(model.named_parameters()), f"{model.base_model_prefix}."
    new = model.new_parameters
    large = [name for name in names if name.startswith(backbone) and own[name].dim() > 1 and name not in new]
    if large:
        task = next(name for name, delta in deltas.items() if set(large) & delta.values.keys())
        raise InputError(
            f"task {task!r} was trained with {deltas[task].method}, which changes matrices of the encoder "
            f"({shortened(large, 1)}): it cannot share a graph; export it by itself, or fit it with layer_norms or biases"
        )


def _dimensions(name: str, deltas: Mapping[str, Delta]) -> tuple[int, ...]:
    """The dimensions of a parameter that differ between tasks, as those of a head do with the number of classes."""
    shapes = {
        tuple(delta.values[name].shape)
        for delta in deltas.values()
        if name in delta.values and name not in delta.positions
    }
    if len({len(shape) for shape in shapes}) > 1:
        raise InputError(
            f"the tasks have heads of other forms ({name}) and cannot share a graph: export them by themselves"
        )
    return tuple(i for i, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)
