"""The record of a run: scores.json, history.jsonl and its card, written and read here and nowhere else.

Every field a page uses is checked, so that a damaged file is named and not half drawn.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_json, write_text
from .run_folder import CARD, HISTORY, SCORES

# A shape describes a JSON value: a type (float takes whole numbers too), [shape] a list of it, {"name": shape} an
# object with at least these fields, {str: shape} an object with any names, and a tuple of shapes: any one of them.
# A field that may be null (None) may also be left out: reading puts the null there.
NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
MISSING = object()  # stands for a field that is not there: it has no shape
SCORE = (float, None)  # null or NaN where a score is undefined, such as a correlation of constant predictions
LABEL = (str, float, [str])  # one class, a number, or several classes

# What the probabilities of the validation rows were like.
PROBABILITIES = {
    "calibration_error": SCORE,
    "loss": SCORE,
    "bins": [{"decisions": int, "confidence": float, "right": float}],  # those of confidence that hold any
}

# One line of history.jsonl.
EVALUATION = {
    "step": int,  # optimizer steps taken; 0 is the baseline, before training
    "epoch": float,
    "train_loss": (float, None),  # mean since the evaluation before; null at step 0
    "validation_loss": SCORE,
    "scores": {str: SCORE},  # by metric
    "lr": float,
    "seconds": (float, None),  # since the start of the run
}

# scores.json.
DETAILS = {
    "run": str,
    "task": {
        "name": str,
        "kind": str,
        "classes": [str],  # in index order; empty for regression
        "text_columns": [str],  # one name, or two for pairs
        "label_column": str,
        "metric": str,
        "source": str,  # what `read` was given
    },
    "encoder": {
        "name": str,
        "revision": (str, None),
        "sha256": (str, None),  # of the weights
        "model_type": str,
        "layers": int,
        "parameters": int,  # of the backbone
    },
    "method": str,  # as on the command line
    "metric": str,  # the main one, by which the best step was chosen
    "split": str,  # the one that was scored
    "scores": {str: SCORE},  # at the best step
    # 95% of the main score; null (older runs) where there is none, and an end that is null is without limit.
    "interval": ({"low": (float, None), "high": (float, None), "rows": int}, None),
    # Of classes; null in older runs. Without a temperature that was fitted, "after" is null.
    "calibration": (
        {
            "temperature": float,
            "fitted": bool,
            "rows": int,
            "risk_coverage": ([{"coverage": float, "error": float}], None),  # null where a row may have several classes
            "before": PROBABILITIES,
            "after": (PROBABILITIES, None),
        },
        None,
    ),
    # Null where all rows have an answer, and in older runs.
    "abstention": (
        {"below": float, "asked": float, "answered": int, "wrong": int, "rows": int, "level": float},
        None,
    ),
    "judged_by": (str, None),  # the score by which the best step was chosen; null (older runs): the main one
    "baseline": {str: SCORE},  # before training, of the same names
    "start": (str, None),  # what the baseline is of, in words; null in older runs
    "metrics": {str: {"higher_is_better": bool, "low": (float, None), "high": (float, None)}},  # null: no end
    "elements": {"body": int, "head": int},  # trained
    "share": float,  # of the backbone
    "seconds": float,  # the whole run, tokenisation, validation and saving included
    "examples_per_second": (float, None),
    "peak_memory_bytes": (int, None),
    "delta_bytes": int,
    "best_step": int,  # one of the steps of history.jsonl
    "steps": int,
    "epochs_done": (int, None),  # begun ones count; null in older runs
    "stopped": (str, None),  # "early", "interrupted" or another reason; null for a whole run
    "notes": [str],  # what the curves say, in plain words
    "settings": {},  # hyperparameters by name, whatever they are
    "versions": {str: str},  # by package
    "rows": {str: {"rows": int, "classes": {str: int}}},
    "survey": [str],  # what was found in the rows, in plain words
    "truncation": {str: {"rows": int, "rows_cut": int, "tokens": int, "tokens_cut": int}},
    "max_length": int,  # tokens
    # Both tables have a row for each layer and a column for each kind; the kind "head" is not of the backbone.
    "trained": {"layers": [str], "kinds": [str], "selected": [[int]], "total": [[int]]},
    "confusion": ([[int]], None),  # true classes by predicted classes; only where a row has one class
    "per_class": [{"class": str, "precision": SCORE, "recall": SCORE, "f1": SCORE, "rows": int}],
    # The hardest first; `row` counts from 1, as the source counts its rows or lines, and `probability` is that of the
    # predicted class. Beside these: "text", or
    # "text_a" and "text_b".
    "mistakes": [
        {
            "row": int,
            "unit": (str, None),
            "label": LABEL,
            "predicted": LABEL,
            "probability": (float, None),
            "loss": SCORE,
        }
    ],
}


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on disk: the contents of scores.json, and one evaluation per line of history.jsonl."""

    path: Path
    scores: dict[str, Any]
    history: list[dict[str, Any]]  # in order of steps; the first is the baseline at step 0


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object per validation, one per line."""
    write_text(folder / HISTORY, "".join(json.dumps(entry) + "\n" for entry in history))


def write_record(folder: Path, details: Mapping[str, Any], history: Sequence[Mapping[str, Any]], card: str) -> None:
    """Writes what a run came to, scores.json behind the history, and the card last; raises InputError as `replacing` does."""
    write_history(folder, history)
    write_json(folder / SCORES, dict(details))
    write_text(folder / CARD, card)


def read_run_folder(path: Path) -> RunFolder:
    """The run in the folder `path`; raises InputError that names the file when one is missing or damaged."""
    if not path.is_dir():
        raise InputError(f"{path} is not a run folder; give the folder that `trimtab fit ... --out` wrote")
    # First every field by itself, then what the fields say of each other.
    scores_file, history_file = path / SCORES, path / HISTORY
    scores = _parsed(_text(scores_file), DETAILS, str(scores_file))
    lines = [(n, line) for n, line in enumerate(_text(history_file).splitlines(), 1) if line.strip()]
    history = [_parsed(line, EVALUATION, f"{history_file}, line {n}") for n, line in lines]
    for fault in _scores_faults(scores):
        raise _damaged(str(scores_file), fault)
    for fault in _history_faults(history, scores["metric"], scores["best_step"]):
        raise _damaged(str(history_file), fault)
    return RunFolder(path, scores, history)


def _text(file: Path) -> str:
    """What the file holds; raises InputError where there is none or it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{file.name} is missing from {file.parent}; give the folder of a run, or run `trimtab fit` again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(str(file), f"cannot be read ({error})") from None


