"""A run for a device without torch: a graph, its tokenizer, what its outputs mean, and a short program that predicts with it."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, suggestion
from ..files import write_json, write_text
from ..tasks.decision_rule import DecisionRule
from ..tasks.task import positive_class
from ..version import VERSION
from .guard import Form, Source, probe_rows
from .onnx_card import card, table_lines

if TYPE_CHECKING:
    from ..changes.delta import Delta
    from ..encoders.encoder import Encoder
    from ..encoders.inputs import ModelInputs
    from ..training.chosen_rows import ChosenRows

GRAPH, TOKENIZER, LABELS, CARD, PROGRAM, TASKS = (
    "model.onnx", "tokenizer.json", "labels.json", "card.md", "predict.py", "tasks",
)  # fmt: skip
AUTO, INT8 = "auto", ("auto", "dynamic", "blocks")  # what --int8 may be
MOST_ROWS = 2000  # that 8-bit forms are scored on, unless somebody says otherwise
OPTIONS = ("int8", "data", "rows")
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_ACTIVATIONS = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "none"}
_TOLERANCE = 1e-5  # of probabilities, or of a value as a share of it
_ROUNDINGS = 4  # times the run's own rounding that a graph may be from it, where that is more
_PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Raises InputError where the extra is missing."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(f"--to onnx needs {', '.join(lacking)}: pip install 'trimtab[onnx]'")


def check_options(options: Mapping[str, Any]) -> None:
    """Raises InputError for an 8-bit form that there is not, and for rows that nothing would be scored on."""
    form, rows = options.get("int8"), options.get("rows")
    if form is not None and form not in INT8:
        raise InputError(f"--int8 {form}{suggestion(form, INT8)}: one of {', '.join(INT8)}")
    if form is None and (rows is not None or options.get("data") is not None):
        raise InputError(
            "--data and --rows are what 8-bit forms are scored on: give --int8 auto too, or leave them out"
        )
    if rows is not None and rows < 1:
        raise InputError(f"--rows {rows}: at least 1")


def _refuse(described: Mapping[str, Any], run: Path) -> None:
    check_installed()


def _ready(described: Mapping[str, Any], run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the rows to score on under "chosen"; raises InputError where --int8 needs some and there are none."""
    check_options(options)
    found = dict(options)
    if options.get("int8") is not None:
        found["chosen"] = rows_to_score(described, run, options)
    return found


def rows_to_score(described: Mapping[str, Any], run: Path, options: Mapping[str, Any]) -> Any:
    """The ChosenRows that the run's 8-bit forms are scored on; None where there are none and the form is given.

    Raises InputError where there are none, and a form is to be chosen by them.
    """
    from ..training.chosen_rows import choose_rows

    try:
        return choose_rows(described["task"], run, options.get("data"), None)
    except InputError as error:
        if options["int8"] != AUTO and options.get("data") is None:
            return None
        raise InputError(
            f"--int8 scores its forms on rows that the run was not trained on, and there are none: {error} Give a file of "
            "labelled rows with --data, or the form itself, unscored, with --int8 blocks"
        ) from error


def _write(source: Source, folder: Path) -> None:
    from .onnx_graph import graph_of

    delta, base = source.delta, source.base
    model = delta.merged(base)
    graph = graph_of(model, inputs_read(base))
    about = about_folder(base, delta) | about_task(delta)
    write_folder(folder, graph, base, about)
    check_equal(program_of(folder).Model(folder, threads=1), model, base, delta)
    chosen = {} if source.options.get("chosen") is None else {None: (delta, source.options["chosen"])}
    finish_folder(folder, graph, about, {None: delta}, source.options, chosen)


def write_folder(folder: Path, graph: Any, base: Encoder, about: Mapping[str, Any]) -> None:
    """The graph in float32, the tokenizer, the program and `about` as labels.json."""
    import onnx

    onnx.save(graph, folder / GRAPH)
    write_tokenizer(base, folder)
    write_json(folder / LABELS, {**about, "form": "float32"})
    shutil.copyfile(Path(__file__).with_name("device_predict.py"), folder / PROGRAM)


def finish_folder(
    folder: Path, graph: Any, about: Mapping[str, Any], deltas: Mapping[Any, Delta], options: Mapping[str, Any],
    chosen: Mapping[Any, tuple[Delta, ChosenRows]],
) -> None:  # fmt: skip
    """Takes the 8-bit form that the options ask for, scored on the `chosen` rows, and writes the card of `deltas`, by task."""
    table = None
    if form := options.get("int8"):
        from .onnx_scores import Scored, settle_int8

        rows = options.get("rows") or MOST_ROWS
        scored = [Scored.of(name, delta, found, rows) for name, (delta, found) in chosen.items()]
        table = settle_int8(folder, graph, form, scored).as_json()
        write_json(folder / LABELS, {**about, "form": table["kept"], "int8": table})
    names = None if None in deltas else list(deltas)
    write_text(folder / CARD, card(list(deltas.values()), names, table))


def _check(source: Source, folder: Path) -> None:
    """What lies in the folder is read by its own program; 8-bit forms have been scored by it, and float32 compared."""
    program = program_of(folder)
    for row in probe_rows(source.delta.task):
        found = program.Model(folder, threads=1).predict(*(row if isinstance(row, tuple) else (row,)))
        if not found:
            raise InputError(
                f"what was written to {folder} predicts nothing: this is a fault of trimtab, tell its authors"
            )


