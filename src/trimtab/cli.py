"""The command line: one subcommand per library verb, of the same name. Progress goes to stderr, answers to stdout."""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import InputError

app = typer.Typer(
    help="Fine-tune pretrained encoders by training the few parameters that matter.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Text = Annotated[str | None, typer.Option(help="Text column, or two of a pair: a,b.")]
Label = Annotated[str | None, typer.Option(help="Label column, or several 0/1 columns: a,b,c.")]
Kind = Annotated[str | None, typer.Option(help="single_label, multi_label or regression.")]
Metric = Annotated[str | None, typer.Option(help="Main metric, by which the best step is chosen.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Encoder, if not where the run says.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


@app.command()
def fit(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder, a hub id; or a recipe.toml and no TASK.")],
    task: Annotated[str | None, typer.Argument(help="helpdesk, a file, a folder of splits, or a hub id.")] = None,
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    method: Annotated[
        str | None, typer.Option(help="What to train: layer_norms, lora:rank=8, biases+head, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-METHOD.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the method's own, 5 for most; more on few rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts per optimizer step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: the method's own.")] = None,
    head_lr: Annotated[float | None, typer.Option(help="Peak learning rate of the head.")] = None,
    weight_decay: Annotated[float | None, typer.Option()] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens per text; longer ones are cut.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    head: Annotated[str | None, typer.Option(help="default (Hugging Face's own) or linear (compact).")] = None,
    class_weights: Annotated[str | None, typer.Option(help="none or balanced.")] = None,
    label_smoothing: Annotated[float | None, typer.Option()] = None,
    dropout: Annotated[float | None, typer.Option(help="Default: the encoder's own.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Validate every N steps; default: every epoch.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after N validations without a better score.")] = None,
    train_limit: Annotated[int | None, typer.Option(help="Train on N rows, after a seeded shuffle.")] = None,
    tokens_per_batch: Annotated[
        str | None, typer.Option(help="Tokens in one forward pass, which bound memory; default auto: what fits.")
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(help="Most GB of disk for tokens and frozen layers' outputs.")
    ] = None,
    compute: Annotated[str | None, typer.Option(help="Frozen matrices in auto, float32 or bfloat16.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows with no text or no label.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train what a method chooses, keep the best, write a run folder with a report."""
    given = dict(locals())
    from dataclasses import fields

    from .studies.report import report
    from .training.ranks import is_first
    from .training.recipe import Recipe, Settings
    from .training.repeat import fit_recipe

    is_recipe = encoder.endswith(".toml")
    if not is_recipe and task is None:
        raise InputError(
            "give an encoder and a task (trimtab fit minilm helpdesk), or a recipe (trimtab fit mine.toml)"
        )
    base = Recipe.load(Path(encoder)) if is_recipe else Recipe(encoder=encoder)
    columns = None if text is None else tuple(text.split(","))
    settings = {field.name: given[field.name] for field in fields(Settings)}
    settings["tokens_per_batch"] = _token_count(tokens_per_batch)
    recipe = base.changed(
        task=task, text=columns, label=label, kind=kind, metric=metric, method=method,
        skip_bad_rows=skip_bad_rows or None, **settings,
    )  # fmt: skip
    run = fit_recipe(recipe, out, resume=resume, overwrite=overwrite, progress=True)
    if not is_first():
        return  # under torchrun one process writes and talks
    assert run.folder is not None
    page = report(run.folder)
    metric_name, details = run.details["metric"], run.details
    _say(
        f"validation {metric_name}: {run.baseline[metric_name]:.3f} before, {run.scores[metric_name]:.3f} after training"
    )
    for note in run.notes:
        _say(note)
    _say(
        f"{run.delta.count_body:,} elements of the encoder ({details['share']:.3%}) and {run.delta.count_head:,} of the head "
        f"trained in {run.seconds:.0f} s; the delta takes {details['delta_bytes']:,} bytes in {run.folder}; page: {page}"
    )
    if run.stopped == "interrupted":
        _say("to go on: the same command with --resume")
    _answer(run.as_json(), as_json)


def _token_count(text: str | None) -> int | None:
    """What --tokens-per-batch says: a number, or "auto", which settings write as 0."""
    if text is None or text == "auto":
        return None if text is None else 0
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"--tokens-per-batch {text}: give a number above 0, or auto")
    return int(text)


@app.command()
def evaluate(
    run: RunFolder,
    task: Annotated[str | None, typer.Argument(help="Default: the task it was trained on.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: test where labelled, else validation.")] = None,
    text: Text = None,
    label: Label = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Score a run on a task's test (or validation) rows."""
    from .training.use import evaluate as evaluate_run

    found = evaluate_run(run, task, split, encoder, text=text, label=label)
    _say(f"{found['split']}, {found['rows']:,} rows")
    for name, value in found["scores"].items():
        _say(f"  {name:<20} {value:.4f}")
    _answer(found, as_json)


@app.command()
def predict(
    run: RunFolder,
    text: Annotated[list[str] | None, typer.Option(help="A text to answer; repeat for more.")] = None,
    text_pair: Annotated[list[str] | None, typer.Option(help="The second text of each pair.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of texts, answered row by row.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the answers go: .csv, .tsv or .jsonl.")] = None,
    columns: Annotated[str | None, typer.Option(help="Text column(s) of the file, if named otherwise.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Answer texts, or a file's rows with label and probabilities added."""
    from .training.predict_file import predict_file
    from .training.use import Predictor
    from .training.use import predict as predict_texts

    if (file is None) == (not text):
        raise InputError('give --text "..." (once or more) or --file FILE, and not both')
    predictor = Predictor(run, encoder)
    if file is not None:
        if out is None:
            raise InputError("say where the answers go: --out scored.csv (or .tsv, .jsonl)")
        count = predict_file(predictor, file, out, columns)
        _say(f"{count:,} rows answered in {out}")
        return _answer({"rows": count, "out": str(out)}, as_json)
    assert text is not None
    if text_pair is not None and len(text_pair) != len(text):
        raise InputError(f"{len(text)} --text but {len(text_pair)} --text-pair: give one of each for every pair")
    texts: list[Any] = list(zip(text, text_pair, strict=True)) if text_pair else text
    found = [answer.as_json() for answer in predict_texts(predictor, texts)]
    if not as_json:
        for answer in found:
            print(json.dumps(answer, ensure_ascii=False))
    _answer({"answers": found}, as_json)


@app.command()
def inspect(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder or a hub id.")],
    head: Annotated[str, typer.Option(help="default or linear.")] = "default",
    as_json: Json = False,
) -> None:
    """Show layers x kinds with element counts, and what each method would train."""
    from .changes.inspect import inspect as inspect_encoder
    from .encoders.encoder import load
    from .terminal import inspection_tables

    found = inspect_encoder(load(encoder), head)
    if not as_json:
        inspection_tables(found)
    _answer(found.as_json(), as_json)


@app.command()
def fisher(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder or a hub id.")],
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="One task, or several with --global.")],
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    within: Annotated[
        str, typer.Option(help="The elements to measure, as a method; full is all of them.")
    ] = "layer_norms",
    estimator: Annotated[str, typer.Option(help="empirical, sampled or exact.")] = "empirical",
    examples: Annotated[int, typer.Option(help="Training rows to measure on.")] = 1024,
    head_steps: Annotated[int, typer.Option(help="Steps of training the head alone before measuring.")] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    max_length: Annotated[int, typer.Option(help="Tokens per text; longer ones are cut.")] = 256,
    compute: Annotated[str, typer.Option(help="float32, or auto: faster, and right to about 1%.")] = "float32",
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
    from .changes.fisher import mean_of
    from .changes.notation import parse_method
    from .changes.selection import wanted_count
    from .encoders.encoder import load
    from .studies.heatmap import draw_heat_map, means_by_place
    from .studies.information import advice
    from .studies.information import fisher as measure
    from .tasks.read import read
    from .terminal import information_tables

    if (len(tasks) > 1) != is_global:
        raise InputError("--global averages over two tasks or more, and several tasks need --global")
    if save_selection is not None and (share is None) == (count is None):
        raise InputError("--save-selection needs --share or --count, to know how many elements to keep")
    if save_selection is not None:
        wanted_count("fisher", sys.maxsize, count, share)  # before hours of measuring
    method, loaded, infos = parse_method(within), load(encoder), []
    for name in tasks:
        info = measure(
            loaded, read(name, text=text, label=label, kind=kind), method, examples=examples, estimator=estimator,
            seed=seed, head_steps=head_steps, max_length=max_length, compute=compute, progress=True,
        )  # fmt: skip
        _say(f"{info.notes['task']}: {advice(info)}")
        infos.append(info)
    found, title = (mean_of(infos), f"{len(tasks)} tasks") if is_global else (infos[0], infos[0].notes["task"])
    out = out or Path("runs") / f"{'global' if is_global else title}-fisher.safetensors"
    if not as_json:
        information_tables(found)
    answer = {"tasks": tasks, "estimator": estimator, "rows": [len(info.rows) for info in infos]}
    answer |= {
        "stability": [info.stability for info in infos],
        "by_kind": found.by("kind"),
        "by_layer": found.by("layer"),
    }
    found.save(out)
    heading = f"Fisher information ({estimator}): {title} on {encoder}"
    plot = draw_heat_map(
        *means_by_place(found.parts, found.sums()), heading, "mean per element", out.with_suffix(".png")
    )
    _say(f"written to {out}; heat map: {plot}")
    answer |= {"out": str(out), "plot": str(plot)}
    if save_selection is not None:
        chosen = found.top(share, count)
        chosen.save(save_selection)
        _say(
            f"{chosen.count:,} elements written to {save_selection}: fit takes them as --method selection:file={save_selection}"
        )
        answer |= {"selection": str(save_selection), "selected": chosen.count}
    _answer(answer, as_json)


@app.command()
def compare(
    encoder: Annotated[str, typer.Argument(help="minilm, a folder or a hub id.")],
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="A file, a folder, a hub id or helpdesk; or several.")
    ],
    method: Annotated[list[str] | None, typer.Option(help="A method; repeat for more.")] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each method on each task.")] = 3,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared to; default: the first method.")
    ] = None,
    text: Text = None,
    label: Label = None,
    kind: Kind = None,
    metric: Metric = None,
    out: Annotated[Path, typer.Option(help="Where the cells live; a study that was stopped goes on.")] = Path(
        "runs/compare"
    ),
    report: Annotated[
        Path | None, typer.Option(help="A page (.html) or tables (.md); default: OUT/methods.html.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: each method's own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts per optimizer step.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of all methods; default: each method's own.")
    ] = None,
    head_lr: Annotated[float | None, typer.Option(help="Peak learning rate of the head.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens per text; longer ones are cut.")] = None,
    head: Annotated[str | None, typer.Option(help="default or linear.")] = None,
    train_limit: Annotated[int | None, typer.Option(help="Train on N rows, after a seeded shuffle.")] = None,
    compute: Annotated[str | None, typer.Option(help="Frozen matrices in auto, float32 or bfloat16.")] = None,
    as_json: Json = False,
) -> None:
    """Fit several methods on one or more tasks with several seeds, and say which to take."""
    given = dict(locals())
    from .changes.notation import parse_method
    from .encoders.encoder import load
    from .studies.compare import compare as compare_methods
    from .studies.comparison_page import markdown
    from .tasks.read import read

    names = ("epochs", "batch_size", "lr", "head_lr", "max_length", "head", "train_limit", "compute")
    settings = {name: given[name] for name in names if given[name] is not None}
    methods = [parse_method(each) for each in method or ("full", "layer_norms", "biases", "lora", "head")]
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least one fit of each method is needed")
    read_tasks = [read(name, text=text, label=label, kind=kind, metric=metric) for name in tasks]
    found = compare_methods(
        load(encoder), read_tasks, methods, seeds, out=out, progress=True,
        reference=None if reference is None else parse_method(reference), **settings,
    )  # fmt: skip
    page = found.report(report or out / "methods.html")
    if not as_json:
        print(markdown(found), end="")
    _say(f"written to {page}")
    _answer(found.as_json() | {"report": str(page)}, as_json)


@app.command()
def movement(
    run: RunFolder,
    fisher: Annotated[
        Path | None, typer.Option(help="Information measured before training (trimtab fisher): was this foreseen?")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Default: RUN/movement.png.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Show how far training moved each kind and layer of the encoder."""
    from .changes.fisher import Fisher
    from .studies.heatmap import draw_heat_map, means_by_place
    from .studies.movement import movement as movement_of
    from .terminal import foreseen_table, movement_tables

    found = movement_of(run, encoder)
    seen = None if fisher is None else found.foreseen_by(Fisher.load(fisher))
    if not as_json:
        movement_tables(found)
        if seen is not None:
            foreseen_table(seen)
    heading = f"Movement: {found.notes['task']}, {found.notes['method']}"
    places = means_by_place(found.parts, found.sums())
    picture = draw_heat_map(*places, heading, "mean absolute change", plot or Path(run) / "movement.png")
    _say(f"heat map: {picture}")
    answer = {"by_kind": found.by("kind"), "by_layer": found.by("layer"), "plot": str(picture)}
    _answer(answer | ({} if seen is None else {"foreseen": seen}), as_json)


@app.command()
def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="merged: a plain Hugging Face folder.")] = "merged",
    out: Annotated[Path | None, typer.Option(help="Default: RUN/merged.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Write a run in a form that other programs load."""
    from .training.export import export as export_run

    folder = export_run(run, to, out, encoder)
    _say(f"written to {folder}")
    _answer({"out": str(folder)}, as_json)


@app.command()
def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Default: RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's page again."""
    from .studies.report import report as write_report

    page = write_report(run, out)
    _say(f"written to {page}")
    _answer({"out": str(page)}, as_json)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _answer(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, ensure_ascii=False))


def main() -> None:
    """Runs the command line; InputError becomes one message and exit code 2."""
    warnings.showwarning = lambda message, *place: _say(f"trimtab: {message}")
    try:
        app()
    except InputError as error:
        print(f"trimtab: {error}", file=sys.stderr)
        sys.exit(2)
