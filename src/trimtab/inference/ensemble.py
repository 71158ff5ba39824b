"""Several runs of one task as one predictor: the mean of their probabilities. What is wrong with them is told without torch."""

# Shapes: N rows, C classes, M members.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..tasks.decision_rule import DecisionRule
from ..tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor


def check_alike(described: Sequence[Mapping[str, Any]], named: Sequence[str]) -> None:
    """Raises InputError unless deltas that are described so are of one encoder, and predict the same classes of as many texts.

    `named` is what messages call each of them.
    """
    first, task = described[0], described[0]["task"]
    for each, name in zip(described[1:], named[1:], strict=True):
        if each["base"]["sha256"] != first["base"]["sha256"]:
            ours, theirs = each["base"]["name"], first["base"]["name"]
            raise InputError(
                f"{name} belongs to the encoder {ours!r} and {named[0]} to {theirs!r} (or to other weights of that name): an "
                "ensemble has one encoder; give runs of the same"
            )
        own = each["task"]
        for what, ours, theirs in (
            ("kind", own["kind"], task["kind"]),
            ("classes", list(own["classes"]), list(task["classes"])),
            ("number of texts a row", len(own["text_columns"]), len(task["text_columns"])),
        ):
            if ours != theirs:
                raise InputError(
                    f"{name} and {named[0]} differ in their {what} ({ours!s:.80} and {theirs!s:.80}): the probabilities of one "
                    "task alone can be averaged; give runs of the same"
                )


def task_of(tasks: Sequence[Task]) -> Task:
    """The first task, with the rule of all of them: mean thresholds; rows may be without an answer where all members say so."""
    rules = [task.decision_rule for task in tasks]
    if all(rule == rules[0] for rule in rules):
        return tasks[0]
    several = [rule.thresholds or (rule.threshold,) * len(tasks[0].classes) for rule in rules]
    below = [rule.abstain_below for rule in rules if rule.abstain_below is not None]
    rule = DecisionRule(
        threshold=math.fsum(rule.threshold for rule in rules) / len(rules),
        at_least_one=all(rule.at_least_one for rule in rules),
        thresholds=tuple(math.fsum(each) / len(rules) for each in zip(*several, strict=True))
        if any(rule.thresholds for rule in rules)
        else None,
        abstain_below=math.fsum(below) / len(below) if len(below) == len(rules) else None,
    )
    return replace(tasks[0], decision_rule=rule)


def averaged(kind: str, logits: Sequence[Tensor]) -> Tensor:
    """Float32 logits (N, C) whose probabilities are the mean of those of M members; of a regression the mean of its values."""
    import torch
    from torch.nn.functional import logsigmoid

    members = torch.stack([each.double() for each in logits])  # (M, N, C)
    if kind == "regression":
        return members.mean(0).float()
    if kind == "multi_label":
        return (logsigmoid(members).logsumexp(0) - logsigmoid(-members).logsumexp(0)).float()
    return (members.log_softmax(-1).logsumexp(0) - math.log(len(members))).float()
