"""Run: what came of a fit, and what is written of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from ..changes.delta import TENSORS, Delta
from ..changes.method_text import method_text
from ..changes.selection import Selection
from ..encoders.parameter_kinds import grid, layers_of
from ..errors import InputError
from ..process_memory import peak_bytes
from ..results.checkpoint import Progress
from ..results.model_card import model_card
from ..results.recipe import Recipe
from ..results.record import write_record
from ..results.run_folder import CHECKPOINT
from ..tasks.data_report import survey
from ..tasks.hardest_examples import hardest_mistakes
from ..tasks.metrics import METRICS, confusion, metric_names, per_class
from ..tasks.score_interval import LEVEL, score_interval
from ..tasks.task import Task
from ..version import VERSION
from .calibrate import calibrated
from .decide import decide, labels_of
from .diagnostics import plain_notes
from .verify_delta import check_saved
from .workbench import Workbench


@dataclass(frozen=True, eq=False)
class Run:
    """The outcome of one fit: scores of the best validation and of the untrained start, the delta, and what it cost."""

    name: str  # of the folder, else of task and method
    scores: dict[str, float]  # validation, at the best step
    baseline: dict[str, float]  # validation, before training
    delta: Delta
    selection: Selection  # what was trained, the head included
    history: list[dict[str, Any]]  # one entry per validation
    seconds: float  # the whole run: tokenisation, validation and saving included
    examples_per_second: float  # training rows over the time spent in optimizer steps
    peak_memory_bytes: int  # of the process (CPU) or the device's allocator (CUDA)
    stopped: str | None  # "early", "interrupted", or as whoever read the events has said; None for a whole run
    notes: list[str]  # what a person should know, in plain words
    details: Mapping[str, Any] = field(repr=False)  # all of scores.json
    folder: Path | None = None  # None where nothing was kept
    logits: Tensor | None = field(default=None, repr=False)  # (N, C) of the validation rows at the best step

    def as_json(self) -> dict[str, Any]:
        """What `trimtab fit --json` prints."""
        keys = (
            "run", "scores", "interval", "baseline", "start", "elements", "share", "seconds", "examples_per_second",
            "peak_memory_bytes", "delta_bytes", "steps", "best_step", "stopped",
        )  # fmt: skip
        return {key: self.details[key] for key in keys}


def recipe_of(bench: Workbench) -> Recipe:
    """The recipe that repeats this run, from whichever folder."""
    task, encoder = bench.task, bench.encoder
    return Recipe.of_task(
        task, encoder=encoder.place, revision=encoder.revision, method=method_text(bench.method),
        start_from=bench.begun and bench.begun.place, settings=bench.settings,
    )  # fmt: skip


def finished_run(
    bench: Workbench, state: Progress, stopped: str | None, logits: Tensor | None, folder: Path | None,
    clock: Callable[[], float],
) -> Run:  # fmt: skip
    """The Run of a workbench whose model holds the best values; with `folder`, saved there and read back to be sure.

    `logits` are those of the validation rows under these values, where they are known; `clock` gives the seconds of the run so
    far. Raises InputError where the folder cannot be written, and OSError where the saved delta predicts otherwise.
    """
    # After --resume of a run whose best validation lies in an earlier sitting, its logits are not there. No rank has them then,
    # and all of them compute a share.
    logits = bench.validate()[1] if logits is None else logits
    logits, calibration, said = calibrated(bench, logits)
    decided = decide(bench, logits)
    said += decided.lines
    scores = bench.scores(logits) | decided.scores
    name = folder.resolve().name if folder is not None else f"{bench.task.name}-{method_text(bench.method)}"
    notes = {"metric": bench.task.metric, "validation": scores, "trimtab": VERSION, "head": bench.form.reason}
    if calibration and calibration["fitted"]:
        notes["temperature"] = calibration["temperature"]  # for people: it is in the values
    delta = Delta.extract(
        bench.model, bench.selection, bench.encoder, bench.task.description(), bench.method,
        additions=bench.additions, head=bench.settings.head, pairs=bench.settings.pairs, max_length=bench.max_length,
        notes=notes,
    )  # fmt: skip
    details = _details(bench, state, name, stopped, scores, logits, said)
    details |= {"calibration": calibration, "abstention": decided.abstention and decided.abstention.as_json()}
    if decided.predicted is not None:
        details["interval"] = interval_of(bench.task, logits, labels_of(bench), decided.predicted)
    if folder is not None and bench.ranks.is_first:
        # The delta first and scores.json last: a folder with scores is a folder whose delta was read back and found right.
        delta.save(folder)
        check_saved(folder, bench)
        # Of the tensor file alone: it is all that a delta needs.
        details["delta_bytes"] = (folder / TENSORS).stat().st_size
    # As late as can be, so that saving and reading back are in it; only small files follow.
    details["seconds"] = clock()
    run = Run(
        name, scores, state.history[0]["scores"], delta, bench.selection, state.history, details["seconds"],
        details["examples_per_second"], details["peak_memory_bytes"], stopped, details["notes"], details, folder, logits,
    )  # fmt: skip
    if folder is not None and bench.ranks.is_first:
        try:
            write_record(folder, details, state.history, model_card(details, delta))
        except InputError as error:  # a full disk: training need not be done again
            raise InputError(f"{error} The delta is whole: {folder / TENSORS}.") from error
        # What is finished needs no checkpoint, and keeping it would let a later --resume go on from it.
        if stopped != "interrupted":
            (folder / CHECKPOINT).unlink(missing_ok=True)
    return run


def interval_of(task: Task, logits: Tensor, labels: Tensor, predicted: NDArray | None = None) -> dict[str, Any]:
    """The 95% confidence interval of the main score, as scores.json and `evaluate` give it; None: no end on that side.

    `predicted` are decisions in the place of those that the task makes of the logits.
    """
    low, high = score_interval(task, logits, labels, predicted=predicted)
    ends = {"low": low if math.isfinite(low) else None, "high": high if math.isfinite(high) else None}
    return {"metric": task.metric, "level": LEVEL, "rows": len(labels), **ends}


def _details(
    bench: Workbench, state: Progress, name: str, stopped: str | None, scores: dict[str, float], logits: Tensor,
    said: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Everything that scores.json says, for the report page and for other programs."""
    task, encoder, selection = bench.task, bench.encoder, bench.selection
    labels = bench.validation.labels
    assert labels is not None
    # What the page says of the rows is what `fit` said of them before training.
    found = survey(task)
    # Two tables of layers x kinds: how many parameters were trained, and how many there are.
    layers, kinds, selected = grid(selection.parts, selection.counts())
    total = grid(selection.parts, {name: part.count for name, part in selection.parts.items()})[2]
    # Of the encoder without the head.
    n_backbone = sum(part.count for part in selection.parts.values() if not part.is_head)
    return {
        "run": name,
        "task": task.description(),
        "encoder": {
            "name": encoder.name, "revision": encoder.revision, "sha256": encoder.sha256,
            "model_type": encoder.config.model_type, "layers": layers_of(bench.model).count, "parameters": n_backbone,
        },
        "method": method_text(bench.method),
        "metric": task.metric,
        "metrics": {metric: asdict(METRICS[metric]) for metric in metric_names(task.kind)},
        "split": "validation",
        "scores": scores,
        "interval": interval_of(task, logits, labels),
        "judged_by": bench.judged_by,  # what the best step was chosen by
        "baseline": state.history[0]["scores"],
        "start": bench.start_named,  # what the baseline is of
        "start_from": bench.begun and bench.begun.as_json(),
        "elements": {"body": selection.backbone.count, "head": selection.head.count},
        "share": selection.share,
        "seconds": 0.0,  # set when all is saved
        "choosing_seconds": bench.choosing_seconds,
        # What an earlier fit has spent on the frozen layers' states that this one has read: without it, not in `seconds`.
        "cached_seconds": sum(prefix.saved_seconds for prefix in bench.prefixes.values()),
        "examples_per_second": state.rows / state.step_seconds if state.step_seconds else 0.0,
        "peak_memory_bytes": peak_bytes(),
        "memory_estimate": bench.memory.as_json(),
        "delta_bytes": 0,  # set when saved
        "best_step": state.best_step,
        "steps": state.step,
        # Of the order of rows: where more epochs go on.
        "epochs_done": bench.settings.first_epoch + math.ceil(state.step / bench.steps_per_epoch),
        "stopped": stopped,
        "head": bench.form.reason,
        "notes": said + plain_notes(
            state, stopped, task, logits, labels, bench.total_steps, bench.unknown_share,
            start=bench.start_named if bench.starts_trained else None,
            judged_by=bench.judged_by,
            from_run=bench.begun is not None,
        ),
        "settings": asdict(bench.settings) | {"compute": bench.compute, "tokens_per_batch": bench.memory.tokens},
        "versions": {"trimtab": VERSION} | {package: version(package) for package in ("torch", "transformers")},
        "rows": found.as_json()["splits"],
        "survey": found.lines() + bench.token_lines,
        "truncation": {
            "train": bench.train.inputs.truncation.as_json(),
            "validation": bench.validation.inputs.truncation.as_json(),
        },
        "max_length": bench.max_length,
        "trained": {"layers": layers, "kinds": kinds, "selected": selected, "total": total},
        "confusion": confusion(task, logits, labels),
        "per_class": per_class(task, logits, labels),
        "mistakes": hardest_mistakes(task, bench.validation_rows, logits, labels),
    }  # fmt: skip
