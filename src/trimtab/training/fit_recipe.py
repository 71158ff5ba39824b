"""Run a recipe: read its task, load its encoder, fit."""

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..changes.choices import check_names
from ..changes.delta_header import header_of
from ..encoders.places import find_place
from ..errors import InputError
from ..results.recipe import Recipe
from ..results.run_folder import check_folder
from ..tasks.read import read_again
from .asked import with_rule

# Not before all else is known to be right: it takes seconds to import.
if TYPE_CHECKING:
    from .run import Run

_LONGEST = 200  # bytes of a folder's name


def fit_recipe(
    recipe: Recipe,
    out: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> "Run":
    """The Run that `recipe` describes, in the folder `out` (default: runs/TASK-METHOD).

    Held-out validation rows do not depend on the recipe's seed, so that runs with several seeds are judged on the same.
    Raises InputError as `read`, `load` and `fit` do.
    """
    if not recipe.task:
        raise InputError('the recipe names no task: add a line like task = "reviews.csv"')
    # What is wrong with names, rows or places is found before torch is imported and the weights are loaded.
    check_names(recipe.method)
    task = read_again(recipe)
    with_rule(task, recipe.settings)
    folder = out or Path("runs") / folder_name(task.name, recipe.method)
    check_folder(folder, resume=resume, overwrite=overwrite, probe=False)
    if recipe.start_from:
        header_of(recipe.start_from)
    place = find_place(recipe.encoder, recipe.revision)

    from ..changes.method_text import parse_method
    from ..encoders.encoder import load
    from .fit import fit
    from .more_epochs import more_epochs

    method, encoder = parse_method(recipe.method), load(place)
    # Some may still be None: the fit fills in the method's defaults, which depend on the encoder and the rows.
    settings = asdict(recipe.settings)
    run = fit(
        encoder, task, method, start_from=recipe.start_from, out=folder, resume=resume, overwrite=overwrite, progress=progress,
        **settings,
    )  # fmt: skip
    for epochs in recipe.more_epochs:
        if run.stopped != "interrupted":
            run = more_epochs(folder, epochs, progress=progress)
    return run


def folder_name(task: str, method: str) -> str:
    """A name for the run of a method on a task that every file system takes."""
    # A method's text has colons and commas, which some refuse.
    name = re.sub(r"[^\w.-]+", "-", f"{task}-{method}")
    if len(name.encode()) <= _LONGEST:
        return name
    # None takes more than 255 bytes, and a letter has up to four; behind the cut a hash of the whole keeps names apart.
    return f"{name[: _LONGEST // 4]}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
