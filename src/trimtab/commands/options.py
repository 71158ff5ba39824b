"""What subcommands share: options, and the two ways of talking to the user."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import InputError
from ..threads import share_cores, use_threads

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
    str | None,
    typer.Option(help="probe (of frozen features, the default), random, or checkpoint: the head that it brings."),
]
Pairs = Annotated[str | None, typer.Option(help="Two texts of a row: together, apart or auto.")]
TrainLimit = Annotated[int | None, typer.Option(help="Train on N rows, after a seeded shuffle.")]
Compute = Annotated[str | None, typer.Option(help="Frozen matrices in auto, float32 or bfloat16.")]
Jobs = Annotated[int, typer.Option(help="Fits at the same time, each by a process with its part of the threads.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads that compute; default: one a core, and one for a short text.")
]
READING = {
    "skip_bad_rows": Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows without text or label, or not of the table's form.")
    ],
    "missing_label": Annotated[
        list[str] | None, typer.Option(help="A label that stands for none, such as -100; repeat for more.")
    ],
    "label_separator": Annotated[
        str | None, typer.Option(help="What divides the classes of a cell, such as ','; '': nothing does.")
    ],
    "encoding": Annotated[
        str | None, typer.Option(help="Of text files; default: UTF-8, or as a byte order mark says.")
    ],
    "no_header": Annotated[bool, typer.Option("--no-header", help="Columns are column_1, column_2, ...")],
    "validation": Annotated[
        str | None, typer.Option(metavar="FILE|SHARE", help="Validation rows, or the share of rows that are held out.")
    ],
    "positive": Annotated[
        str | None,
        typer.Option(help="Of two classes the one whose precision, recall and F1 are told; default: the rarer."),
    ],
}
"""How tables are read: the options of every subcommand that reads one, by their names as parameters."""

Reading = dict[str, Any]  # of a subcommand that `reads_tables`: keywords of `read`
NOTHING: Reading = {}  # that are given

RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")]

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended: 128 + 2, the number of SIGINT, as in shells


def reads_tables(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the options `names` of READING (default: all) take the place of a subcommand's parameter `reading`.

    The subcommand gets what the user gave of them, as keywords of `read`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if name in ("skip_bad_rows", "no_header") else None,
                annotation=READING[name],
            )
            for name in names or READING
        ]
        at = next(i for i, parameter in enumerate(own) if parameter.name == "reading")
        # All by keyword, as they are called: so that options may stand in any order.
        shown = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in [*own[:at], *options, *own[at + 1 :]]
        ]

        @functools.wraps(command)
        def with_reading(**given: Any) -> None:
            values = {name: given.pop(name) for name in names or READING}
            command(**given, reading=_given_of(values))

        # What typer makes options of.
        with_reading.__signature__ = inspect.Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
        hints = get_type_hints(command, include_extras=True)
        with_reading.__annotations__ = {
            parameter.name: hints.get(parameter.name, parameter.annotation) for parameter in shown
        }
        return with_reading

    return decorate


def with_threads(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the option --threads, which is settled before it begins: torch reads the number when it is imported."""
    own = inspect.signature(command)
    option = inspect.Parameter("threads", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Threads)
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def threaded(**given: Any) -> None:
        use_threads(given.pop("threads"))
        command(**given)

    shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    # What typer makes options of.
    threaded.__signature__ = inspect.Signature([*shown, option])  # pyright: ignore[reportAttributeAccessIssue]
    threaded.__annotations__ = {name: hints.get(name, own.parameters[name].annotation) for name in own.parameters} | {
        "threads": Threads
    }
    return threaded


def _given_of(values: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `read` for the options that were given; raises InputError for a share of rows that is none."""
    given = {name: value for name, value in values.items() if value not in (None, False, [])}
    if given.pop("no_header", False):
        given["header"] = False
    if "missing_label" in given:
        given["missing_label"] = tuple(given["missing_label"])
    share = _number(given.get("validation"))
    if share is not None:
        given |= {"validation": "", "validation_share": share}  # in the place of a file that a recipe may name
    return given


def _number(text: str | None) -> float | None:
    """The number that `text` is, or None."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def share_machine() -> None:
    """Leaves to other processes the cores that they keep busy, where nobody has said how many threads compute, and says so.

    To be called when all is imported and before anything is computed.
    """
    if line := share_cores():
        say(line)


def say(*lines: str) -> None:
    """Tells the user, a line each, on stderr: stdout is for answers, which may be piped."""
    for line in lines:
        print(line, file=sys.stderr)


def is_first() -> bool:
    """Whether this process is the one that talks to the person, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


def check_ending(path: Path | None, option: str, *endings: str) -> None:
    """Raises InputError for a file to write with another ending than these: what it would replace may be somebody's data."""
    if path is not None and path.suffix.lower() not in endings:
        raise InputError(f"{option} {path}: name a file that ends in {' or '.join(endings)}")


def check_jobs(jobs: int) -> None:
    """Raises InputError for fewer than one."""
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: at least 1")


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
