"""Subcommand predict: a prediction for each text, or for the rows of a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, counted
from .options import NOTHING, EncoderOption, Json, ReadingOptions
from .output import json_line, print_json, say, share_machine

if TYPE_CHECKING:
    from ..inference.row_predictor import RowPredictor
    from ..tasks.task import Task

RunsOrUrl = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="The folder of a finished run (of several: an ensemble), OWNER/NAME on the hub, or a task's URL.",
    ),
]


def predict(
    # Texts come from the command line or from a file; options of the other way are refused.
    runs: RunsOrUrl,
    text: Annotated[list[str] | None, typer.Option(help="A text to predict for; repeat for more.")] = None,
    text_pair: Annotated[list[str] | None, typer.Option(help="The second text of each pair.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of texts, predicted row by row.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the predictions go: .csv, .tsv, .jsonl (also with .gz) or .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier predictions in --out.")] = False,
    # Not --text: here that is a text and no column.
    columns: Annotated[str | None, typer.Option(help="Text column(s) of the file, if named otherwise.")] = None,
    reading: ReadingOptions = NOTHING,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Predict texts, or add label and probabilities to a file's rows; of several runs the probabilities are averaged."""
    from ..inference.predict_file import open_rows, predict_rows
    from ..inference.row_predictor import predict_texts
    from ..tasks.reading import Reading

    # Before torch is imported and the encoder is loaded.
    _check_options(text, text_pair, file, out, for_file=bool(columns is not None or reading or overwrite))
    with _opened(runs, encoder) as (task, load):
        # The encoder is loaded once, whichever way the texts come.
        if file is not None and out is not None:
            rows = open_rows(task, file, out, columns, reading=Reading(**reading), overwrite=overwrite)
            predictor = load()
            counts = predict_rows(predictor, rows, file, out, progress=True)
            say(f"{counted(counts.rows, 'row')} in {out}{counts.odd(predictor.max_length)}")
            # The predictions are in the file; what is printed are counts.
            return print_json(counts._asdict() | {"out": str(out)}, as_json)
        assert text is not None
        # A pair is a tuple of both texts.
        texts: list[Any] = list(zip(text, text_pair, strict=True)) if text_pair else text
        found = [prediction.as_json() for prediction in predict_texts(load(), texts)]
        # One prediction a line; with --json all of them in one object.
        if not as_json:
            for prediction in found:
                print(json_line(prediction))
        print_json({"answers": found}, as_json)


def _check_options(
    text: list[str] | None, text_pair: list[str] | None, file: Path | None, out: Path | None, *, for_file: bool
) -> None:
    """Raises InputError for options of both ways, or of none; `for_file` is whether others than --out are given for a file."""
    if (file is None) == (not text):
        raise InputError('give --text "..." (once or more) or --file FILE, and not both')
    if file is not None and text_pair:
        raise InputError("--text-pair goes with --text; the texts of --file are in its columns (--columns a,b)")
    if file is None and (out is not None or for_file):
        raise InputError(
            "--out, --overwrite, --columns, --encoding and --no-header go with --file; the predictions for --text are printed"
        )
    if text is not None and text_pair is not None and len(text_pair) != len(text):
        raise InputError(f"{len(text)} --text but {len(text_pair)} --text-pair: give one of each for every pair")
    if file is not None and out is None:
        raise InputError("say where the predictions go: --out scored.csv (or .tsv, .jsonl, .parquet)")


@contextmanager
def _opened(runs: list[str], encoder: str | None) -> Iterator[tuple["Task", Callable[[], "RowPredictor"]]]:
    """The task of runs or of a URL, and a function that loads what predicts; raises InputError where there is none."""
    run = next((each for each in runs if each.lower().startswith(("http://", "https://"))), None)
    if run is not None:
        if len(runs) > 1:
            raise InputError(f"{run} is a URL, and an ensemble is of folders of runs: give it alone")
        from ..serving.remote_predictor import RemotePredictor

        if encoder is not None:
            raise InputError("--encoder goes with the folder of a run: the server of a URL has its own")
        with RemotePredictor(run) as remote:
            yield remote.task, lambda: remote
        return
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base
    from ..exports.hub import is_hub_name
    from ..inference.ensemble import check_alike, task_of
    from ..tasks.task import Task

    folders = [_fetched(each) if is_hub_name(each) else each for each in runs]
    headers = [header_of(each) for each in folders]
    check_alike(headers, runs)

    def load() -> "RowPredictor":
        place = find_base(headers[0]["base"], encoder)
        from ..inference.predictor import Predictor

        share_machine()
        return Predictor(list(folders), place)

    yield task_of([Task.from_description(each["task"]) for each in headers]), load


def _fetched(name: str) -> str:
    """The folder of a run of the hub, which is fetched where it is not there yet."""
    from ..exports.pull import fetched

    folder, note = fetched(name)
    say(note)
    return str(folder)
