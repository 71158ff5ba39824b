"""Subcommand push: a run to the hub."""

from typing import Annotated

import typer

from .options import Json, RunFolder
from .output import print_json, say


def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where on the hub; made if not there yet.")],
    private: Annotated[bool, typer.Option("--private", help="For whom the owner lets in only.")] = False,
    base_name: Annotated[
        str | None, typer.Option(help="The hub id of the encoder, if that lies in a folder here.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run to the hub: its delta and a card, without texts; the names of its classes are shown."""
    from ..exports.push import push as push_run

    pushed = push_run(run, repository, private=private, base_name=base_name, message=message)
    say(f"commit {pushed.commit[:12]}: {pushed.url}")
    print_json(pushed._asdict(), as_json)
