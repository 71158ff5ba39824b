"""fit --ensemble K: a recipe with K seeds, and what their runs come to together."""

from __future__ import annotations

import shlex
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, counted
from .output import print_json, say, share_machine

if TYPE_CHECKING:
    from ..results.recipe import Recipe


def fit_ensemble(recipe: Recipe, count: int, out: Path | None, *, resume: bool, overwrite: bool, as_json: bool) -> None:
    """Fits `count` seeds from the recipe's own on, in OUT-seedN each, and says how far they differ and what they come to.

    With `resume` runs that are finished stay as they are. Raises InputError as a fit does, for all of them before the first.
    """
    from ..results.run_folder import check_folder
    from ..training.fit_recipe import fit_recipe, folder_name
    from ..training.ranks import started

    if started() > 1:
        raise InputError(
            "an ensemble is fitted by one process: start it without torchrun, or each seed by itself (--seed)"
        )
    if not recipe.task:
        raise InputError('the recipe names no task: add a line like task = "reviews.csv"')
    base = out or Path("runs") / folder_name(Path(recipe.task).stem, recipe.method)
    seeds = range(recipe.settings.seed, recipe.settings.seed + count)
    folders = [base.parent / f"{base.name or 'run'}-seed{seed}" for seed in seeds]
    todo = [
        (seed, folder) for seed, folder in zip(seeds, folders, strict=True) if not (resume and _is_finished(folder))
    ]
    for _, folder in todo:
        check_folder(folder, resume=resume, overwrite=overwrite, probe=False)
    share_machine()
    for seed, folder in todo:
        say(f"seed {seed} ({seed - seeds[0] + 1} of {count}): {folder}")
        own = replace(recipe, settings=replace(recipe.settings, seed=seed))
        run = fit_recipe(own, folder, resume=resume, overwrite=overwrite, progress=True)
        if run.stopped == "interrupted":
            say("to go on: the same command with --resume")
            raise typer.Exit(130)
    _say_together(recipe, seeds, folders, as_json)


def _is_finished(folder: Path) -> bool:
    from ..changes.delta_header import TENSORS
    from ..results.run_folder import CHECKPOINT, SCORES

    return (folder / SCORES).exists() and (folder / TENSORS).exists() and not (folder / CHECKPOINT).exists()


def _say_together(recipe: Recipe, seeds: range, folders: list[Path], as_json: bool) -> None:
    """Says the main score of each run, their spread, and that of their mean probabilities on the validation rows."""
    from ..inference.predictor import Predictor
    from ..pages.run_page import report, shown
    from ..results.record import read_run_folder
    from ..tasks.metrics import figure, interval_text, named
    from ..tasks.read import read_again

    for folder in folders:
        report(folder)
    task = read_again(recipe)
    each = [read_run_folder(folder).scores["scores"] for folder in folders]
    together, interval, _ = Predictor([*folders]).scored(task.validation)
    metric = task.metric
    own = [scores[metric] for scores in each]
    mean, deviation = statistics.fmean(own), statistics.stdev(own)
    runs = " ".join(shlex.quote(shown(folder)) for folder in folders)
    scores = ", ".join(map(figure, own))
    say(
        f"{counted(len(folders), 'run')}, seeds {seeds[0]} to {seeds[-1]}: validation {named(metric, task.positive)} "
        f"{figure(mean)} each (standard deviation {figure(deviation)}; {scores}), {figure(together[metric])} together "
        f"({interval_text(interval)})",
        "use it:",
        f"  trimtab predict {runs} --text '...'",
    )
    found: dict[str, Any] = {
        "runs": [str(folder) for folder in folders], "seeds": list(seeds), "metric": metric, "each": own, "mean": mean,
        "standard_deviation": deviation, "scores": together, "interval": interval,
    }  # fmt: skip
    print_json(found, as_json)
