"""Subcommands of one run: fit it, judge it, use it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, counted
from .options import (
    INTERRUPTED,
    NOTHING,
    BatchSize,
    Compute,
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
    Text,
    TrainLimit,
    check_ending,
    is_first,
    json_line,
    print_json,
    reads_tables,
    say,
    share_machine,
)


@reads_tables()
def fit(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder, a hub id; or a recipe.toml and no TASK.")],
    task: Annotated[str | None, typer.Argument(help="helpdesk, a file, a folder of splits, or a hub id.")] = None,
    # How to read the rows.
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    method: Annotated[
        str | None, typer.Option(help="What to train: layer_norms, lora:rank=8, biases+head, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-METHOD.")] = None,
    # The fields of Settings, each under its own name.
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    head_lr: HeadRate = None,
    weight_decay: Annotated[float | None, typer.Option()] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    max_length: MaxLength = None,
    seed: Annotated[int | None, typer.Option()] = None,
    first_epoch: Annotated[
        int | None, typer.Option(help="Begin the order of rows behind so many epochs, as of the run it starts from.")
    ] = None,
    head: HeadKind = None,
    head_start: HeadStart = None,
    pairs: Pairs = None,
    class_weights: Annotated[list[str] | None, typer.Option(help="none, balanced, or fraud=10,legit=1.")] = None,
    label_smoothing: Annotated[float | None, typer.Option()] = None,
    threshold: Annotated[
        str | None, typer.Option(help="Of multi_label: probability from which a class is given, or auto; default 0.5.")
    ] = None,
    at_least_one: Annotated[
        bool | None, typer.Option("--at-least-one/--no-at-least-one", help="Of multi_label: no row without a class.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Default: the encoder's own.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Validate every N steps; default: every epoch.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after N validations without a better score, or a lower loss at the same.")
    ] = None,
    train_limit: TrainLimit = None,
    # These two bound memory and disk space.
    tokens_per_batch: Annotated[
        str | None, typer.Option(help="Tokens in one forward pass, which bound memory; default auto: what fits.")
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(help="Most GB of disk for tokens and frozen layers' outputs.")
    ] = None,
    compute: Compute = None,
    reading: Reading = NOTHING,
    start_from: Annotated[
        str | None, typer.Option(metavar="RUN", help="Begin at the values of this run, on more rows.")
    ] = None,
    more_epochs: Annotated[
        int | None, typer.Option(min=1, help="fit RUN --more-epochs N: a finished run goes on, by its own recipe.")
    ] = None,
    # What to do with a run that is there already.
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train what a method chooses, keep the best, write a run folder with a report."""
    # All options by name, before anything else is local. Imports wait until here, so that --help answers at once.
    given = dict(locals())
    from dataclasses import fields

    from ..results.recipe import Recipe, Settings
    from ..results.run_folder import holds_run

    # None of these imports torch: what is wrong with names, options or rows is told before that is waited for.
    from ..tasks.metrics import figure, interval_text, named
    from ..training.fit_recipe import fit_recipe

    _check_more(given)
    # A recipe names its encoder and task itself; a task beside it takes the place of its own.
    is_recipe = encoder.endswith(".toml")
    if not is_recipe and task is None and more_epochs is None:
        raise InputError(
            "give an encoder and a task (trimtab fit minilm helpdesk), or a recipe (trimtab fit mine.toml)"
        )
    # Defaults < file < flags: what the user did not give is None and changes nothing.
    base = Recipe.load(Path(encoder)) if is_recipe else Recipe(encoder=encoder)
    columns = None if text is None else (text,)  # "a,b" is a pair, or one column of that name: the reader will know
    # A KeyError here means a setting that has no option above.
    settings = {field.name: given[field.name] for field in fields(Settings)}
    settings["class_weights"] = ",".join(class_weights) if class_weights else None  # repeated, it names more classes
    settings["tokens_per_batch"] = _token_count(tokens_per_batch)
    method = _method_of(start_from, method, is_recipe)
    recipe = base.changed(
        task=task, start_from=start_from, text=columns, label=label, kind=kind, metric=metric, method=method,
        **reading, **settings,
    )  # fmt: skip
    if is_recipe and resume and out is None and holds_run(Path(encoder).parent):
        out = Path(encoder).parent  # the recipe of a run lies in its folder; one written by hand lies anywhere
    if is_first():
        say(f"reading {recipe.task}" if more_epochs is None else f"going on with the run in {encoder}")
    try:
        if more_epochs is not None:
            run = _gone_on(encoder, more_epochs, out, resume, overwrite)
        else:
            share_machine()
            run = fit_recipe(recipe, out, resume=resume, overwrite=overwrite, progress=True)
    # Before the first step, or at the second Ctrl-C; the first one ends the run below, with its best values.
    except KeyboardInterrupt:
        say("stopped at once; if there is a checkpoint, the same command with --resume goes on from it")
        raise
    if not is_first():
        return  # under torchrun one process writes and talks
    assert run.folder is not None
    from ..pages.run_page import report, use_lines
    from ..results.formatting import share

    # The page is drawn from the files that were written, like that of any other run.
    page = report(run.folder)
    # On stderr, so that stdout holds the JSON and nothing else.
    metric_name, details = run.details["metric"], run.details
    said = named(metric_name, details["task"]["positive"])
    before, after = run.baseline[metric_name], run.scores[metric_name]
    sure = interval_text(details["interval"])
    say(f"validation {said}: {figure(before)} with {details['start']}, {figure(after)} after training ({sure})")
    for note in run.notes:
        say(note)
    say(
        f"{run.delta.count_body:,} elements of the encoder ({share(details['share'])}) and {run.delta.count_head:,} of the head "
        f"trained in {run.seconds:.0f} s; the delta takes {details['delta_bytes']:,} bytes in {run.folder}; page: {page}"
    )
    say(*use_lines(run.folder, details["task"]["text_columns"]))
    # The delta of an interrupted run is whole and can be used; its checkpoint is kept beside it.
    if run.stopped == "interrupted":
        say("to go on: the same command with --resume")
    print_json(run.as_json(), as_json)
    if run.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)  # or a script would go on as if the run were whole


