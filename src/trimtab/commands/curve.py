"""Subcommand curve: what more labels would bring."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import NOTHING, EncoderName, Jobs, Json, OriginOptions, ReadingOptions, SettingsOptions, TaskName
from .output import check_ending, check_jobs, print_json, say, say_rows, share_machine


def curve(
    encoder: EncoderName,
    task: TaskName,
    method: Annotated[list[str] | None, typer.Option(help="A method; repeat for more. Default: layer_norms.")] = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws of each size; default: 5 up to 128 rows a class, 3 behind.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Also the largest class, a bag of words and frozen vectors.")] = True,
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the cells live; a study that was stopped goes on. Default runs/TASK-curve."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A page (.html) or a table (.md); default: OUT/curve.html.")
    ] = None,
    jobs: Jobs = 1,
    settings: SettingsOptions = NOTHING,
    as_json: Json = False,
) -> None:
    """Fit methods on 8, 16, 32, ... rows of each class, and say what up to 8 times as many labels would bring."""
    from ..changes.choices import check_names
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..tasks.read import read
    from ..training.fit_recipe import folder_name

    chosen = method or ["layer_norms"]
    for each in chosen:
        check_names(each)
    settings_from(settings)
    check_ending(report, "--report", ".html", ".md")
    if draws is not None and draws < 1:
        raise InputError(f"--draws {draws}: at least 1")
    check_jobs(jobs)
    read_task = read(task, **columns, **reading)
    say_rows([read_task])
    out = out or Path("runs") / folder_name(read_task.name, "curve")
    place = find_place(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    check_writable(out)
    if report is not None:
        check_writable(report.parent, "--report")
    from ..changes.method_text import methods_of
    from ..encoders.encoder import limit_note, load
    from ..studies.curve import curve as curve_of

    methods, loaded = methods_of(chosen), load(place)
    share_machine()
    say(*limit_note(loaded, settings.get("max_length")))
    found = curve_of(
        loaded, read_task, methods, draws=draws, baselines=baselines, out=out, jobs=jobs, progress=True, **settings
    )
    whys = [f"{each}: {why}" for each, why in found.refused.items() if each in chosen]
    if whys and all(each.is_baseline for each in found.curves):
        raise InputError(f"no method could be used, so there is no curve: {'; '.join(whys)}")
    if not as_json:
        print(found.markdown(), end="")
    page = found.report(report or out / "curve.html")
    say(f"written to {page}")
    print_json(found.as_json() | {"report": str(page)}, as_json)
