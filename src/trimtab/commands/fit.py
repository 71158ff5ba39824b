"""Subcommand fit: train a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .options import NOTHING, Given, Json, OriginOptions, ReadingOptions, SettingsOptions
from .output import is_first, print_json, say, share_machine

if TYPE_CHECKING:
    from ..training.run import Run

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended: 128 + 2, the number of SIGINT, as in shells


def fit(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder, a hub id; or a recipe.toml and no TASK.")],
    task: Annotated[str | None, typer.Argument(help="helpdesk, a file, a folder of splits, or a hub id.")] = None,
    columns: OriginOptions = NOTHING,
    method: Annotated[
        str | None, typer.Option(help="What to train: layer_norms, lora:rank=8, biases+head, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-METHOD.")] = None,
    settings: SettingsOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    start_from: Annotated[
        str | None, typer.Option(metavar="RUN", help="Begin at the values of this run, on more rows.")
    ] = None,
    more_epochs: Annotated[
        int | None, typer.Option(min=1, help="fit RUN --more-epochs N: a finished run goes on, by its own recipe.")
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(min=2, metavar="K", help="Fit K seeds, a run folder each: `predict` takes them together."),
    ] = None,
    # What to do with a run that is there already.
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train what a method chooses, keep the best, write a run folder with a report."""
    # All options by name, before anything else is local. Imports wait until here, so that --help is printed at once.
    given = dict(locals())
    from ..results.recipe import Recipe
    from ..results.run_folder import holds_run

    # It does not import torch: what is wrong with names, options or rows is told before that is waited for.
    from ..training.fit_recipe import fit_recipe

    _check_more(given)
    # A recipe names its encoder and task itself; a task beside it takes the place of its own.
    is_recipe = encoder.endswith(".toml")
    if not is_recipe and task is None and more_epochs is None:
        raise InputError(
            "give an encoder and a task (trimtab fit minilm helpdesk), or a recipe (trimtab fit mine.toml)"
        )
    # Defaults < file < flags: what the user did not give changes nothing.
    base = Recipe.load(Path(encoder)) if is_recipe else Recipe(encoder=encoder)
    method = _method_of(start_from, method, is_recipe)
    recipe = base.changed(
        task=task, start_from=start_from, method=method, **_with_names(columns), **reading, **settings
    )
    if is_recipe and resume and out is None and holds_run(Path(encoder).parent):
        out = Path(encoder).parent  # the recipe of a run lies in its folder; one written by hand lies anywhere
    if ensemble is not None:
        from .ensemble import fit_ensemble

        return fit_ensemble(recipe, ensemble, out, resume=resume, overwrite=overwrite, as_json=as_json)
    if is_first():
        say(f"reading {recipe.task}" if more_epochs is None else f"going on with the run in {encoder}")
    try:
        if more_epochs is not None:
            run = _gone_on(encoder, more_epochs, out, resume, overwrite)
        else:
            share_machine()
            run = fit_recipe(recipe, out, resume=resume, overwrite=overwrite, progress=True)
    # Before the first step, or at the second Ctrl-C; the first one ends the run below, with its best values.
    except KeyboardInterrupt:
        say("stopped at once; if there is a checkpoint, the same command with --resume goes on from it")
        raise
    if not is_first():
        return  # under torchrun one process writes and talks
    assert run.folder is not None
    _say_outcome(run, run.folder)
    print_json(run.as_json(), as_json)
    if run.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)  # or a script would go on as if the run were whole


def _say_outcome(run: "Run", folder: Path) -> None:
    """Draws the page of the finished run in `folder`, and says what came of it and how it is used."""
    from ..pages.run_page import report, use_lines
    from ..results.formatting import share
    from ..tasks.metrics import figure, interval_text, named

    # The page is drawn from the files that were written, like that of any other run.
    page = report(folder)
    # On stderr, so that stdout holds the JSON and nothing else.
    metric_name, details = run.details["metric"], run.details
    said = named(metric_name, details["task"]["positive"])
    before, after = run.baseline[metric_name], run.scores[metric_name]
    sure = interval_text(details["interval"])
    say(f"validation {said}: {figure(before)} with {details['start']}, {figure(after)} after training ({sure})")
    for note in run.notes:
        say(note)
    say(
        f"{run.delta.count_body:,} parameters of the encoder ({share(details['share'])}) and {run.delta.count_head:,} of the "
        f"head trained in {run.seconds:.0f} s; the delta takes {details['delta_bytes']:,} bytes in {folder}; page: {page}"
    )
    say(*use_lines(folder, details["task"]["text_columns"]))
    # The delta of an interrupted run is whole and can be used; its checkpoint is kept beside it.
    if run.stopped == "interrupted":
        say("to go on: the same command with --resume")


def _with_names(columns: Given) -> Given:
    """`columns` as a recipe has them: "a,b" is a pair, or one column of that name, which the reader will know."""
    return columns | ({"text": (columns["text"],)} if "text" in columns else {})


def _method_of(start_from: str | None, method: str | None, is_recipe: bool) -> str | None:
    """`method`, or that of the run to start from where neither it nor a recipe is given."""
    from ..changes.delta_header import header_of

    return header_of(start_from)["method"] if start_from and method is None and not is_recipe else method


def _gone_on(run: str, epochs: int, out: Path | None, resume: bool, overwrite: bool) -> "Run":
    """The finished run `run` after so many more epochs; raises InputError as `more_epochs` does."""
    from ..changes.delta_header import header_of
    from ..results.run_folder import settle

    settle(Path(run))
    header_of(run)  # before torch is imported
    from ..training.more_epochs import more_epochs

    share_machine()
    made = more_epochs(run, epochs, out, resume=resume, overwrite=overwrite, progress=True)
    if made.stopped == "interrupted":
        say(f"the run in {run} is as it was; what follows is said of the added epochs, in {made.folder}")
    return made


def _check_more(given: dict[str, Any]) -> None:
    """Raises InputError for options beside --more-epochs that the run's own recipe decides."""
    if given["more_epochs"] is None:
        return
    kept = ("encoder", "more_epochs", "out", "resume", "overwrite", "as_json")
    names: list[str] = []
    for name, value in given.items():
        if name in ("columns", "settings"):
            names += value
        elif name not in kept and value not in (None, False, {}):
            names.append(name)
    if names:
        words = {"task": "TASK", "reading": "options of the table"}
        named = ", ".join(words.get(name, "--" + name.replace("_", "-")) for name in names)
        raise InputError(
            f"--more-epochs goes on with a run by its own recipe: leave out {named} (--start-from RUN begins a new run at it)"
        )