def inputs_read(base: Encoder) -> list[str]:
    """The names of the tensors that models of `base` read; raises InputError where its tokenizer has no tokenizer.json."""
    if not getattr(base.tokenizer, "is_fast", False):
        raise InputError(
            f"the tokenizer of encoder {base.name!r} is Python code of transformers, which a device without it cannot run: "
            "export --to merged, or serve the run with trimtab serve"
        )
    segments = ["token_type_ids"] if "token_type_ids" in base.tokenizer.model_input_names else []
    return ["input_ids", "attention_mask", *segments]


def write_tokenizer(base: Encoder, folder: Path) -> None:
    """tokenizer.json of whole texts: what is read of a text that is too long, the program decides as the run does."""
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(base.tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.save(str(folder / TOKENIZER))


def about_folder(base: Encoder, delta: Delta) -> dict[str, Any]:
    """What all tasks of a folder share: how texts become rows of ids, and what it was made of."""
    return {
        "format": 1, "cut": base.tokenizer.truncation_side, "pairs": delta.pairs,
        "padding": getattr(base.config, "pad_token_id", None) or 0,
        "base": {name: delta.base[name] for name in ("name", "revision", "sha256", "model_type")},
        "versions": {"trimtab": VERSION} | {name: version(name) for name in _PACKAGES},
    }  # fmt: skip


def about_task(delta: Delta) -> dict[str, Any]:
    """What the logits of a task mean, and how texts are cut for it."""
    task, rule = delta.task, DecisionRule.from_json(delta.task)
    return {
        "task": task["name"], "kind": task["kind"], "classes": list(task["classes"]),
        "text_columns": list(task["text_columns"]), "activation": _ACTIVATIONS[task["kind"]],
        "threshold": rule.threshold, "at_least_one": rule.at_least_one, "max_length": delta.max_length,
        "thresholds": rule.thresholds and list(rule.thresholds), "abstain_below": rule.abstain_below,
        "positive": positive_class(task["kind"], task["classes"], task.get("positive")),
        "method": delta.method, "delta_sha256": delta.sha256, "base_sha256": delta.base["sha256"],
    }  # fmt: skip


def program_of(folder: Path) -> Any:
    """predict.py of the folder, as a module of its own."""
    found = importlib.util.spec_from_file_location("trimtab_exported_predict", folder / PROGRAM)
    assert found is not None
    assert found.loader is not None
    program = importlib.util.module_from_spec(found)
    found.loader.exec_module(program)
    return program


def check_equal(read: Any, model: Any, base: Encoder, delta: Delta, *, most: int | None = None) -> None:
    """Raises InputError where the folder's program, whose Model is `read`, predicts otherwise than `model`.

    It is tried at several lengths up to the limit, or on the first `most` rows, which are short.
    """
    import torch

    from ..tasks.metrics import probabilities

    kind, rows = delta.task["kind"], _rows_of_lengths(delta)[:most]
    columns = tuple(list(column) for column in zip(*rows, strict=True))
    inputs = base.inputs(columns, delta.max_length, apart=delta.pairs == "apart")
    found = probabilities(kind, torch.from_numpy(np.stack([read.logits(*row) for row in rows])))
    taken = [inputs.take([i]) for i in range(len(rows))]
    ours = probabilities(kind, torch.cat([_expected(model, each) for each in taken]))
    bound = _TOLERANCE * max(1.0, float(ours.abs().max()))
    off = (found - ours).abs().amax(1)  # (N,)
    if bool((off <= bound).all()):
        return
    # A head of large weights multiplies what float32 rounds, here as in the graph: the run itself is no closer to the truth.
    exact = probabilities(kind, torch.cat([_expected(copy.deepcopy(model).double(), each) for each in taken]))
    bound = max(bound, _ROUNDINGS * float((ours - exact).abs().max()))
    worst = int(off.argmax())
    if not float(off[worst]) <= bound:  # which NaN is not
        raise InputError(
            f"the graph of the family {base.config.model_type} predicts otherwise than the run, by {float(off[worst]):.2g} on "
            f"a text of {int(inputs.lengths[worst])} tokens, so that it cannot go to ONNX: export --to merged, or serve the run "
            "with trimtab serve"
        )


def _expected(model: Any, inputs: ModelInputs) -> Any:
    """Float32 logits (1, C) of one row, of one text or of pairs apart of two, by the model's own forward."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    # Shapes: (R, L).
    def block(rows: Sequence[Any], padding: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], True, padding)

    given = {"input_ids": block(inputs.ids, getattr(model.config, "pad_token_id", None) or 0)}
    given["attention_mask"] = block([[1] * length for length in inputs.lengths], 0)
    if inputs.type_ids is not None:
        given["token_type_ids"] = block(inputs.type_ids, 0)
    with torch.no_grad():
        return model(**given).logits.float()


def _rows_of_lengths(delta: Delta) -> list[tuple[str, ...]]:
    """Rows of a token or two, of a sentence, about half of the limit and beyond it; of pairs the texts differ in length."""
    words = "the old cat and a dog that runs: was it good? "  # some 12 tokens
    texts = ["no", *probe_rows({"text_columns": ["text"]})]
    texts += [words * n for n in (1, 3, delta.max_length // 24 + 1, delta.max_length // 6 + 1)]
    if len(delta.task["text_columns"]) == 1:
        return [(text,) for text in texts]
    return list(zip(texts, [texts[0], *texts[:0:-1]], strict=True))


FORM = Form(_refuse, _write, _check, OPTIONS, ready=_ready)


def said_of(folder: Path) -> list[str]:
    """What is to be said of the folder: the table of its 8-bit forms."""
    about = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    return table_lines(about["int8"]) if "int8" in about else []
