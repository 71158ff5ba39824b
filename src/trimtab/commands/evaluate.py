"""Subcommand evaluate: score a run."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import counted
from .options import NOTHING, EncoderOption, Json, OriginOptions, ReadingOptions, RunFolder
from .output import print_json, say, share_machine


def evaluate(
    run: RunFolder,
    task: Annotated[str | None, typer.Argument(help="Default: the task it was trained on.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: test where labelled, else validation.")] = None,
    # Of the task named here; the run's own is read with the columns that the run has noted.
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Score a run on a task's test (or validation) rows."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base
    from ..tasks.metrics import figure, interval_text, named
    from ..training.chosen_rows import choose_rows

    # Without TASK the run's own data are read again, and refused where they have changed.
    described = header_of(run)
    chosen = choose_rows(described["task"], Path(run), task, split, **columns, **reading)
    place = find_base(described["base"], encoder)
    # Not before the rows are known to be right: torch takes seconds.
    from ..inference.evaluate import score_rows
    from ..inference.predictor import Predictor

    share_machine()
    found = score_rows(Predictor(run, place), chosen)
    for note in found["notes"]:
        say(note)
    if not as_json:
        print(f"{found['split']}, {counted(found['rows'], 'row')}")
        main = found["interval"]["metric"]
        names = {name: named(name, found["positive"]) for name in found["scores"]}
        for name, value in found["scores"].items():
            sure = f"  ({interval_text(found['interval'])})" if name == main else ""
            print(f"  {names[name]:<{max(map(len, names.values()))}}  {figure(value)}{sure}")
    print_json(found, as_json)
