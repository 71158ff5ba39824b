"""Subcommand export: a run in a form that other programs load."""

from pathlib import Path
from typing import Annotated

import typer

from .options import EncoderOption, Json, RunFolder
from .output import print_json, say


def export(
    run: RunFolder,
    to: Annotated[
        str,
        typer.Option(
            help="merged: a plain Hugging Face folder; sentence-transformers: a CrossEncoder, of runs of pairs; peft: an adapter."
        ),
    ] = "merged",
    out: Annotated[Path | None, typer.Option(help="Default: RUN/FORM.")] = None,
    encoder: EncoderOption = None,
    base_name: Annotated[
        str | None,
        typer.Option(help="peft: what the adapter names as its base, if not the encoder's hub id or folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run in a form that other programs load."""
    from ..changes.delta_header import header_of
    from ..exports.forms import export as export_run
    from ..tasks.task import Task

    # What is wrong with `to`, the run or `out` is told there before torch is imported.
    options = {name: value for name, value in {"base_name": base_name}.items() if value is not None}
    folder = export_run(run, to, out, encoder, **options)
    say(f"written to {folder}")
    if line := Task.from_description(header_of(run)["task"]).decision_rule.line():
        say(f"{line} The folder does not know of it: apply it to the probabilities that it predicts")
    print_json({"out": str(folder)}, as_json)
