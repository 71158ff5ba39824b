"""The command line: one subcommand per library verb, of the same name. Progress goes to stderr, results to stdout."""

import errno
import io
import sys
import warnings
from importlib import metadata
from typing import Annotated

import typer

from .commands.check import check
from .commands.compare import compare
from .commands.curve import curve
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.fisher import fisher
from .commands.fit import fit
from .commands.forgetting import forgetting
from .commands.import_ import import_
from .commands.inspect import inspect
from .commands.movement import movement
from .commands.options import subcommand
from .commands.output import say
from .commands.predict import predict
from .commands.pull import pull
from .commands.push import push
from .commands.recommend import recommend
from .commands.report import report
from .commands.serve import serve
from .errors import InputError
from .version import VERSION

_BESIDE = ("torch", "transformers")  # whose versions decide what a run comes to


def _say_versions(wanted: bool) -> None:
    """Prints the versions of trimtab and of what it stands on, without importing it, and ends, where --version is given."""
    if not wanted:
        return
    print(f"trimtab {VERSION}")
    for package in _BESIDE:
        try:
            print(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package} is not installed")
    raise typer.Exit


# Plain help, and Python's own traceback and exit code 1 for a fault of ours.
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.callback()
def versions(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_versions, help="Print versions and exit.")
    ] = False,
) -> None:
    """Fine-tune pretrained encoders by training the few parameters that matter."""


# In the order of --help, where a function's name, docstring and annotations become the subcommand's name and text.
VERBS = (
    check, fit, evaluate, predict, inspect, fisher, compare, curve, recommend, movement, forgetting, export, import_, push, pull,
    report, serve,
)  # fmt: skip
for verb in VERBS:
    name = verb.__name__.rstrip("_")  # Python has the word import for itself
    # Some compute nothing, and one has the option itself, for each of its workers.
    app.command(name)(subcommand(verb, threads=verb not in (report, push, pull, serve)))


def main() -> None:
    """Runs the command line; InputError becomes one message and exit code 2, and any other error, a fault of ours, passes."""
    # One line on stderr, without the place in our source that a user can do nothing with.
    warnings.showwarning = lambda message, *place: say(f"trimtab: {message}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # class names may be in letters that the terminal lacks
    try:
        app()
    except InputError as error:
        say(f"trimtab: {error}")
        sys.exit(2)
    except OSError as error:
        # A name that no file can have, or a place that the user may not enter, wherever it was met.
        if error.filename is None or error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
            raise
        say(f"trimtab: cannot use {error.filename!s:.200}: {error.strerror}. Name another place.")
        sys.exit(2)
