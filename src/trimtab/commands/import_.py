"""Subcommand import: an adapter of peft as a run."""

from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderOption, Json
from .output import print_json, say


def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="An adapter of peft: LN_TUNING or LORA, of a classifier.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The new run's folder.")],
    encoder: EncoderOption = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes in the order of the outputs: a,b,c; default: the base's.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="single_label, multi_label or regression.")] = None,
    text: Annotated[str | None, typer.Option(help="Text column, or two of a pair: a,b; default: text.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens a text is cut to; default: what the encoder reads.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring an adapter of peft in as a run."""
    from ..exports.peft_import import import_peft

    run = import_peft(folder, out, encoder, labels=labels, kind=kind, text=text, max_length=max_length)
    from ..changes.delta_header import header_of

    described = header_of(run)
    classes = described["task"]["classes"]
    say(f"written to {run}: {described['method']}, {', '.join(classes) if classes else 'a number'}")
    print_json({"out": str(run), "method": described["method"], "classes": classes}, as_json)
