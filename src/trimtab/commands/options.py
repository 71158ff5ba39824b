"""What subcommands share: options, and the two ways of talking to the user."""

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Text = Annotated[str | None, typer.Option(help="Text column, or two of a pair: a,b.")]
Label = Annotated[str | None, typer.Option(help="Label column, or several 0/1 columns: a,b,c.")]
Kind = Annotated[str | None, typer.Option(help="single_label, multi_label or regression.")]
Metric = Annotated[str | None, typer.Option(help="Main metric, by which the best step is chosen.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Encoder, if not where the run says.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


def say(line: str) -> None:
    """Tells the user, on stderr."""
    print(line, file=sys.stderr)


def print_json(values: dict[str, Any], as_json: bool) -> None:
    """Prints `values` as one line of JSON on stdout, where it was asked for."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
