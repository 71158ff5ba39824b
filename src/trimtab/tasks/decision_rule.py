"""DecisionRule: which classes a row is given, from the probability of each; and which rows have no answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:  # settings are checked, and --help is printed, without it
    from numpy.typing import NDArray

AUTO = "auto"  # a threshold that is chosen on the validation rows
F1 = "f1"  # how thresholds of classes are chosen


@dataclass(frozen=True)
class DecisionRule:
    """A class of a multi_label row is given from the probability `threshold` on, or from its own of `thresholds`.

    With `at_least_one` the most probable one is where none is. A single_label row has the most probable class; of two the
    positive one from `threshold` on. It has no answer where no class has the probability `abstain_below`.
    """

    threshold: float = 0.5
    at_least_one: bool = False
    thresholds: tuple[float, ...] | None = None  # one for each class, in the place of `threshold`
    abstain_below: float | None = None

    def given(self, likely: NDArray) -> NDArray:
        """1 for each class that is given and 0 for others, (N, C), from probabilities (N, C)."""
        import numpy as np

        least = self.threshold if self.thresholds is None else np.asarray(self.thresholds, likely.dtype)
        given = (likely >= least).astype(np.int64)
        if self.at_least_one:
            without = np.flatnonzero(~given.any(-1))
            given[without, likely[without].argmax(-1)] = 1
        return given

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DecisionRule:
        """That of a task's description; one that says nothing, as those of older versions, has the usual."""
        several = values.get("thresholds")
        return cls(
            values.get("threshold", 0.5), values.get("at_least_one", False), None if several is None else tuple(several),
            values.get("abstain_below"),
        )  # fmt: skip

    def as_json(self, kind: str) -> dict[str, Any]:
        """What a task of `kind` says of it: of fields that older versions do not know only those that are not the usual."""
        old = {"threshold": self.threshold, "at_least_one": self.at_least_one}
        found = (
            old if kind == "multi_label" else {name: value for name, value in old.items() if value != vars(USUAL)[name]}
        )
        if self.thresholds is not None:
            found["thresholds"] = list(self.thresholds)
        return found if self.abstain_below is None else found | {"abstain_below": self.abstain_below}

    def chosen(self, likely: NDArray, positive: int | None) -> NDArray:
        """The class of each row (N,), from probabilities (N, C); `positive` is that class of two, where there are two."""
        import numpy as np

        if positive is None or self.threshold == USUAL.threshold:
            return likely.argmax(-1)
        return np.where(likely[:, positive] >= self.threshold, positive, 1 - positive)

    def answers(self, likely: NDArray) -> NDArray:
        """Whether each row has an answer (N,), from probabilities (N, C)."""
        import numpy as np

        return np.full(len(likely), True) if self.abstain_below is None else likely.max(-1) >= self.abstain_below

    def line(self) -> str:
        """What is to be said of it, empty where it is the usual."""
        if self == USUAL:
            return ""
        least = ", and the most probable class where none reaches that" if self.at_least_one else ""
        said = ""
        if self.thresholds is not None:
            ends = f"between {min(self.thresholds):.3g} and {max(self.thresholds):.3g}"
            said = f"A class is given from a probability of its own on, {ends}{least}."
        elif (self.threshold, self.at_least_one) != (USUAL.threshold, USUAL.at_least_one):
            said = f"A class is given from a probability of {self.threshold:g} on{least}."
        if self.abstain_below is None:
            return said
        return f"{said} A row of a confidence below {min(self.abstain_below, 1.0):.3g} has no answer.".strip()


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
