"""The classification head that a checkpoint brings: whether it has the classes of a task, and in which order.

A head of the right shape may have been trained for anything: other classes, the same ones in another order, a number in another
unit. Names decide, and what was decided is said.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from ..errors import InputError, shortened
from .heads import ModelWithHead, Outputs, is_new, last_map

_UNNAMED = re.compile(r"label_(\d+)")  # transformers' name for a class that nobody has named: its number


def brings_head(config: Any) -> bool:
    """Whether the checkpoint of `config` says that it is a classifier of texts."""
    return any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ())


def rows_for(config: Any, outputs: Outputs) -> list[int] | None:
    """For each class of `outputs` the output of the checkpoint's head that has its name; None where its classes are others.

    Names are compared without regard to capitals; LABEL_1 is the class "1". A number has no name, and so an unknown unit.
    """
    kinds = {"single_label": (None, "single_label_classification"), "multi_label": ("multi_label_classification",)}
    if config.problem_type not in kinds.get(outputs.kind, ()):
        return None
    own = {_plain(name): int(row) for row, name in config.id2label.items()}
    wanted = [_plain(name) for name in outputs.classes]
    if len({*wanted}) < len(wanted) or len(own) < len(config.id2label) or own.keys() != {*wanted}:
        return None
    return [own[name] for name in wanted]


@torch.no_grad()
def settle_head(model: ModelWithHead, config: Any, outputs: Outputs, start: str) -> tuple[bool, str]:
    """Keeps the head that `model` has from the checkpoint of `config`, in the order of `outputs`, or draws its last map anew.

    It is kept where it has these classes and `start` is not "random", and in any case where that is "checkpoint". Returns
    whether it is kept, and what is to be said of it: "" where the checkpoint has none. Raises InputError where there is none to
    keep.
    """
    found = last_map(model)
    if found is None or is_new(model, found[0]):
        if start == "checkpoint":
            has = f"one of {_described(config)}" if brings_head(config) else "none"
            raise InputError(
                f"--head-start checkpoint: the checkpoint has no head of {max(1, len(outputs.classes))} outputs, but {has}: "
                "leave the option out for a new head"
            )
        return False, f"the checkpoint's head is for {_described(config)}: a new one" if brings_head(config) else ""
    path, last = found
    rows = rows_for(config, outputs)
    if start == "random" or (start != "checkpoint" and rows is None):
        why = "(--head-start random)" if rows is not None else "(--head-start checkpoint keeps it)"
        last.weight.normal_(std=getattr(config, "initializer_range", None) or 0.02)
        if last.bias is not None:
            last.bias.zero_()
        model.new_parameters |= {f"{path}.{name}" for name, _ in last.named_parameters()}
        return False, f"the checkpoint's head is for {_described(config)}: its last map is new {why}"
    if rows is None:
        return True, f"the checkpoint's head for {_described(config)} is kept as it is (--head-start checkpoint)"
    # Rows are outputs; a map of another size makes something else of them, and is kept as it is.
    moved = rows != sorted(rows) and last.out_features == len(rows)
    if moved:
        for parameter in last.parameters():
            parameter.copy_(parameter[rows].clone())
    return True, "the checkpoint's head is kept: it has these classes" + (", in another order" if moved else "")


def unused_head(config: Any) -> str:
    """What is to be said where a head of our own takes the place of the checkpoint's; "" where it has none."""
    return f"the checkpoint's own head, for {_described(config)}, is not used" if brings_head(config) else ""


def _described(config: Any) -> str:
    """The outputs of the checkpoint's head in words: a number, or its classes."""
    if len(config.id2label) == 1:
        return "a number in a unit of its own"
    names = [str(name)[:40] for name in config.id2label.values()]
    return f"{len(names)} classes ({shortened([repr(name) for name in names], 3)})"


def _plain(name: str) -> str:
    """A class name as it is compared."""
    plain = str(name).strip().casefold()
    unnamed = _UNNAMED.fullmatch(plain)
    return unnamed[1] if unnamed else plain
