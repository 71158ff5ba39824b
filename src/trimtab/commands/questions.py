"""Subcommands that answer which parameters matter and which method to take."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .options import (
    NOTHING,
    BatchSize,
    Compute,
    EncoderName,
    EncoderOption,
    Epochs,
    HeadKind,
    HeadRate,
    HeadStart,
    Json,
    Kind,
    Label,
    MaxLength,
    Metric,
    Pairs,
    Rate,
    Reading,
    RunFolder,
    TaskName,
    TaskNames,
    Text,
    TrainLimit,
    check_ending,
    print_json,
    reads_tables,
    say,
    share_machine,
)

if TYPE_CHECKING:
    from ..changes.selection import Selection
    from ..tasks.task import Task


def inspect(
    encoder: EncoderName,
    head: Annotated[str, typer.Option(help="auto, default, linear or cls.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show layers x kinds with element counts, and what each method would train."""
    # In each subcommand imports wait until it is called: torch takes seconds, and --help should not. What it calls is imported
    # under another name, since its own name is the subcommand's.
    from ..changes.inspect import inspect as inspect_encoder
    from ..encoders.encoder import load
    from ..terminal import inspection_tables

    # The weights are needed: a checkpoint may lack parameters, which then are the head's.
    found = inspect_encoder(load(encoder), head)
    if not as_json:
        inspection_tables(found)
    print_json(found.as_json(), as_json)


