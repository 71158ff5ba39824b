"""Stop and resume, bit for bit: the state of a run in one file of tensors with JSON in its header."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..files import BAD_TENSORS, open_tensors, write_tensors
from .run_folder import CHECKPOINT

_HASHED = {  # fields of an identity that say nothing to a person
    "data": "other training or validation rows", "encoder": "other weights", "configuration": "another config.json",
}  # fmt: skip
GROUPS = ("value", "moment", "best", "position")


@dataclass
class Progress:
    """How far a run is. Data order and dropout depend on the seed and the step alone, so no generator state is needed."""

    step: int = 0  # optimizer steps done
    compute: str = ""  # "float32" or "bfloat16", as the run began
    tokens_per_batch: int = 0  # as the run began
    threads: int = 0  # that compute, as the run began
    loss_sum: float = 0.0  # of training rows since the last validation
    loss_rows: int = 0
    rows: int = 0  # training rows seen
    step_seconds: float = 0.0  # spent in optimizer steps
    seconds: float = 0.0  # of the whole run, over all sittings
    best_step: int = 0
    since_best: int = 0  # validations since the best
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry per validation

    def count_losses(self, loss_sum: float, rows: int, seconds: float) -> None:
        """Counts `rows` training rows whose losses sum to `loss_sum`, and seconds spent in steps."""
        self.loss_sum += loss_sum
        self.loss_rows += rows
        self.rows += rows
        self.step_seconds += seconds

    def taken_loss(self) -> float | None:
        """The mean training loss since the last call; None where there was no step since."""
        mean = self.loss_sum / self.loss_rows if self.loss_rows else None
        self.loss_sum, self.loss_rows = 0.0, 0
        return mean


def save_checkpoint(
    folder: Path, identity: str, progress: Progress, groups: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Writes the checkpoint of the run that `identity` names into `folder`, whole or not at all.

    `groups` are those of GROUPS: values, their moments, the best values so far, and the positions of values that are part
    of a parameter, by parameter name.
    """
    tensors = {f"{group}:{name}": t.contiguous().cpu() for group, named in groups.items() for name, t in named.items()}
    header = {"identity": identity, "progress": json.dumps(vars(progress))}
    write_tensors(folder / CHECKPOINT, tensors, header)


def load_checkpoint(folder: Path, identity: str) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """The progress and the tensors by group saved in `folder`, or None where there are none.

    Raises InputError when the checkpoint is damaged, or was made by a run with other data, settings or encoder.
    """
    path = folder / CHECKPOINT
    try:
        path.open("rb").close()  # safetensors says of a file that may not be read that there is none
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Give yourself the right to read it.") from error
    try:
        with open_tensors(path, "pt") as file:
            header, stored, tensors = file.header, file.described("progress"), file.tensors()
        is_own = {*stored} == {one.name for one in fields(Progress)}
        progress = Progress(**stored) if is_own else None
    except BAD_TENSORS as error:
        raise InputError(f"{path} is damaged ({error}): delete it to start the run anew") from error
    if progress is None:
        raise InputError(
            f"{path} is of another version of trimtab: resume with that, or delete it to start the run anew"
        )
    if header.get("identity") != identity:
        raise InputError(
            f"{path} belongs to a run with {_difference(header.get('identity', ''), identity)}: "
            "resume with the same recipe, or choose another --out"
        )
    grouped: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    for key, tensor in tensors.items():
        group, _, name = key.partition(":")
        grouped[group][name] = tensor
    return progress, grouped


def chosen_in(folder: Path) -> dict[str, np.ndarray | None] | None:
    """The elements that the run of the checkpoint in `folder` trains, as a Selection has them, whichever run that is.

    None where there is no checkpoint that can be read, of which `load_checkpoint` says more.
    """
    try:
        with open_tensors(folder / CHECKPOINT) as file:
            at = file.tensors(key for key in file.names if key.startswith("position:"))
            values = [key.removeprefix("value:") for key in file.names if key.startswith("value:")]
            return {name: at.get(f"position:{name}") for name in values}
    except (OSError, *BAD_TENSORS):
        return None


def _difference(old: str, new: str) -> str:
    """The first fields in which two identities (JSON objects) differ, in words."""
    try:
        before, now = json.loads(old), json.loads(new)
    except ValueError:
        return "another identity"
    changed = [key for key in now if before.get(key) != now[key]]
    said = [_HASHED.get(key) or f"{key}={before.get(key)!r} (now {now[key]!r})" for key in changed]
    return ", ".join(said[:3]) or "other fields"
