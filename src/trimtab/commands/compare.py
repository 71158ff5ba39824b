"""Subcommand compare: which of several methods to take."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import NOTHING, EncoderName, Jobs, Json, OriginOptions, ReadingOptions, SettingsOptions, TaskNames
from .output import check_ending, check_jobs, print_json, say, say_rows, share_machine


def compare(
    encoder: EncoderName,
    tasks: TaskNames,
    # What is compared: every method on every task with each of the seeds 0, 1, ...
    method: Annotated[list[str] | None, typer.Option(help="A method; repeat for more.")] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each method on each task.")] = 3,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared to; default: the first method.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Also the largest class, a bag of words and frozen vectors.")] = True,
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    # What is kept of it.
    out: Annotated[Path, typer.Option(help="Where the cells live; a study that was stopped goes on.")] = Path(
        "runs/compare"
    ),
    report: Annotated[
        Path | None, typer.Option(help="A page (.html) or tables (.md); default: OUT/methods.html.")
    ] = None,
    forgetting: Annotated[
        str | None,
        typer.Option(metavar="TEXTS", help="Also tell what is kept of the encoder on these: a file, a task, helpdesk."),
    ] = None,
    jobs: Jobs = 1,
    # The same for all methods; learning rates and epochs that are not given are each method's own.
    settings: SettingsOptions = NOTHING,
    as_json: Json = False,
) -> None:
    """Fit several methods on one or more tasks with several seeds, and say which to take."""
    from ..changes.choices import check_names
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..studies.other_texts import texts_beside
    from ..tasks.read import read

    # Without a choice, the yardsticks and the three that are most often asked for; the first is the reference.
    chosen = method or ["full", "layer_norms", "biases", "lora", "head"]
    for each in (*chosen, *([] if reference is None else [reference])):
        check_names(each)
    settings_from(settings)
    check_ending(report, "--report", ".html", ".md")
    # Said before any task is read, and in the words of the option.
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least one fit of each method is needed")
    check_jobs(jobs)
    # All tasks are read before the first fit, so that a bad row in the last one is found at once.
    read_tasks = [read(name, **columns, **reading) for name in tasks]
    say_rows(read_tasks)
    if forgetting is not None:
        for each in read_tasks:
            texts_beside(forgetting, each, read_tasks)
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
    say(*limit_note(loaded, settings.get("max_length")))
    # Cells that are in `out` already are not computed again.
    found = compare_methods(
        loaded,
        read_tasks,
        methods,
        seeds,
        out=out,
        jobs=jobs,
        progress=True,
        reference=reference,
        baselines=baselines,
        forgetting=forgetting,
        **settings,
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