@reads_tables()
def fisher(
    encoder: EncoderName,
    tasks: TaskNames,
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    reading: Reading = NOTHING,
    # What is measured, and how.
    within: Annotated[
        str, typer.Option(help="The elements to measure, as a method; full is all of them.")
    ] = "layer_norms",
    estimator: Annotated[str, typer.Option(help="empirical, sampled or exact.")] = "empirical",
    examples: Annotated[int, typer.Option(help="Training rows to measure on.")] = 1024,
    head_steps: Annotated[int, typer.Option(help="Steps of training the head alone before measuring.")] = 0,
    given: Annotated[
        str, typer.Option(help="nothing, or head: only what the head could not have had itself (norms and biases).")
    ] = "nothing",
    seed: Annotated[int, typer.Option()] = 0,
    max_length: Annotated[int, typer.Option(help="Tokens per text; longer ones are cut.")] = 256,
    compute: Annotated[str, typer.Option(help="float32, or auto: faster, and right to about 1%.")] = "float32",
    # Several tasks, and what is kept of the outcome.
    is_global: Annotated[bool, typer.Option("--global", help="Average over tasks, each with one vote.")] = False,
    share: Annotated[float | None, typer.Option(help="Of the elements, for --save-selection.")] = None,
    count: Annotated[int | None, typer.Option(help="Of elements, for --save-selection.")] = None,
    save_selection: Annotated[
        Path | None, typer.Option(help="Where to write the top elements; fit takes them as selection:file=PATH.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: runs/TASK-fisher.safetensors, the heat map beside it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much a task's answers depend on each element of an encoder."""
    from ..changes.fisher import cost_note, mean_of
    from ..changes.notation import parse_method
    from ..changes.selection import check_size
    from ..encoders.encoder import load
    from ..files import check_writable
    from ..studies.heatmap import draw_heat_map, means_by_place
    from ..studies.information import advice
    from ..studies.information import fisher as measure
    from ..tasks.read import read
    from ..terminal import information_tables
    from ..training.repeat import folder_name

    # A mean over tasks has to be asked for: several tasks could as well mean one answer for each.
    if (len(tasks) > 1) != is_global:
        raise InputError("--global averages over two tasks or more, and several tasks need --global")
    if save_selection is not None and (share is None) == (count is None):
        raise InputError("--save-selection needs --share or --count, to know how many elements to keep")
    if save_selection is None and (share is not None or count is not None):
        raise InputError("--share and --count say how much --save-selection keeps: name a file with it")
    check_size("fisher", count, share)  # before hours of measuring
    check_ending(out, "--out", ".safetensors")
    check_ending(save_selection, "--save-selection", ".safetensors")
    # All tasks are read before the first is measured, so that a bad row in the last one is found at once.
    method, loaded, infos = parse_method(within), load(encoder), []
    read_tasks = [read(name, text=text, label=label, kind=kind, **reading) for name in tasks]
    say(*(note for task in read_tasks for note in task.notes))
    share_machine()
    name = folder_name("global" if is_global else read_tasks[0].name, "fisher")
    out = out or _unused(Path("runs") / f"{name}.safetensors")
    plot = _picture_beside(out)
    if save_selection is not None and save_selection.resolve() == out.resolve():
        raise InputError(f"--out and --save-selection both name {out}: give each a file of its own")
    for path, option, key in ((out, "--out", "fisher"), (save_selection, "--save-selection", "selection")):
        if path is not None:
            _check_ours(path, option, key)
            check_writable(path.parent, option)
    # One after another: what is kept of each is one number per element, not its model. All are measured alike: only then can
    # they be averaged.
    for task in read_tasks:
        say(*cost_note(estimator, task.kind, len(task.classes), min(examples, len(task.train))))
        info = measure(
            loaded, task, method, examples=examples, estimator=estimator, seed=seed, head_steps=head_steps, given=given,
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
    # The mean and not the sum: kinds differ a thousandfold in how many elements they have.
    draw_heat_map(*means_by_place(found.parts, found.sums()), heading, "mean per element", plot)
    say(f"written to {out}; heat map: {plot}")
    # `rows` counts training rows and `stability` is a rank correlation, each with one number per task.
    answer = {
        "tasks": tasks, "estimator": estimator, "given": given, "rows": [len(info.rows) for info in infos],
        "stability": [info.stability for info in infos], "by_kind": found.by("kind"), "by_layer": found.by("layer"),
        "out": str(out), "plot": str(plot),
    }  # fmt: skip
    if save_selection is not None:
        answer |= _saved(found.top(share, count), save_selection)
    print_json(answer, as_json)


def _unused(place: Path) -> Path:
    """The default `place`, which nothing may be at: only what is named is replaced."""
    if place.exists():
        raise InputError(f"{place} is there already: name it to have it replaced, or another place (--out)")
    return place


def _picture_beside(out: Path) -> Path:
    """Where the heat map of a measurement goes; raises InputError where something is there that is no older picture of it."""
    plot = out.with_name(f"{out.stem}-heatmap.png")  # a picture of the file's own name may be somebody's
    return plot if out.exists() else _unused(plot)


def _tell(tasks: "list[Task]") -> None:
    """Says what `fit` would say of the rows of each task: how many there are, what is odd about them, what was left out."""
    from ..tasks.survey import survey

    say(*(line for task in tasks for line in survey(task).lines()))


def _check_ours(path: Path, option: str, key: str) -> None:
    """Raises InputError where `path` holds something that does not say `key` of itself, such as weights: it would be lost."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return
    try:
        with safe_open(path, framework="np") as file:
            ours = key in (file.metadata() or {})
    except (OSError, SafetensorError):
        ours = False
    if not ours:
        raise InputError(f"{option} {path}: this file holds something else, which would be lost: choose another name")


def _saved(chosen: "Selection", path: Path) -> dict[str, Any]:
    """What --json adds about the selection, now written to `path`; raises InputError where that cannot be written."""
    chosen.save(path)
    say(
        f"{chosen.count:,} elements written to {path}: fit takes them as --method {shlex.quote(f'selection:file={path}')}"
    )
    return {"selection": str(path), "selected": chosen.count}


@reads_tables()
def recommend(
    encoder: EncoderName,
    task: TaskName,
    budget: Annotated[
        str, typer.Option(help="Elements of the encoder (5000), a share of them (0.05%), or bytes of delta (20KB).")
    ],
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    reading: Reading = NOTHING,
    # How large the trials are.
    rows: Annotated[int, typer.Option(help="Training rows of a trial; half as many others judge it.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Fits of each of the three best candidates.")] = 3,
    # How each trial is trained, and then the proposal; rates are each method's own.
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    head: HeadKind = None,
    head_start: HeadStart = None,
    pairs: Pairs = None,
    compute: Compute = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the trials live and recommended.toml goes; default runs/TASK-recommend.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose what to train within a budget, from trials on some training rows, and why."""
    given = dict(locals())  # before anything else is local
    from ..changes.notation import method_text
    from ..encoders.encoder import load
    from ..files import check_writable
    from ..studies.recommend import recommend as recommend_method
    from ..tasks.read import read
    from ..terminal import trials_table
    from ..training.repeat import folder_name

    read_task = read(task, text=text, label=label, kind=kind, metric=metric, **reading)
    _tell([read_task])
    # Always a folder, where the Python function would do without: a recommendation that was stopped goes on from its trials.
    out = out or Path("runs") / folder_name(read_task.name, "recommend")
    loaded = load(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    share_machine()
    check_writable(out)
    found = recommend_method(
        loaded, read_task, budget, rows=rows, seeds=seeds, out=out, progress=True, **_settings(given)
    )
    # A recipe and not only a name, so that fitting it repeats the settings that were tried.
    recipe = out / "recommended.toml"  # and not recipe.toml, which may be there: a run's, or somebody's own
    found.recipe.save(recipe)
    if not as_json:
        # The trials first, then the proposal and the three sentences that it rests on.
        trials_table(found)
        print(f"\n{method_text(found.method)}\n")
        for sentence in (*found.reasons, *found.notes):
            print(sentence)
    say(f"to fit it: trimtab fit {shlex.quote(str(recipe))}")
    print_json(found.as_json() | {"recipe": str(recipe)}, as_json)


def movement(
    run: RunFolder,
    # This option hides the subcommand of its name, which is not called in here.
    fisher: Annotated[
        Path | None, typer.Option(help="Information measured before training (trimtab fisher): was this foreseen?")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Default: RUN/movement.png.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Show how far training moved each kind and layer of the encoder."""
    from ..changes.fisher import Fisher
    from ..studies.heatmap import draw_heat_map, means_by_place
    from ..studies.movement import movement as movement_of
    from ..terminal import foreseen_table, movement_tables

    check_ending(plot, "--plot", ".png", ".svg", ".pdf")
    # No rows are read: the delta is compared with the pretrained values, which it was trained from.
    found = movement_of(run, encoder)
    seen = None if fisher is None else found.foreseen_by(Fisher.load(fisher))
    if not as_json:
        movement_tables(found)
        if seen is not None:
            foreseen_table(seen)
    # The picture is drawn in any case, --json or not.
    heading = f"Movement: {found.notes['task']}, {found.notes['method']}"
    places = means_by_place(found.parts, found.sums())
    picture = draw_heat_map(*places, heading, "mean absolute change", plot or Path(run) / "movement.png")
    say(f"heat map: {picture}")
    answer = {"by_kind": found.by("kind"), "by_layer": found.by("layer"), "plot": str(picture)}
    # `foreseen` is there only where information was given to judge.
    print_json(answer | ({} if seen is None else {"foreseen": seen}), as_json)


@reads_tables()
def compare(
    encoder: EncoderName,
    tasks: TaskNames,
    # What is compared: every method on every task with each of the seeds 0, 1, ...
    method: Annotated[list[str] | None, typer.Option(help="A method; repeat for more.")] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each method on each task.")] = 3,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared to; default: the first method.")
    ] = None,
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    reading: Reading = NOTHING,
    # What is kept of it.
    out: Annotated[Path, typer.Option(help="Where the cells live; a study that was stopped goes on.")] = Path(
        "runs/compare"
    ),
    report: Annotated[
        Path | None, typer.Option(help="A page (.html) or tables (.md); default: OUT/methods.html.")
    ] = None,
    # The same for all methods; rates and epochs that are not given are each method's own.
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    head_lr: HeadRate = None,
    max_length: MaxLength = None,
    head: HeadKind = None,
    head_start: HeadStart = None,
    pairs: Pairs = None,
    train_limit: TrainLimit = None,
    compute: Compute = None,
    as_json: Json = False,
) -> None:
    """Fit several methods on one or more tasks with several seeds, and say which to take."""
    given = dict(locals())  # before anything else is local
    from ..changes.notation import parse_method
    from ..encoders.encoder import load
    from ..files import check_writable
    from ..studies.compare import compare as compare_methods
    from ..studies.comparison_page import markdown
    from ..tasks.read import read

    # Without a choice, the yardsticks and the three that are most often asked for; the first is the reference.
    methods = [parse_method(each) for each in method or ("full", "layer_norms", "biases", "lora", "head")]
    check_ending(report, "--report", ".html", ".md")
    # Said before any task is read, and in the words of the option.
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least one fit of each method is needed")
    # All tasks are read before the first fit, so that a bad row in the last one is found at once.
    read_tasks = [read(name, text=text, label=label, kind=kind, metric=metric, **reading) for name in tasks]
    _tell(read_tasks)
    loaded = load(encoder)  # before the folder is made: a misspelt encoder leaves none behind
    share_machine()
    check_writable(out)
    if report is not None:
        check_writable(report.parent, "--report")
    # Cells that are in `out` already are not computed again.
    found = compare_methods(
        loaded, read_tasks, methods, seeds, out=out, progress=True,
        reference=None if reference is None else parse_method(reference), **_settings(given),
    )  # fmt: skip
    if not any(cell.refused is None for cell in found.cells):
        whys = {f"{cell.method} on {cell.task}: {cell.refused}": None for cell in found.cells}
        raise InputError(f"no method could be used, so nothing is compared: {'; '.join(whys)}")
    # First what cannot fail; the page lies beside the cells, unless said otherwise.
    if not as_json:
        print(markdown(found), end="")
    page = found.report(report or out / "methods.html")
    say(f"written to {page}")
    print_json(found.as_json() | {"report": str(page)}, as_json)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Settings among a subcommand's options, where the user gave a value.

    Options and fields have the same names, so that a subcommand takes a new setting by naming it in its signature.
    """
    from ..training.recipe import Settings

    return {field.name: given[field.name] for field in fields(Settings) if given.get(field.name) is not None}
