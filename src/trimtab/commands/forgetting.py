"""Subcommand forgetting: what a run has kept of its encoder."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import NOTHING, EncoderOption, Json, OriginOptions, RunFolder
from .output import print_json, share_machine


def forgetting(
    run: RunFolder,
    texts: Annotated[
        str | None,
        typer.Option(help="A file of other texts (.txt: one a line), or a task; default: the probe's, or helpdesk's."),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Text column(s) of the file, if named otherwise.")] = None,
    probe: Annotated[
        str | None, typer.Option(help="Another task, learned by a linear probe before and after; default: helpdesk.")
    ] = None,
    # Of the probe's task.
    origin: OriginOptions = NOTHING,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Show what a run has kept of the pretrained encoder, on other texts."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base
    from ..studies.other_texts import other_texts
    from ..tasks.read import read

    if origin and probe is None:
        raise InputError(f"--{', --'.join(origin)} name columns of a probe's task: give that too (--probe)")
    if columns is not None and texts is None:
        raise InputError("--columns names the texts in a file: give that too (--texts)")
    described = header_of(run)
    task = None if probe is None else read(probe, **origin)
    others = other_texts(described["task"], Path(run), texts, task, columns)
    place = find_base(described["base"], encoder)
    # Not before the texts are known to be right: torch takes seconds.
    from ..encoders.encoder import load
    from ..inference.predictor import delta_of
    from ..studies.forgetting import Yardstick
    from .terminal import forgetting_tables

    share_machine()
    found = Yardstick(load(place), others).of(delta_of(run))
    if not as_json:
        forgetting_tables(found)
    print_json(found.as_json(), as_json)
