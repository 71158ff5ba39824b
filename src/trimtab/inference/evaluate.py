"""Scoring what was trained: evaluate."""

from pathlib import Path
from typing import Any

from ..changes.delta_header import header_of
from ..encoders.encoder import Encoder
from ..training.chosen_rows import ChosenRows, choose_rows, seen_note
from ..training.run import Run
from .predictor import Predictor, Trained, delta_of


def evaluate(
    run: Trained, task: Any = None, split: str | None = None, encoder: Encoder | str | Path | None = None,
    *, text: str | None = None, label: str | None = None, **reading: Any,
) -> dict[str, Any]:  # fmt: skip
    """{"split", "rows", "scores", "positive", "notes"} of `run` on a split of `task`: a Task, what `read` takes, or its own task.

    `split` defaults to test where it has labels, else validation; of a single file all rows are scored, as its test split.
    `text` and `label` name columns as in `read`; `reading` holds other options of it, such as skip_bad_rows=True: those of how
    labels are written are the run's own by default. Raises InputError when the task or the split does not fit the run, and when
    the run's own data has changed, so that rows it was trained on would be scored.
    """
    is_place = isinstance(run, str | Path)
    folder = Path(run) if is_place else run.folder if isinstance(run, Run) else None
    described = header_of(run)["task"] if is_place else delta_of(run).task
    chosen = choose_rows(described, folder, task, split, text=text, label=label, **reading)
    return score_rows(Predictor(run, encoder), chosen)


def score_rows(predictor: Predictor, chosen: ChosenRows) -> dict[str, Any]:
    """What `evaluate` returns, of rows that were chosen for the task of `predictor`."""
    judged = predictor.judged(chosen.rows)
    found, interval, cut = judged.scores, judged.interval, judged.cut
    notes = [*chosen.notes, *([cut.line(chosen.split, predictor.delta.max_length)] if cut.rows_cut else [])]
    notes += seen_note(chosen)
    notes += [line for line in [predictor.task.decision_rule.line(), judged.answers_line()] if line]
    return {
        "split": chosen.split, "rows": len(chosen.rows), "scores": found, "interval": interval,
        "positive": predictor.task.positive, "notes": notes,
    }  # fmt: skip
