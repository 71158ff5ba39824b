"""What subcommands share: options, and the two ways of talking to the user."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError

# What several subcommands take is written once, so that its name and its help are the same everywhere.
# None means that the user gave nothing, so that the recipe, the settings or the method decide. An option that states no name
# is called like its parameter: batch_size becomes --batch-size.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Text = Annotated[str | None, typer.Option(help="Text column, or two of a pair: a,b.")]
Label = Annotated[str | None, typer.Option(help="Label column, or several 0/1 columns: a,b,c.")]
Kind = Annotated[str | None, typer.Option(help="single_label, multi_label or regression.")]
Metric = Annotated[str | None, typer.Option(help="Main metric, by which the best step is chosen.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Encoder, if not where the run says.")]
EncoderName = Annotated[
    str, typer.Argument(metavar="ENCODER", help="minilm, a folder, or a hub id, with @REVISION if wanted.")
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="helpdesk, a file, a folder of splits, or a hub id.")]
TaskNames = Annotated[
    list[str], typer.Argument(metavar="TASK...", help="helpdesk, a file, a folder of splits, a hub id; or several.")
]
Epochs = Annotated[int | None, typer.Option(help="Default: the method's own, 5 for most; more on few rows.")]
BatchSize = Annotated[int | None, typer.Option(help="Texts per optimizer step.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate; default: the method's own.")]
HeadRate = Annotated[float | None, typer.Option(help="Peak learning rate of the head.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens per text; longer ones are cut.")]
HeadKind = Annotated[
    str | None,
    typer.Option(help="auto, default (Hugging Face's own), linear (on the mean of the token states) or cls."),
]
HeadStart = Annotated[
    str | None, typer.Option(help="probe (a linear probe on frozen features, the default) or random.")
]
Pairs = Annotated[str | None, typer.Option(help="Two texts of a row: together, apart or auto.")]
TrainLimit = Annotated[int | None, typer.Option(help="Train on N rows, after a seeded shuffle.")]
Compute = Annotated[str | None, typer.Option(help="Frozen matrices in auto, float32 or bfloat16.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave out rows with no text or no label.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")]

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended: 128 + 2, the number of SIGINT, as in shells


def say(*lines: str) -> None:
    """Tells the user, a line each, on stderr: stdout is for answers, which may be piped."""
    for line in lines:
        print(line, file=sys.stderr)


def check_ending(path: Path | None, option: str, *endings: str) -> None:
    """Raises InputError for a file to write with another ending than these: what it would replace may be somebody's data."""
    if path is not None and path.suffix.lower() not in endings:
        raise InputError(f"{option} {path}: name a file that ends in {' or '.join(endings)}")


def print_json(values: dict[str, Any], as_json: bool) -> None:
    """Prints `values` as one line of JSON on stdout, where it was asked for."""
    if as_json:
        print(json_line(values))


def json_line(values: dict[str, Any]) -> str:
    """`values` as one line of JSON that stdout can show: letters that its encoding lacks are escaped."""
    from ..files import without_nan

    # Both are the same JSON: an escape stands for the letter, wherever the line is read.
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(without_nan(values), ensure_ascii=not is_utf8, allow_nan=False)
