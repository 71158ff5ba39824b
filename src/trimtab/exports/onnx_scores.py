"""Which 8-bit form of a graph a task can bear: each is scored and timed beside float32, on rows that the run has not seen."""

# Shapes: N rows, C outputs.

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..tasks.metrics import METRICS, scores
from ..tasks.task import Rows, Task
from . import onnx_int8

if TYPE_CHECKING:
    from ..changes.delta import Delta
    from ..training.chosen_rows import ChosenRows

POINTS = 0.3  # of a hundred that an 8-bit form may lose
_TIMED = 200  # rows that forms are timed on, one after the other
_FLOAT = "float32"


@dataclass(frozen=True)
class Scored:
    """The rows that one task's forms are scored on."""

    name: str | None  # of the task in a folder of several
    task: Task
    split: str
    rows: Rows

    @classmethod
    def of(cls, name: str | None, delta: Delta, chosen: ChosenRows, most: int) -> Scored:
        """The first `most` rows of those chosen, with the run's own task, which has its decision rule."""
        rows = chosen.rows
        return cls(name, Task.from_description(delta.task), chosen.split, rows.take(range(min(most, len(rows)))))


@dataclass(frozen=True)
class FormScore:
    """One form: its size, the main score of each task and what it loses, and how long one text takes."""

    form: str
    megabytes: float
    scores: dict[str, float]  # by task
    lost: dict[str, float]  # points against float32; negative where it is better
    milliseconds: float | None  # of one thread for one text, the median; None where there are no rows

    @property
    def worst(self) -> float:
        """The points that it loses on the task that loses most; NaN where a score is undefined."""
        return max(self.lost.values(), key=lambda lost: math.inf if math.isnan(lost) else lost, default=math.nan)


@dataclass(frozen=True)
class Table:
    """All forms, and the one that is kept."""

    forms: list[FormScore]  # float32 first
    kept: str
    metrics: dict[str, str]  # by task
    rows: dict[str, int]
    processor: str
    vnni: bool | None  # whether it has instructions for products of 8-bit numbers; None where that is not known

    def as_json(self) -> dict[str, Any]:
        """As labels.json has it."""
        return asdict(self) | {"points": POINTS}


def settle_int8(folder: Path, graph: Any, form: str, tasks: Sequence[Scored]) -> Table:
    """Writes both 8-bit forms of `graph` into `folder`, scores them and float32, which lies there, and leaves one as model.onnx.

    That is `form`, or with "auto" the fastest that loses at most POINTS on every task. Raises InputError where none does.
    """
    from .onnx_folder import AUTO, GRAPH

    files = {_FLOAT: folder / GRAPH} | {name: folder / f"{name}.onnx" for name in onnx_int8.FORMS}
    for name, write in onnx_int8.FORMS.items():
        if form in (AUTO, name) or tasks:
            write(graph, files[name])
    files = {name: path for name, path in files.items() if path.exists()}
    found = _measured(folder, files, tasks)
    kept = form if form != AUTO else _chosen(found)
    files[kept].replace(folder / GRAPH)
    for path in files.values():
        if path != folder / GRAPH:
            path.unlink(missing_ok=True)
    name, vnni = processor()
    metrics, rows = {_name(e): e.task.metric for e in tasks}, {_name(e): len(e.rows) for e in tasks}
    return Table(found, kept, metrics, rows, name, vnni)


def _chosen(found: Sequence[FormScore]) -> str:
    """The fastest 8-bit form that loses at most POINTS; raises InputError where none does."""
    able = [each for each in found if each.form != _FLOAT and each.worst <= POINTS]  # which NaN is not
    if able:
        return min(able, key=lambda each: each.milliseconds or math.inf).form
    said = " and ".join(f"{each.form} {_worst_said(each)}" for each in found if each.form != _FLOAT)
    raise InputError(
        f"int8 is not for this task: of float32's score {said}, and {POINTS} may be lost. Export without --int8, or say which "
        "form you want all the same (--int8 dynamic or blocks)"
    )


def _worst_said(form: FormScore) -> str:
    """What it loses, with the task where there are several."""
    task = next(name for name, lost in form.lost.items() if lost == form.worst or math.isnan(lost))
    return f"loses {form.worst:.2f} points" + (f" on {task}" if len(form.lost) > 1 else "")


def _measured(folder: Path, files: Mapping[str, Path], tasks: Sequence[Scored]) -> list[FormScore]:
    """The FormScore of each file, by the folder's own program, on one thread."""
    from .onnx_folder import program_of

    program = program_of(folder)
    models = {name: program.Model(folder, e.name, 1, path.name) for e in tasks[:1] for name, path in files.items()}
    by_form: dict[str, dict[str, float]] = {name: {} for name in files}
    spent: dict[str, list[float]] = {name: [] for name in files}
    for each in tasks:
        for model in models.values() if each.name is not None else ():
            model.use(each.name)
        for name, value in _scores(models, each, spent).items():
            by_form[name][_name(each)] = value
    return [
        FormScore(
            name, round(path.stat().st_size / 1e6, 1), by_form[name],
            {task: _lost(value, by_form[_FLOAT][task], _metric(tasks, task)) for task, value in by_form[name].items()},
            round(1e3 * statistics.median(spent[name]), 2) if spent[name] else None,
        )
        for name, path in files.items()
    ]  # fmt: skip


def _scores(models: Mapping[str, Any], of: Scored, spent: Mapping[str, list[float]]) -> dict[str, float]:
    """The main score of each model; of the first rows the seconds of each are added to `spent`, all models in turn."""
    import numpy as np
    import torch

    from ..tasks.losses import label_tensor

    logits: dict[str, list[Any]] = {name: [] for name in models}
    for row in zip(*of.rows.texts, strict=True):
        for name, model in models.items():
            begun = time.thread_time()
            logits[name].append(model.logits(*row))
            if len(spent[name]) < _TIMED:
                spent[name].append(time.thread_time() - begun)
    labels = label_tensor(of.task, of.rows)
    metric = of.task.metric
    return {
        name: scores(of.task, torch.from_numpy(np.stack(each)), labels, metric)[metric] for name, each in logits.items()
    }


def _lost(value: float, full: float, metric: str) -> float:
    """Points that `value` is worse than the score `full`: hundredths, or where a metric has no end, per cent of `full`."""
    worse = (full - value) * (1 if METRICS[metric].higher_is_better else -1)
    unit = 1.0 if METRICS[metric].high is not None else abs(full)
    return round(100 * worse / unit, 3) if unit else math.nan


def _metric(tasks: Sequence[Scored], name: str) -> str:
    return next(each.task.metric for each in tasks if _name(each) == name)


def _name(of: Scored) -> str:
    return of.name or of.task.name


def processor() -> tuple[str, bool | None]:
    """The processor's name, and whether it multiplies 8-bit numbers (VNNI, or ARM's i8mm or dot products); None: not known."""
    name, flags = platform.processor() or platform.machine(), None
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return name, None if flags is None else bool(flags & {"avx512_vnni", "avx_vnni", "i8mm", "asimddp"})
