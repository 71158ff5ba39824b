"""Subcommand export: a run in a form that other programs load."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import EncoderOption, Json
from .output import print_json, say


def export(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A finished run; with --to onnx several, or NAME=RUN of each.")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="merged: a plain Hugging Face folder; sentence-transformers: a CrossEncoder, of runs of pairs; peft: an "
            "adapter; onnx: for a device without torch."
        ),
    ] = "merged",
    out: Annotated[Path | None, typer.Option(help="Default: RUN/FORM.")] = None,
    encoder: EncoderOption = None,
    base_name: Annotated[
        str | None,
        typer.Option(help="peft: what the adapter names as its base, if not the encoder's hub id or folder."),
    ] = None,
    int8: Annotated[
        str | None, typer.Option(help="onnx in 8 bits: dynamic, blocks, or auto, the faster that the score can bear.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Rows to score 8 bits on; default: those of the run's task.")] = None,
    rows: Annotated[int | None, typer.Option(help="Score 8 bits on the first so many rows; default: 2000.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run in a form that other programs load; with --to onnx also several, as one model."""
    from ..changes.delta_header import header_of
    from ..exports.forms import export as export_run
    from ..exports.onnx_folder import said_of
    from ..results.run_folder import MERGED, ONNX, PEFT
    from ..tasks.task import Task

    options = {"base_name": base_name, "int8": int8, "data": data, "rows": rows}
    given = {name: value for name, value in options.items() if value is not None}
    # What is wrong with `to`, the run or `out` is told there before torch is imported.
    folder = export_run(runs[0] if len(runs) == 1 else _named(runs), to, out, encoder, **given)
    say(f"written to {folder}")
    if to == ONNX:
        say(*said_of(folder))
    if to in (MERGED, PEFT) and (line := Task.from_description(header_of(runs[0])["task"]).decision_rule.line()):
        say(f"{line} The folder does not know of it: apply it to the probabilities that it predicts")
    print_json({"out": str(folder)}, as_json)


def _named(runs: list[str]) -> dict[str, str]:
    """The folders of several runs by the names of their tasks, which are those of the folders where nothing else is said."""
    named: dict[str, str] = {}
    for each in runs:
        name, divided, folder = each.partition("=")
        if not divided or Path(each).exists():
            name, folder = Path(each).resolve().name, each
        if name in named:
            raise InputError(f"two runs are called {name!r}: give each a name of its own, as NAME=RUN")
        named[name] = folder
    return named
