"""Subcommand inspect: what an encoder is made of."""

from typing import Annotated

import typer

from .options import EncoderName, Json
from .output import print_json


def inspect(
    encoder: EncoderName,
    head: Annotated[str, typer.Option(help="auto, default, linear or cls.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show the number of parameters by layer and kind, and what each method would train."""
    # In each subcommand imports wait until it is called: torch takes seconds, and --help should not. What it calls is imported
    # under another name, since its own name is the subcommand's.
    from ..encoders.places import find_place
    from ..results.recipe import settings_from

    settings_from({"head": head})
    place = find_place(encoder)
    from ..changes.inspect import inspect as inspect_encoder
    from ..encoders.encoder import load
    from .terminal import inspection_tables

    # The weights are needed: a checkpoint may lack parameters, which then are the head's.
    found = inspect_encoder(load(place), head)
    if not as_json:
        inspection_tables(found)
    print_json(found.as_json(), as_json)