def _method_of(start_from: str | None, method: str | None, is_recipe: bool) -> str | None:
    """`method`, or that of the run to start from where neither it nor a recipe is given."""
    from ..changes.delta_header import header_of

    return header_of(start_from)["method"] if start_from and method is None and not is_recipe else method


def _gone_on(run: str, epochs: int, out: Path | None, resume: bool, overwrite: bool) -> Any:
    """The finished run `run` after so many more epochs; raises InputError as `more_epochs` does."""
    from ..changes.delta_header import header_of
    from ..results.run_folder import settle

    settle(Path(run))
    header_of(run)  # before torch is imported
    from ..training.more_epochs import more_epochs

    share_machine()
    made = more_epochs(run, epochs, out, resume=resume, overwrite=overwrite, progress=True)
    if made.stopped == "interrupted":
        say(f"the run in {run} is as it was; what follows is said of the added epochs, in {made.folder}")
    return made


def _check_more(given: dict[str, Any]) -> None:
    """Raises InputError for options beside --more-epochs that the run's own recipe decides."""
    if given["more_epochs"] is None:
        return
    kept = ("encoder", "more_epochs", "out", "resume", "overwrite", "as_json")
    others = [name for name, value in given.items() if name not in kept and value not in (None, False, {})]
    if others:
        named = ", ".join(
            "TASK" if name == "task" else "--" + name.replace("_", "-") if name != "reading" else "options of the table"
            for name in others
        )
        raise InputError(
            f"--more-epochs goes on with a run by its own recipe: leave out {named} (--start-from RUN begins a new run at it)"
        )


def _token_count(text: str | None) -> int | None:
    """What --tokens-per-batch says: a number, or "auto", which settings write as 0; None where it was not given.

    Raises InputError for anything else.
    """
    if text is None or text == "auto":
        return None if text is None else 0
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"--tokens-per-batch {text}: give a number above 0, or auto")
    return int(text)


