"""DecisionRule: which classes a row of a multi_label task is given, from the probability of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:  # settings are checked, and --help is printed, without it
    from numpy.typing import NDArray

AUTO = "auto"  # a threshold that is chosen on the validation rows


@dataclass(frozen=True)
class DecisionRule:
    """A class is given from the probability `threshold` on, and with `at_least_one` the most probable one where none is."""

    threshold: float = 0.5
    at_least_one: bool = False

    def given(self, likely: NDArray) -> NDArray:
        """1 for each class that is given and 0 for others, (N, C), from probabilities (N, C)."""
        import numpy as np

        given = (likely >= self.threshold).astype(np.int64)
        if self.at_least_one:
            without = np.flatnonzero(~given.any(-1))
            given[without, likely[without].argmax(-1)] = 1
        return given

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DecisionRule:
        """That of a task's description; one that says nothing, as those of older versions, has the usual."""
        return cls(values.get("threshold", 0.5), values.get("at_least_one", False))

    def line(self) -> str:
        """What is to be said of it, empty where it is the usual."""
        if self == USUAL:
            return ""
        least = ", and the most probable class where none reaches that" if self.at_least_one else ""
        return f"A class is given from a probability of {self.threshold:g} on{least}."


USUAL = DecisionRule()


def checked_threshold(value: float | str | None) -> float | str | None:
    """A number between 0 and 1, which may be written as a text, "auto" or None; raises InputError for anything else."""
    if value in (None, AUTO):
        return value
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < 1:
        raise InputError(f"threshold={value} must be auto, or a number above 0 and below 1 (--threshold)")
    return number


def decision_rule_for(kind: str, threshold: float | str | None, at_least_one: bool) -> DecisionRule:
    """What these settings say of a task of `kind`; until one is chosen, "auto" is 0.5.

    Raises InputError where rows are not given any number of classes.
    """
    for option, is_given in (("threshold", threshold is not None), ("at_least_one", at_least_one)):
        if is_given and kind != "multi_label":
            what = "each row has the most probable class" if kind == "single_label" else "there are no classes"
            raise InputError(
                f"{option} is for multi_label tasks, where a row may have several classes; this one is {kind}, and {what}: "
                f"leave it out (--{option.replace('_', '-')})"
            )
    return DecisionRule(0.5 if threshold in (None, AUTO) else float(threshold), at_least_one)
