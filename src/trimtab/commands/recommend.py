"""Subcommand recommend: which method to take within a budget."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import NOTHING, EncoderName, Jobs, Json, OriginOptions, ReadingOptions, SettingsOptions, TaskName
from .output import check_jobs, print_json, say, say_rows, share_machine


def recommend(
    encoder: EncoderName,
    task: TaskName,
    budget: Annotated[
        str, typer.Option(help="Parameters of the encoder (5000), a share of them (0.05%), or bytes of delta (20KB).")
    ],
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    # How large the trials are.
    rows: Annotated[int, typer.Option(help="Training rows of a trial; half as many others judge it.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Fits of each of the three best candidates.")] = 3,
    for_serving: Annotated[
        bool,
        typer.Option(
            "--for-serving",
            help="Of what scores as well, propose what shares most layers with other tasks of the encoder.",
        ),
    ] = False,
    # How each trial is trained, and then the proposal; learning rates are each method's own.
    settings: SettingsOptions = NOTHING,
    out: Annotated[
        Path | None, typer.Option(help="Where the trials live and recommended.toml goes; default runs/TASK-recommend.")
    ] = None,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Propose what to train within a budget, from trials on some training rows, and why.

    With --for-serving, for hundreds of tasks on one encoder: methods that leave the first half of the layers alone are tried
    too, and of those not significantly worse than the best the one with the fewest layers run for this task alone is proposed.
    """
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..studies.budget import Budget
    from ..tasks.read import read
    from ..training.fit_recipe import folder_name

    settings_from(settings)
    check_jobs(jobs)
    Budget.parse(budget, n_body=sys.maxsize)  # how it is written; how much it is, once the encoder is known
    read_task = read(task, **columns, **reading)
    say_rows([read_task])
    # Always a folder, where the Python function would do without: a recommendation that was stopped goes on from its trials.
    out = out or Path("runs") / folder_name(read_task.name, "recommend")
    place = find_place(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    check_writable(out)
    from ..changes.method_text import method_text
    from ..encoders.encoder import limit_note, load
    from ..studies.recommend import recommend as recommend_method
    from .terminal import trials_table

    loaded = load(place)
    share_machine()
    say(*limit_note(loaded, settings.get("max_length")))
    found = recommend_method(
        loaded, read_task, budget, rows=rows, seeds=seeds, out=out, jobs=jobs, progress=True, for_serving=for_serving, **settings,
    )  # fmt: skip
    # A recipe and not only a name, so that fitting it repeats the settings that were tried.
    recipe = out / "recommended.toml"  # and not recipe.toml, which may be there: a run's, or somebody's own
    found.recipe.save(recipe)
    if not as_json:
        # The trials first, then the proposal and the sentences that it rests on.
        trials_table(found)
        print(f"\n{method_text(found.method)}\n")
        for sentence in (*found.reasons, *found.notes):
            print(sentence)
    say(f"to fit it: trimtab fit {shlex.quote(str(recipe))}")
    print_json(found.as_json() | {"recipe": str(recipe)}, as_json)