@reads_tables("skip_bad_rows", "missing_label", "label_separator", "encoding", "no_header")
def evaluate(
    run: RunFolder,
    task: Annotated[str | None, typer.Argument(help="Default: the task it was trained on.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: test where labelled, else validation.")] = None,
    # Of the task named here; the run's own is read with the columns that the run has noted.
    text: Text = None,
    label: Label = None,
    reading: Reading = NOTHING,
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
    chosen = choose_rows(described["task"], Path(run), task, split, text=text, label=label, **reading)
    place = find_base(described["base"], encoder)
    # Not before the rows are known to be right: torch takes seconds.
    from ..inference.predictor import Predictor, score_rows

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


@reads_tables("encoding", "no_header")
def predict(
    # Texts come from the command line or from a file; options of the other way are refused.
    run: RunFolder,
    text: Annotated[list[str] | None, typer.Option(help="A text to answer; repeat for more.")] = None,
    text_pair: Annotated[list[str] | None, typer.Option(help="The second text of each pair.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of texts, answered row by row.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the answers go: .csv, .tsv, .jsonl (also with .gz) or .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier answers in --out.")] = False,
    # Not --text: here that is a text and no column.
    columns: Annotated[str | None, typer.Option(help="Text column(s) of the file, if named otherwise.")] = None,
    reading: Reading = NOTHING,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Answer texts, or a file's rows with label and probabilities added."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base
    from ..inference.predict_file import open_rows, predict_rows
    from ..tasks.reading import Reading as TableReading
    from ..tasks.task import Task

    # Before torch is imported and the encoder is loaded.
    if (file is None) == (not text):
        raise InputError('give --text "..." (once or more) or --file FILE, and not both')
    if file is not None and text_pair:
        raise InputError("--text-pair goes with --text; the texts of --file are in its columns (--columns a,b)")
    if file is None and (out is not None or columns is not None or reading or overwrite):
        raise InputError(
            "--out, --overwrite, --columns, --encoding and --no-header go with --file; the answers to --text are printed"
        )
    if text is not None and text_pair is not None and len(text_pair) != len(text):
        raise InputError(f"{len(text)} --text but {len(text_pair)} --text-pair: give one of each for every pair")
    if file is not None and out is None:
        raise InputError("say where the answers go: --out scored.csv (or .tsv, .jsonl, .parquet)")
    described, rows = header_of(run), None
    if file is not None and out is not None:
        trained, how = Task.from_description(described["task"]), TableReading(**reading)
        rows = open_rows(trained, file, out, columns, reading=how, overwrite=overwrite)
    place = find_base(described["base"], encoder)
    from ..inference.predictor import Predictor
    from ..inference.predictor import predict as predict_texts

    share_machine()
    # The encoder is loaded once, whichever way the texts come.
    predictor = Predictor(run, place)
    if rows is not None and file is not None and out is not None:
        counts = predict_rows(predictor, rows, file, out, progress=True)
        say(f"{counted(counts.rows, 'row')} in {out}{counts.odd(predictor.delta.max_length)}")
        # The answers are in the file; what is printed are counts.
        return print_json(counts._asdict() | {"out": str(out)}, as_json)
    assert text is not None
    # A pair is a tuple of both texts.
    texts: list[Any] = list(zip(text, text_pair, strict=True)) if text_pair else text
    found = [answer.as_json() for answer in predict_texts(predictor, texts)]
    # One answer a line; with --json all of them in one object.
    if not as_json:
        for answer in found:
            print(json_line(answer))
    print_json({"answers": found}, as_json)


def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="merged: a plain Hugging Face folder.")] = "merged",
    out: Annotated[Path | None, typer.Option(help="Default: RUN/merged.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Write a run in a form that other programs load."""
    from ..changes.delta_header import header_of
    from ..exports.merged import export as export_run
    from ..tasks.task import Task

    # What is wrong with `to`, the run or `out` is told there before torch is imported.
    folder = export_run(run, to, out, encoder)
    say(f"written to {folder}")
    if line := Task.from_description(header_of(run)["task"]).answering.line():
        say(f"{line} The folder does not know of it: apply it to the probabilities of its answers")
    print_json({"out": str(folder)}, as_json)


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
