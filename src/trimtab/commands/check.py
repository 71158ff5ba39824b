"""Subcommand check: whether the data is sound, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from .options import NOTHING, Json, OriginOptions, ReadingOptions, TaskName
from .output import check_ending, print_json, say, share_machine


def check(
    task: TaskName,
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    encoder: Annotated[
        str | None, typer.Option(help="Also look for unlikely labels, by frozen vectors of this encoder.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens per text; longer ones are cut.")] = 256,
    out: Annotated[
        Path | None, typer.Option(help="A CSV of rows to look at; filled in, it is what --corrections takes.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="An HTML page of what was found.")] = None,
    as_json: Json = False,
) -> None:
    """Look for near twins, likely label errors, shortcuts and classes that are too small."""
    from ..encoders.places import find_place
    from ..files import check_writable, write_text
    from ..results.recipe import settings_from
    from ..studies.check import check as check_data
    from ..studies.check import check_free, write_corrections
    from ..tasks.read import read

    check_ending(out, "--out", ".csv")
    check_ending(page, "--page", ".html")
    settings_from({"max_length": max_length})
    for path, option in ((out, "--out"), (page, "--page")):
        if path is not None:
            check_free(path, option)
            check_writable(path.parent, option)
    place = None if encoder is None else find_place(encoder)
    # All rows are looked at, those that a fit would hold out too.
    found = read(task, **{"validation_share": 0, **columns, **reading})
    loaded = None
    if place is not None:  # torch takes seconds, and is not needed for the rest
        from ..encoders.encoder import load

        loaded = load(place)
        share_machine()
    result = check_data(found, loaded, max_length=max_length)
    if out is not None:
        write_corrections(result, out)
        say(f"rows to look at: {out}")
    if page is not None:
        write_text(page, result.page())
        say(f"page: {page}")
    if not as_json:
        print("\n".join(result.lines()))
    print_json(result.as_json(), as_json)
