"""More epochs for a finished run: it starts from itself, with its own recipe and rows, and its record shows both parts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..changes.delta_header import TENSORS, header_of
from ..encoders.places import find_base
from ..errors import InputError
from ..results.model_card import model_card
from ..results.recipe import Recipe
from ..results.record import read_run_folder, write_record
from ..results.run_folder import CHECKPOINT, RECIPE, check_folder, move_run, settle, taking_place
from ..tasks.read import read_again
from .fit import fit
from .ranks import started
from .run import Run

_MAKING = ".more"  # in the run's folder: the run of the added epochs, until it takes the place of the other


def more_epochs(
    run: str | Path, epochs: int, out: str | Path | None = None,
    *, resume: bool = False, overwrite: bool = False, progress: bool = False,
) -> Run:  # fmt: skip
    """The Run in the folder `run` after so many more epochs, in its place in one move, or in `out`.

    The order of its rows goes on where the run has ended, so that no epoch is a repetition. Where no new step is better, the
    values stay. An interrupted one lies in `run`/.more (or in `out`), to be resumed, and the run is as it was. Raises InputError
    where the run is not finished, its rows or its encoder are not what they were, or torchrun has started several processes.
    """
    if started() > 1:  # each would move the run
        raise InputError("more epochs are trained by one process: start it without torchrun")
    folder = Path(run)
    settle(folder)
    described = header_of(run)
    if (folder / CHECKPOINT).exists():
        raise InputError(f"the run in {folder} is unfinished: go on with it first (--resume)")
    if out is None:
        check_folder(folder, resume=False, overwrite=True, probe=False)
    earlier, history = _record(folder)
    if earlier["steps"] == 1 and earlier["method"] == "head":
        raise InputError(f"the run in {folder} is a linear probe, which is solved for: more epochs change nothing")
    recipe = Recipe.load(folder / RECIPE)
    if not recipe.task:
        raise InputError(
            f"the rows of the run in {folder} were a table in memory: fit on them with start_from={str(folder)!r}"
        )
    task = read_again(recipe)
    if task.validation.sha256() != described["task"]["validation_sha256"]:
        raise InputError(
            f"the rows of {recipe.task} have changed since the run: give them as a new table (--start-from {folder})"
        )
    target = folder / _MAKING if out is None else Path(out)
    # Trained, but killed before it took the run's place: its record may be half joined, so it is made anew.
    if out is None and (target / TENSORS).exists() and not (target / CHECKPOINT).exists():
        resume, overwrite = False, True
    made = fit(
        find_base(described["base"]), task, recipe.method,
        start_from=folder, out=target, resume=resume, overwrite=overwrite, progress=progress,
        **asdict(replace(recipe.settings, epochs=epochs, first_epoch=_first_epoch(target, resume, earlier, history))),
    )  # fmt: skip
    if made.stopped == "interrupted":
        return made
    name = folder.resolve().name if out is None else target.resolve().name
    joined = _joined(made, earlier, history, name)
    write_record(target, joined.details, joined.history, model_card(joined.details, joined.delta))
    if out is not None:
        return replace(joined, folder=target)
    replace(recipe, more_epochs=(*recipe.more_epochs, epochs)).save(target / RECIPE)
    with taking_place(folder, overwrite=True):
        move_run(target, folder)
    shutil.rmtree(target, ignore_errors=True)
    return replace(joined, folder=folder)


def _record(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What scores.json and history.jsonl of a run say; raises InputError where they cannot be read."""
    try:
        found = read_run_folder(folder)
    except InputError as error:
        raise InputError(
            f"cannot read the record of the run in {folder} ({error}): fit with --start-from instead"
        ) from error
    return found.scores, found.history


def _first_epoch(target: Path, resume: bool, earlier: Mapping[str, Any], history: list[dict[str, Any]]) -> int:
    """Which order of rows the added epochs begin with: the next one, or as those in `target` began that are resumed."""
    if resume and (target / RECIPE).exists():  # an older version began with the first order again
        return Recipe.load(target / RECIPE).settings.first_epoch
    return _epochs_done(earlier, history)


def _epochs_done(earlier: Mapping[str, Any], history: list[dict[str, Any]]) -> int:
    """How many epochs a run has begun, all its parts together; of an older one, whose record does not say, by its history."""
    return earlier.get("epochs_done") or math.ceil(history[-1]["epoch"] - 1e-6)  # which may be a sum of parts


def _joined(made: Run, earlier: Mapping[str, Any], history: list[dict[str, Any]], name: str) -> Run:
    """`made` with the run before it as its first part: steps, epochs and seconds count on, the baseline is the earlier one's."""
    last = history[-1]
    # The score before the added epochs is that of the values that were kept, which the history has already.
    added = [
        entry
        | {
            "step": entry["step"] + earlier["steps"],
            "epoch": entry["epoch"] + last["epoch"],
            "seconds": entry["seconds"] + earlier["seconds"],
        }
        for entry in made.history[1:]
    ]
    best = made.details["best_step"]
    details = dict(made.details) | {
        "run": name,
        "baseline": earlier["baseline"],
        "start": earlier["start"],
        "best_step": best + earlier["steps"] if best else earlier["best_step"],
        "steps": made.details["steps"] + earlier["steps"],
        "seconds": made.seconds + earlier["seconds"],
    }
    return replace(
        made,
        name=name,
        baseline=earlier["baseline"],
        history=[*history, *added],
        seconds=details["seconds"],
        details=details,
    )
