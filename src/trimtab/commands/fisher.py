"""Subcommand fisher: how much a task depends on each parameter of an encoder, before any training."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .options import NOTHING, EncoderName, Json, OriginOptions, ReadingOptions, TaskNames
from .output import check_ending, print_json, say, share_machine

if TYPE_CHECKING:
    from ..changes.selection import Selection


def fisher(
    encoder: EncoderName,
    tasks: TaskNames,
    columns: OriginOptions = NOTHING,
    reading: ReadingOptions = NOTHING,
    # What is measured, and how.
    within: Annotated[
        str, typer.Option(help="The parameters to measure, as a method; full is all of them.")
    ] = "layer_norms",
    estimator: Annotated[str, typer.Option(help="empirical, sampled or exact.")] = "empirical",
    examples: Annotated[int, typer.Option(help="Training rows to measure on.")] = 1024,
    head_steps: Annotated[int, typer.Option(help="Steps of training the head alone before measuring.")] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    max_length: Annotated[int, typer.Option(help="Tokens per text; longer ones are cut.")] = 256,
    compute: Annotated[str, typer.Option(help="float32, or auto: faster, and right to about 1%.")] = "float32",
    # Several tasks, and what is kept of the outcome.
    is_global: Annotated[bool, typer.Option("--global", help="Average over tasks, each with one vote.")] = False,
    share: Annotated[float | None, typer.Option(help="Share of the parameters, for --save-selection.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of parameters, for --save-selection.")] = None,
    save_selection: Annotated[
        Path | None,
        typer.Option(help="Where to write the most informative parameters; fit takes them as selection:file=PATH."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: runs/TASK-fisher.safetensors, the heat map beside it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much a task's predictions depend on each parameter of an encoder."""
    from ..changes.choices import check_estimator, check_names
    from ..encoders.places import find_place
    from ..files import check_writable
    from ..results.recipe import settings_from
    from ..tasks.read import read
    from ..training.fit_recipe import folder_name

    _check_averaging(tasks, is_global)
    _check_kept(save_selection, share, count)
    check_ending(out, "--out", ".safetensors")
    check_ending(save_selection, "--save-selection", ".safetensors")
    check_names(within)
    check_estimator(estimator)
    settings_from({"max_length": max_length, "compute": compute, "seed": seed})
    # All tasks are read before the first is measured, so that a bad row in the last one is found at once.
    read_tasks = [read(name, **columns, **reading) for name in tasks]
    say(*(note for task in read_tasks for note in task.notes))
    name = folder_name("global" if is_global else read_tasks[0].name, "fisher")
    out = out or _unused(Path("runs") / f"{name}.safetensors")
    plot = _picture_beside(out)
    if save_selection is not None and save_selection.resolve() == out.resolve():
        raise InputError(f"--out and --save-selection both name {out}: give each a file of its own")
    for path, option, key in ((out, "--out", "fisher"), (save_selection, "--save-selection", "selection")):
        if path is not None:
            _check_ours(path, option, key)
            check_writable(path.parent, option)
    place = find_place(encoder)
    # Not before names, options and rows are known to be right: torch takes seconds.
    from ..changes.fisher import cost_note, mean_of
    from ..changes.method_text import parse_method
    from ..encoders.encoder import limit_note, load
    from ..pages.heatmap import draw_heat_map, means_by_place
    from ..studies.measure_fisher import advice
    from ..studies.measure_fisher import fisher as measure
    from .terminal import information_tables

    method, loaded, infos = parse_method(within), load(place), []
    share_machine()
    say(*limit_note(loaded, max_length))
    # One after another: what is kept of each is one number per parameter, not its model. All are measured alike: only then can
    # they be averaged.
    for task in read_tasks:
        say(*cost_note(estimator, task.kind, len(task.classes), min(examples, len(task.train))))
        info = measure(
            loaded, task, method, examples=examples, estimator=estimator, seed=seed, head_steps=head_steps,
            max_length=max_length, compute=compute, at_least=count or 0, progress=True,
        )  # fmt: skip
        # At once, and not after the last task: an unstable ranking is a reason to stop and measure on more rows.
        say(f"{info.notes['task']}: {advice(info)}")
        infos.append(info)
    # A mean has no task of its own in its notes, hence the title beside it.
    found, title = (mean_of(infos), f"{len(tasks)} tasks") if is_global else (infos[0], infos[0].notes["task"])
    if not as_json:
        information_tables(found)
    found.save(out)
    # The file is there before the picture is drawn: it is what took the time.
    heading = f"Fisher information ({found.measure}): {title} on {encoder}"
    # The mean and not the sum: kinds differ a thousandfold in how many parameters they have.
    draw_heat_map(*means_by_place(found.parts, found.sums()), heading, "mean per parameter", plot)
    say(f"written to {out}; heat map: {plot}")
    # `rows` counts training rows and `stability` is a rank correlation, each with one number per task.
    result = {
        "tasks": tasks, "estimator": estimator, "rows": [len(info.rows) for info in infos],
        "stability": [info.stability for info in infos], "by_kind": found.by("kind"), "by_layer": found.by("layer"),
        "out": str(out), "plot": str(plot),
    }  # fmt: skip
    if save_selection is not None:
        result |= _saved(found.top(share, count), save_selection)
    print_json(result, as_json)


def _check_averaging(tasks: list[str], is_global: bool) -> None:
    """Raises InputError unless a mean over tasks is asked for: several tasks could as well mean one result for each."""
    if (len(tasks) > 1) != is_global:
        raise InputError("--global averages over two tasks or more, and several tasks need --global")


def _check_kept(save_selection: Path | None, share: float | None, count: int | None) -> None:
    """Raises InputError where it is not said, or cannot be, how much of the measured is kept."""
    from ..changes.choices import check_size

    if save_selection is not None and (share is None) == (count is None):
        raise InputError("--save-selection needs --share or --count, to know how many parameters to keep")
    if save_selection is None and (share is not None or count is not None):
        raise InputError("--share and --count say how much --save-selection keeps: name a file with it")
    check_size("fisher", count, share)  # before hours of measuring


def _unused(place: Path) -> Path:
    """The default `place`, which nothing may be at: only what is named is replaced."""
    if place.exists():
        raise InputError(f"{place} is there already: name it to have it replaced, or another place (--out)")
    return place


def _picture_beside(out: Path) -> Path:
    """Where the heat map of a measurement goes; raises InputError where something is there that is no older picture of it."""
    plot = out.with_name(f"{out.stem}-heatmap.png")  # a picture of the file's own name may be somebody's
    return plot if out.exists() else _unused(plot)


def _check_ours(path: Path, option: str, key: str) -> None:
    """Raises InputError where `path` holds something that does not say `key` of itself, such as weights: it would be lost."""
    from ..files import BAD_TENSORS, open_tensors

    if not path.exists():
        return
    try:
        with open_tensors(path) as file:
            ours = key in file.header
    except (OSError, *BAD_TENSORS):
        ours = False
    if not ours:
        raise InputError(f"{option} {path}: this file holds something else, which would be lost: choose another name")


def _saved(chosen: "Selection", path: Path) -> dict[str, Any]:
    """What --json adds about the selection, now written to `path`; raises InputError where that cannot be written."""
    chosen.save(path)
    say(
        f"{chosen.count:,} parameters written to {path}: fit takes them as --method {shlex.quote(f'selection:file={path}')}"
    )
    return {"selection": str(path), "selected": chosen.count}
