"""Subcommands that answer what an encoder is made of and which method to take."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .options import (
    NOTHING,
    BatchSize,
    Compute,
    EncoderName,
    Epochs,
    HeadKind,
    HeadRate,
    HeadStart,
    Json,
    Kind,
    Label,
    MaxLength,
    Metric,
    Pairs,
    Rate,
    Reading,
    TaskName,
    TaskNames,
    Text,
    TrainLimit,
    check_ending,
    print_json,
    reads_tables,
    say,
    share_machine,
)

if TYPE_CHECKING:
    from ..tasks.task import Task


def inspect(
    encoder: EncoderName,
    head: Annotated[str, typer.Option(help="auto, default, linear or cls.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show layers x kinds with element counts, and what each method would train."""
    # In each subcommand imports wait until it is called: torch takes seconds, and --help should not. What it calls is imported
    # under another name, since its own name is the subcommand's.
    from ..encoders.places import find_place
    from ..results.recipe import settings_from

    settings_from({"head": head})
    place = find_place(encoder)
    from ..changes.inspect import inspect as inspect_encoder
    from ..encoders.encoder import load
    from ..terminal import inspection_tables

    # The weights are needed: a checkpoint may lack parameters, which then are the head's.
    found = inspect_encoder(load(place), head)
    if not as_json:
        inspection_tables(found)
    print_json(found.as_json(), as_json)


@reads_tables()
def recommend(
    encoder: EncoderName,
    task: TaskName,
    budget: Annotated[
        str, typer.Option(help="Elements of the encoder (5000), a share of them (0.05%), or bytes of delta (20KB).")
    ],
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    reading: Reading = NOTHING,
    # How large the trials are.
    rows: Annotated[int, typer.Option(help="Training rows of a trial; half as many others judge it.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Fits of each of the three best candidates.")] = 3,
    # How each trial is trained, and then the proposal; rates are each method's own.
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    head: HeadKind = None,
    head_start: HeadStart = None,
    pairs: Pairs = None,
    compute: Compute = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the trials live and recommended.toml goes; default runs/TASK-recommend.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose what to train within a budget, from trials on some training rows, and why."""
    given = dict(locals())  # before anything else is local
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..studies.budget import Budget
    from ..tasks.read import read
    from ..training.fit_recipe import folder_name

    settings_from(_settings(given))
    Budget.parse(budget, n_body=sys.maxsize)  # how it is written; how much it is, once the encoder is known
    read_task = read(task, text=text, label=label, kind=kind, metric=metric, **reading)
    _tell([read_task])
    # Always a folder, where the Python function would do without: a recommendation that was stopped goes on from its trials.
    out = out or Path("runs") / folder_name(read_task.name, "recommend")
    place = find_place(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    check_writable(out)
    from ..changes.method_text import method_text
    from ..encoders.encoder import limit_note, load
    from ..studies.recommend import recommend as recommend_method
    from ..terminal import trials_table

    loaded = load(place)
    share_machine()
    say(*limit_note(loaded, max_length))
    found = recommend_method(
        loaded, read_task, budget, rows=rows, seeds=seeds, out=out, progress=True, **_settings(given)
    )
    # A recipe and not only a name, so that fitting it repeats the settings that were tried.
    recipe = out / "recommended.toml"  # and not recipe.toml, which may be there: a run's, or somebody's own
    found.recipe.save(recipe)
    if not as_json:
        # The trials first, then the proposal and the three sentences that it rests on.
        trials_table(found)
        print(f"\n{method_text(found.method)}\n")
        for sentence in (*found.reasons, *found.notes):
            print(sentence)
    say(f"to fit it: trimtab fit {shlex.quote(str(recipe))}")
    print_json(found.as_json() | {"recipe": str(recipe)}, as_json)


@reads_tables()
def compare(
    encoder: EncoderName,
    tasks: TaskNames,
    # What is compared: every method on every task with each of the seeds 0, 1, ...
    method: Annotated[list[str] | None, typer.Option(help="A method; repeat for more.")] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each method on each task.")] = 3,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared to; default: the first method.")
    ] = None,
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    reading: Reading = NOTHING,
    # What is kept of it.
    out: Annotated[Path, typer.Option(help="Where the cells live; a study that was stopped goes on.")] = Path(
        "runs/compare"
    ),
    report: Annotated[
        Path | None, typer.Option(help="A page (.html) or tables (.md); default: OUT/methods.html.")
    ] = None,
    # The same for all methods; rates and epochs that are not given are each method's own.
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    head_lr: HeadRate = None,
    max_length: MaxLength = None,
    head: HeadKind = None,
    head_start: HeadStart = None,
    pairs: Pairs = None,
    train_limit: TrainLimit = None,
    compute: Compute = None,
    as_json: Json = False,
) -> None:
    """Fit several methods on one or more tasks with several seeds, and say which to take."""
    given = dict(locals())  # before anything else is local
    from ..changes.choices import check_names
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..tasks.read import read

    # Without a choice, the yardsticks and the three that are most often asked for; the first is the reference.
    chosen = method or ["full", "layer_norms", "biases", "lora", "head"]
    for each in (*chosen, *([] if reference is None else [reference])):
        check_names(each)
    settings_from(_settings(given))
    check_ending(report, "--report", ".html", ".md")
    # Said before any task is read, and in the words of the option.
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least one fit of each method is needed")
    # All tasks are read before the first fit, so that a bad row in the last one is found at once.
    read_tasks = [read(name, text=text, label=label, kind=kind, metric=metric, **reading) for name in tasks]
    _tell(read_tasks)
    place = find_place(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    check_writable(out)
    if report is not None:
        check_writable(report.parent, "--report")
    from ..changes.method_text import methods_of
    from ..encoders.encoder import limit_note, load
    from ..pages.comparison_page import markdown
    from ..studies.compare import compare as compare_methods

    methods, loaded = methods_of(chosen), load(place)
    share_machine()
    say(*limit_note(loaded, max_length))
    # Cells that are in `out` already are not computed again.
    found = compare_methods(
        loaded, read_tasks, methods, seeds, out=out, progress=True, reference=reference, **_settings(given)
    )
    if not any(cell.refused is None for cell in found.cells):
        whys = {f"{cell.method} on {cell.task}: {cell.refused}": None for cell in found.cells}
        raise InputError(f"no method could be used, so nothing is compared: {'; '.join(whys)}")
    # First what cannot fail; the page lies beside the cells, unless said otherwise.
    if not as_json:
        print(markdown(found), end="")
    page = found.report(report or out / "methods.html")
    say(f"written to {page}")
    print_json(found.as_json() | {"report": str(page)}, as_json)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Settings among a subcommand's options, where the user gave a value.

    Options and fields have the same names, so that a subcommand takes a new setting by naming it in its signature.
    """
    from ..results.recipe import Settings

    return {field.name: given[field.name] for field in fields(Settings) if given.get(field.name) is not None}


def _tell(tasks: "list[Task]") -> None:
    """Says what `fit` would say of the rows of each task: how many there are, what is odd about them, what was left out."""
    from ..tasks.data_report import survey

    say(*(line for task in tasks for line in survey(task).lines()))
