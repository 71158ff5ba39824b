"""Subcommand report: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, RunFolder
from .output import check_ending, print_json, say


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Default: RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's page again."""
    from ..pages.run_page import report as write_report

    check_ending(out, "--out", ".html")
    # From the files of the run folder alone: no encoder is loaded, and nothing is computed again.
    page = write_report(run, out)
    say(f"written to {page}")
    print_json({"out": str(page)}, as_json)
