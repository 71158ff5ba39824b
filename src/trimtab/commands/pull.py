"""Subcommand pull: a run from the hub."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import Json
from .output import print_json, say


def pull(
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="A run on the hub, with @REVISION if wanted.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    most_bytes: Annotated[int | None, typer.Option(help="Largest delta to fetch; default 1 GiB.")] = None,
    as_json: Json = False,
) -> None:
    """Bring a run from the hub into a new folder: its delta, checked, and its card."""
    from ..exports.pull import MOST_BYTES, origin_of
    from ..exports.pull import pull as pull_run

    if most_bytes is not None and most_bytes < 1:
        raise InputError(f"--most-bytes {most_bytes}: at least 1")
    folder = pull_run(repository, out, most_bytes=most_bytes or MOST_BYTES)
    origin = origin_of(folder)
    say(f"written to {folder}: {origin['repository']} at commit {origin['revision'][:12]}")
    print_json({"out": str(folder), **origin}, as_json)
