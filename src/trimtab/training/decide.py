"""What a finished run makes of probabilities: thresholds and abstention, chosen on the validation rows at its best step."""

# Shapes: N rows, C classes.

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..tasks.abstention import Abstention, chosen_abstention
from ..tasks.class_thresholds import chosen_by_class
from ..tasks.decision_rule import AUTO
from ..tasks.metrics import decided, decision_scores, probabilities
from ..tasks.task import Task
from ..tasks.threshold import Chosen, chosen_rule
from .workbench import Workbench


@dataclass(frozen=True)
class Decided:
    """What was chosen."""

    lines: list[str]  # what is to be said of it
    scores: dict[str, float] = field(
        default_factory=dict
    )  # of rows that thresholds were not chosen on, where they are told
    predicted: NDArray | None = None  # the decisions that these are the scores of, by the first repeat
    abstention: Abstention | None = None


def decide(bench: Workbench, logits: Tensor) -> Decided:
    """Gives the workbench's task the rule that its settings ask for, by logits (N, C) of the validation rows."""
    task, settings = bench.task, bench.settings
    likely, truth = probabilities(task.kind, logits).numpy(), labels_of(bench).numpy()
    reasons: list[str] = []
    found = Decided(reasons)
    if settings.thresholds is not None:
        chosen = _thresholds(task, likely, truth, settings.seed)
        found = replace(found, **_left_out(task, chosen, truth))
    elif settings.threshold == AUTO:
        chosen = chosen_rule(task.metric, likely, truth, task.decision_rule, settings.seed)
    else:
        chosen = Chosen(task.decision_rule, "")
    rule = chosen.decision_rule
    reasons += [chosen.reason] * bool(chosen.reason)
    if settings.abstain is not None:
        right = decided(task, likely) == truth
        abstention = chosen_abstention(likely.max(-1), right, float(settings.abstain))
        rule = replace(rule, abstain_below=abstention.below)
        found = replace(found, abstention=abstention)
        reasons.append(abstention.line())
    without = sum(not present for present in task.train.labels) if task.kind == "multi_label" else 0
    if rule.at_least_one and without:
        reasons.append(
            f"{without:,} of {len(task.train):,} training rows have no class; with at least one for each row, all such rows are "
            "predicted wrongly (--no-at-least-one)."
        )
    bench.task = replace(task, decision_rule=rule)
    reasons += [rule.line()] * bool(rule.line() and settings.abstain is None)
    return found


def labels_of(bench: Workbench) -> Tensor:
    """Labels of the validation rows, which every fit has."""
    assert bench.validation.labels is not None
    return bench.validation.labels


def _thresholds(task: Task, likely: NDArray, truth: NDArray, seed: int) -> Chosen:
    """The rule with the thresholds of the highest F1."""
    if task.kind == "multi_label":
        return chosen_by_class(task.metric, likely, truth, task.decision_rule, task.classes, seed)
    positive = task.positive_index
    assert positive is not None
    of_positive = (truth == positive)[:, None]
    return chosen_by_class("f1", likely[:, [positive]], of_positive, task.decision_rule, [task.classes[positive]], seed)


def _left_out(task: Task, chosen: Chosen, truth: NDArray) -> dict[str, object]:
    """Fields of Decided: the mean scores of decisions on rows that the rule was not chosen on; none where the usual stays."""
    if chosen.left_out is None:
        return {}
    repeats = [_as_predicted(task, each) for each in chosen.left_out]
    scores = [decision_scores(task, predicted, truth) for predicted in repeats]
    return {
        "scores": {name: float(np.mean([each[name] for each in scores])) for name in scores[0]},
        "predicted": repeats[0],
    }


def _as_predicted(task: Task, given: NDArray) -> NDArray:
    """Decisions (N, K) as the task predicts them: of two classes (N,), whether the positive one is given, as class numbers."""
    if task.kind == "multi_label":
        return given
    positive = task.positive_index
    assert positive is not None
    return np.where(given[:, 0] > 0, positive, 1 - positive)
