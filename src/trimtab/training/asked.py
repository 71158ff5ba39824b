"""What a fit is asked to make of its probabilities, checked against its task before anything is trained. Without torch."""

from __future__ import annotations

from dataclasses import replace

from ..results.recipe import Settings
from ..tasks.abstention import check_abstains
from ..tasks.calibration import check_calibrates
from ..tasks.class_thresholds import check_thresholds
from ..tasks.decision_rule import decision_rule_for
from ..tasks.task import Task


def with_rule(task: Task, settings: Settings) -> Task:
    """`task` with the decision rule that the settings say; until one is chosen, thresholds are 0.5 and all rows have an answer.

    Raises InputError for calibration, thresholds and abstention that such a task, or so many validation rows, cannot have.
    """
    n_rows = len(task.validation)
    rule = decision_rule_for(task.kind, settings.threshold, settings.at_least_one)
    check_calibrates(task.kind, n_rows, settings.calibrate)
    check_thresholds(task.kind, task.classes, task.positive_index, task.validation.labels, settings.thresholds)
    assert not isinstance(settings.abstain, str)  # Settings have made a number of it
    check_abstains(task.kind, n_rows, settings.abstain)
    return replace(task, decision_rule=rule)