def _parsed(text: str, shape: Any, where: str) -> Any:
    """The JSON value in `text`, once it is known to have the shape."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _damaged(where, f"is not JSON ({error})") from None
    fault = shape_fault(value, shape)
    if fault:
        raise _damaged(where, fault)
    return value


def _damaged(where: str, fault: str) -> InputError:
    """The error for the file `where`: what is wrong with it, and what to do."""
    return InputError(f"{where} is damaged: {fault}. Run `trimtab fit` again, or restore the file.")


def shape_fault(value: Any, shape: Any, at: str = "it") -> str | None:
    """What is wrong with `value`, and at which field, when it lacks the shape; None when it has it."""
    if value is MISSING:
        return f"{at} is missing"
    if isinstance(shape, tuple):
        # The first shape is the usual one, so its fault says most.
        faults = [shape_fault(value, one, at) for one in shape]
        return None if None in faults else faults[0]
    if shape is None:
        return None if value is None else f"{at} should be null"
    kind = shape if isinstance(shape, type) else type(shape)
    if not _is(value, kind):
        return f"{at} should be {NAMES[kind]}, found {_excerpt(value)}"
    inside = _items(value, shape, "" if at == "it" else f"{at}.")
    return next((fault for name, item, one in inside if (fault := shape_fault(item, one, name))), None)


def _is(value: Any, kind: type) -> bool:
    """isinstance as JSON sees it: a whole number is a number, and true and false are not."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _items(value: Any, shape: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, shape) of everything directly inside `value`; a missing field comes as MISSING."""
    if isinstance(shape, list):
        yield from ((f"{prefix.rstrip('.')}[{i}]", item, shape[0]) for i, item in enumerate(value))
    elif isinstance(shape, dict) and str in shape:
        yield from ((prefix + name, item, shape[str]) for name, item in value.items())
    elif isinstance(shape, dict):
        # In place: whoever reads the value after this finds every nullable field in it.
        value |= {name: None for name, one in shape.items() if name not in value and _nullable(one)}
        yield from ((prefix + name, value.get(name, MISSING), one) for name, one in shape.items())


def _nullable(shape: Any) -> bool:
    """Whether a field of this shape may be null, and so be left out."""
    return isinstance(shape, tuple) and None in shape


def _excerpt(value: Any) -> str:
    """The value as a message shows it, in at most 40 letters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _scores_faults(scores: dict[str, Any]) -> Iterator[str]:
    """Fields that have their shapes but contradict each other."""
    classes, trained = scores["task"]["classes"], scores["trained"]
    if scores["metric"] not in scores["scores"]:
        yield f"scores lacks the main metric {scores['metric']!r}"
    if scores["scores"].keys() - scores["baseline"].keys():
        yield f"baseline lacks {sorted(scores['scores'].keys() - scores['baseline'].keys())}"
    if scores["confusion"] is not None and not _is_table(scores["confusion"], len(classes), len(classes)):
        yield f"confusion should have {len(classes)} rows and columns, one for each class"
    for name in ("selected", "total"):
        if not _is_table(trained[name], len(trained["layers"]), len(trained["kinds"])):
            yield f"trained.{name} should have a row for each layer and a column for each kind"
    yield from _mistakes_faults(scores["mistakes"], scores["task"]["text_columns"])


def _mistakes_faults(mistakes: list[dict[str, Any]], text_columns: list[str]) -> Iterator[str]:
    """Mistakes without the texts that the task's rows have."""
    if len(text_columns) not in (1, 2):
        yield "task.text_columns should name one column or two"
    names = ["text"] if len(text_columns) == 1 else ["text_a", "text_b"]
    for i, mistake in enumerate(mistakes):
        if not all(isinstance(mistake.get(name), str) for name in names):
            yield f"mistakes[{i}] should have {' and '.join(names)}"


def _is_table(rows: list[list[int]], n_rows: int, n_columns: int) -> bool:
    """Whether the lists form a table of this size."""
    return len(rows) == n_rows and all(len(row) == n_columns for row in rows)


def _history_faults(history: list[dict[str, Any]], metric: str, best_step: int) -> Iterator[str]:
    """What the evaluations lack that scores.json speaks of."""
    if not history:
        yield "it holds no evaluation"
    if best_step not in [evaluation["step"] for evaluation in history]:
        yield f"it lacks the best evaluation, step {best_step}"
    for evaluation in history:
        if metric not in evaluation["scores"]:
            yield f"the evaluation at step {evaluation['step']} lacks {metric!r}"
