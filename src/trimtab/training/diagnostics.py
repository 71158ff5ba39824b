"""What the curves of a run say, in plain words."""

from torch import Tensor

from ..encoders.unknown_tokens import MUCH
from ..results.checkpoint import Progress
from ..tasks.label_parsing import in_quotes
from ..tasks.metrics import METRICS, figure, named, predicted_labels
from ..tasks.task import Task

_RISE = 1.05  # a validation loss this many times its lowest counts as risen: smaller differences mean nothing


def plain_notes(
    state: Progress, stopped: str | None, task: Task, logits: Tensor, labels: Tensor, total_steps: int, unknown: float = 0.0,
    *, start: str | None = None, from_run: bool = False, judged_by: str | None = None,
) -> list[str]:  # fmt: skip
    """Sentences on predictions that are all alike, scores that fell, overfitting, scores still rising, and why training stopped.

    `stopped` is why training ended before its last step, as in Run; `logits` (N, C) are the outputs for the validation rows and
    `labels` what they should be; `unknown` is the share of unknown tokens among those of the training rows.
    `start` names a beginning that is as good a model as any.
    `judged_by` is what the best step was chosen by, where that is not the task's metric.
    The history of `state` begins with the score before training.
    """
    metric, said = task.metric, named(task.metric, task.positive)
    if judged_by is not None and judged_by != metric:
        metric, said = judged_by, "validation loss"
    found = [
        _constant(task, logits, labels, unknown), _worse(state, metric, said, start, from_run), _overfitting(state),
        _still_rising(state, metric, said, total_steps), _why_stopped(state, stopped, total_steps),
    ]  # fmt: skip
    return [note for note in found if note]


def _constant(task: Task, logits: Tensor, labels: Tensor, unknown: float) -> str | None:
    """What it means where every row has the same prediction, whatever the score then is; None otherwise."""
    # Rows that are all of one class cannot tell a constant from a model.
    if len(labels.unique(dim=0)) < 2:
        return None
    given = predicted_labels(task, logits)
    if (given != given[0]).any():
        return None
    first = given[0]
    prediction = {
        "single_label": lambda: repr(task.classes[int(first)]),
        "multi_label": lambda: (
            in_quotes([name for name, has in zip(task.classes, first, strict=True) if has]) or "no class"
        ),
        "regression": lambda: figure(float(first)),
    }[task.kind]()
    advice = "More rows or epochs, another learning rate (--lr) or another method may help."
    if unknown > MUCH:  # no training makes them differ
        advice = (
            f"{unknown:.0%} of the tokens are unknown to the encoder, so that texts look alike: take another encoder."
        )
    return (
        f"The prediction for every validation row is {prediction}, so the scores are those of a constant: nothing was "
        f"learned that distinguishes rows. {advice}"
    )


def _worse(state: Progress, metric: str, said: str, start: str | None, from_run: bool) -> str | None:
    """What to do where the score before training is better than every one after it; None otherwise."""
    if from_run:
        kept = len(state.history) > 1 and state.best_step == 0
        return (
            f"No step is better than the run it starts from, by {said} and then loss: its values are kept."
            if kept
            else None
        )
    before, *after = [entry["scores"][metric] for entry in state.history]
    if not after or not all(METRICS[metric].better(before, score) for score in after):
        return None
    if start is not None:
        probe = "`--method head` finds it in seconds; " if "probe" in start else ""
        return (
            f"No step has a better {said} than {start}, at which training begins and which is kept: {probe}a lower learning rate "
            "(--lr), another method or more rows may bring more."
        )
    return (
        f"Training made the {said} worse than it was before. Look at the labels, and at what the rows of a class share; try a "
        "lower learning rate (--lr), or more rows."
    )


def _overfitting(state: Progress) -> str | None:
    """Where the losses part: from the lowest validation loss to the end one rises and the other falls; None otherwise."""
    # Without the score before training, whose training loss is not known.
    trained = [entry for entry in state.history if entry["step"] > 0]
    if len(trained) < 2:
        return None
    low, last = min(trained, key=lambda entry: entry["validation_loss"]), trained[-1]
    # Both must hold: a validation loss that rises with the training loss is a learning rate too high, not overfitting.
    parted = last["validation_loss"] > _RISE * low["validation_loss"] and last["train_loss"] < low["train_loss"]
    if not parted:
        return None
    return (
        f"Overfitting: after step {low['step']} the training loss went on falling ({figure(low['train_loss'])} to "
        f"{figure(last['train_loss'])}) while the validation loss rose ({figure(low['validation_loss'])} to "
        f"{figure(last['validation_loss'])}). The values of step {state.best_step}, the best on validation, are kept; "
        "fewer epochs, a lower learning rate, more data or fewer trainable parameters would help."
    )


def _still_rising(state: Progress, metric: str, said: str, total_steps: int) -> str | None:
    """By how much the last validation of a whole run, its best one, was better than the one before it; None otherwise."""
    scores = [entry["scores"][metric] for entry in state.history if entry["step"] > 0]
    # Only a run that went to its end, and was best there, could have gone further.
    if len(scores) < 2 or state.step < total_steps or state.best_step != state.step:
        return None
    before, last = scores[-2:]
    gain = abs(last - before)
    # Of scores between 0 and 1 less than a hundredth may be chance, and of errors less than a hundredth of them.
    unit = 1.0 if METRICS[metric].high is not None else abs(before)
    if gain < 0.01 * unit or not METRICS[metric].better(last, before):
        return None
    return f"The {said} was still improving at the last validation (by {figure(gain)}): more epochs may help."


def _why_stopped(state: Progress, stopped: str | None, total_steps: int) -> str | None:
    """Why there were fewer steps than planned; None for a run that went to its end."""
    done = f"after step {state.step} of {total_steps}; the values of step {state.best_step} are kept"
    if stopped is None:
        return None
    reasons = {
        "early": f"Stopped early, as no validation was better for a while: {done}.",
        "interrupted": f"Interrupted {done}.",
    }
    return reasons.get(stopped, f"Stopped ({stopped}) {done}.")
