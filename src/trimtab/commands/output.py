"""How subcommands talk to the user: progress and notes on stderr, results on stdout."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..threads import share_cores

if TYPE_CHECKING:
    from ..tasks.task import Task


def share_machine() -> None:
    """Leaves to other processes the cores that they keep busy, where nobody has said how many threads compute, and says so.

    To be called when all is imported and before anything is computed.
    """
    if line := share_cores():
        say(line)


def say(*lines: str) -> None:
    """Tells the user, a line each, on stderr: stdout is for results, which may be piped."""
    for line in lines:
        print(line, file=sys.stderr)


def say_rows(tasks: "list[Task]") -> None:
    """Says what `fit` would say of the rows of each task: how many there are, what is odd about them, what was left out."""
    from ..tasks.data_report import survey

    say(*(line for task in tasks for line in survey(task).lines()))


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
