"""A run that starts from another run: same encoder and method, more rows, other classes; begins at the values it ended with."""

# Shapes: C outputs, F features of the head's last map.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..changes.contract import Method
from ..changes.delta import Delta
from ..changes.method_text import method_text
from ..encoders.choices import AUTO, Compute
from ..encoders.encoder import Encoder
from ..encoders.heads import ModelWithHead, last_map
from ..errors import InputError
from ..files import absolute
from ..results.recipe import Settings
from ..tasks.data_report import rows_in
from ..tasks.label_parsing import in_quotes
from ..tasks.losses import TaskLoss
from ..tasks.task import Task
from .batches import Examples
from .chosen_rows import train_rows_of
from .head_choice import Form
from .head_start import probe_of
from .linear_probe import can_start, scale_rate
from .ranks import Ranks

NAMED = "the run it starts from"  # what the scores before training are those of
_ROWS_FOR_RATE = 1000  # that tell how large the features of the head are


@dataclass(frozen=True, eq=False)
class Start:
    """The run that another one starts from."""

    delta: Delta = field(repr=False)
    folder: Path | None  # where it lies; None for one in memory

    @property
    def elements(self) -> dict[str, np.ndarray | None]:
        """What it has trained, as a Selection has it."""
        at = self.delta.positions
        return {name: at[name].numpy().astype(np.int64) if name in at else None for name in self.delta.values}

    @property
    def place(self) -> str | None:
        """Its folder as a recipe names it, from whichever folder that is run."""
        return None if self.folder is None else absolute(str(self.folder))

    @property
    def named(self) -> str:
        """It, as messages name it."""
        return f"the run in {self.folder}" if self.folder is not None else "the run to start from"

    def as_json(self) -> dict[str, Any]:
        """What scores.json says of it."""
        return {"folder": self.place, "sha256": self.delta.sha256}

    def form(self, encoder: Encoder, task: Task, method: Method, settings: Settings) -> Form:
        """Its head and form of pairs.

        Raises InputError unless a run of `method` on `task` can start from it.
        """
        delta = self.delta
        delta.check_base(encoder)
        if method_text(method) != delta.method:
            raise InputError(
                f"{self.named} was trained by {delta.method}, and not by {method_text(method)}: a run that starts from it trains "
                f"the same parameters (--method {delta.method})"
            )
        for name, own in (("head", delta.head), ("pairs", delta.pairs)):
            asked = getattr(settings, name)
            if asked not in (AUTO, own):
                raise InputError(
                    f"{self.named} has {name}={own}, which a run that starts from it keeps: leave --{name} {asked} out"
                )
        self._check_task(task)
        return Form(delta.head, delta.pairs, f"head: {delta.head}, that of {NAMED}")

    def _check_task(self, task: Task) -> None:
        """Raises InputError where the predictions for `task` are of another kind than those that it gives."""
        own = self.delta.task
        if task.kind != own["kind"]:
            raise InputError(f"{self.named} is of a {own['kind']} task, and task {task.name!r} is {task.kind} (--kind)")
        if len(task.text_columns) != len(own["text_columns"]):
            raise InputError(
                f"{self.named} reads {len(own['text_columns'])} text(s) per row, and task {task.name!r} has "
                f"{len(task.text_columns)} (--text)"
            )
        if task.classes and not {*task.classes} & {*own["classes"]}:
            raise InputError(
                f"{self.named} knows the classes {in_quotes(own['classes'])}, and task {task.name!r} has none of them but "
                f"{in_quotes(task.classes)}: rename them, or fit without --start-from"
            )

    def write_into(
        self, model: ModelWithHead, task: Task, train: Examples, loss: TaskLoss, compute: Compute, settings: Settings,
        ranks: Ranks,
    ) -> None:  # fmt: skip
        """Puts its values into `model`, to which is added what the method adds; rows of the head go to classes of their name.

        The row of a new class is that of a linear probe of the model as it then is, as far as it differs from the mean of the
        other classes' rows; where the head has no probe, that mean.
        """
        own, classes = tuple(self.delta.task["classes"]), task.classes
        values = dict(self.delta.values)
        at = {name: i for i, name in enumerate(own)}
        rows = [at.get(name) for name in classes]
        if classes != own:
            found = last_map(model)
            paths = [] if found is None else [f"{found[0]}.{name}" for name, _ in found[1].named_parameters()]
            if not paths or any(len(values.get(path, ())) != len(own) for path in paths):
                raise InputError(
                    f"{self.named} has other classes than task {task.name!r}, and a head whose rows are alike: fit "
                    "without --start-from"
                )
            values |= {path: _moved(values[path], rows) for path in paths}
        replace(self.delta, values=values).write_into(model)
        if settings.head_start != "probe" or not can_start(model):
            return
        is_new = [row is None for row in rows]
        some = train if any(is_new) else train.subset(range(min(_ROWS_FOR_RATE, len(train))))
        probe = probe_of(model, some, loss, compute, settings, ranks)
        if probe is None:
            return
        scale_rate(model, probe)
        if any(is_new):
            _write_rows(model, torch.tensor(is_new), probe.weight, probe.bias)

    def lines(self, task: Task, settings: Settings) -> list[str]:
        """What is to be said of a run on `task` that starts from it."""
        own = self.delta.task["classes"]
        lines = [
            f"starts from {self.folder or 'a run in memory'} (delta {self.delta.sha256[:12]}), with a fresh warm-up and decay "
            f"over {settings.epochs} epoch{'' if settings.epochs == 1 else 's'}"
        ]
        new, gone = [name for name in task.classes if name not in own], [c for c in own if c not in task.classes]
        if new:
            lines.append(f"classes that {NAMED} does not know, which get new rows of the head: {in_quotes(new)}")
        if gone:
            lines.append(f"classes of {NAMED} that these rows do not have, which are dropped: {in_quotes(gone)}")
        return lines + self._seen(task)

    def _seen(self, task: Task) -> list[str]:
        """How many validation rows of `task` it was trained on; nothing where there are none."""
        if task.validation.sha256() == self.delta.task["validation_sha256"]:
            return []  # which it was not trained on
        trained_on = train_rows_of(self.delta.task, self.folder)
        if not len(trained_on):
            return [f"whether {NAMED} was trained on validation rows is not known: its own rows are not at hand"]
        n_seen = rows_in(task.validation, trained_on)
        if not n_seen:
            return []
        return [
            f"validation: {n_seen:,} of {len(task.validation):,} rows have a text that {NAMED} was trained on, so that the "
            "scores are too good: name rows that it has not seen (--validation FILE)"
        ]


