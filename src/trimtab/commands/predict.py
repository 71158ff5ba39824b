"""Subcommand predict: a prediction for each text, or for the rows of a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, counted
from .options import NOTHING, EncoderOption, Json, ReadingOptions, RunFolder
from .output import json_line, print_json, say, share_machine


def predict(
    # Texts come from the command line or from a file; options of the other way are refused.
    run: RunFolder,
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
    """Predict texts, or add label and probabilities to a file's rows."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base
    from ..inference.predict_file import open_rows, predict_rows
    from ..tasks.reading import Reading
    from ..tasks.task import Task

    # Before torch is imported and the encoder is loaded.
    if (file is None) == (not text):
        raise InputError('give --text "..." (once or more) or --file FILE, and not both')
    if file is not None and text_pair:
        raise InputError("--text-pair goes with --text; the texts of --file are in its columns (--columns a,b)")
    if file is None and (out is not None or columns is not None or reading or overwrite):
        raise InputError(
            "--out, --overwrite, --columns, --encoding and --no-header go with --file; the predictions for --text are printed"
        )
    if text is not None and text_pair is not None and len(text_pair) != len(text):
        raise InputError(f"{len(text)} --text but {len(text_pair)} --text-pair: give one of each for every pair")
    if file is not None and out is None:
        raise InputError("say where the predictions go: --out scored.csv (or .tsv, .jsonl, .parquet)")
    described, rows = header_of(run), None
    if file is not None and out is not None:
        trained, how = Task.from_description(described["task"]), Reading(**reading)
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
        # The predictions are in the file; what is printed are counts.
        return print_json(counts._asdict() | {"out": str(out)}, as_json)
    assert text is not None
    # A pair is a tuple of both texts.
    texts: list[Any] = list(zip(text, text_pair, strict=True)) if text_pair else text
    found = [prediction.as_json() for prediction in predict_texts(predictor, texts)]
    # One prediction a line; with --json all of them in one object.
    if not as_json:
        for prediction in found:
            print(json_line(prediction))
    print_json({"answers": found}, as_json)