def found_start(given: Any) -> Start:
    """The Start that `given` is: a Run, a Delta, or the folder of a run; raises InputError for anything else."""
    if isinstance(given, Delta):
        return Start(given, None)
    if isinstance(given, str | Path):
        return Start(Delta.load(given), Path(given))
    delta, folder = getattr(given, "delta", None), getattr(given, "folder", None)
    if not isinstance(delta, Delta):
        raise InputError(f"start_from={given!r} is no run: give a run's folder, a Run or a Delta")
    return Start(delta, folder)


def _moved(value: Tensor, rows: Sequence[int | None]) -> Tensor:
    """`value` (C, F) or (C,) with its rows at `rows`, and their mean where that is None."""
    kept = [row for row in rows if row is not None]
    mean = value[kept].mean(0)
    return torch.stack([mean if row is None else value[row] for row in rows])


@torch.no_grad()
def _write_rows(model: ModelWithHead, is_new: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Adds to the new rows of the head's last map, which are the mean of the others, what those of a probe have beside theirs."""
    found = last_map(model)
    assert found is not None
    for own, probed in ((found[1].weight, weight), (found[1].bias, bias)):
        if own is not None:
            beside = probed[is_new] - probed[~is_new].mean(0)
            own[is_new.to(own.device)] += beside.to(own)
