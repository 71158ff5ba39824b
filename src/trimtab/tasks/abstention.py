"""Abstention: rows that are too unsure for an answer, so that the error among the others is what was asked for."""

# Shapes: N rows.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, counted

if TYPE_CHECKING:  # settings are checked, and --help is printed, without it
    from numpy.typing import NDArray

LEVEL = 0.9  # of confidence in the error that was asked for
NOTHING = 2.0  # a confidence that no row has: none is answered
_STEPS = 50  # shares of rows that are tried
_POINTS = 100  # of the curve


def checked_abstain(value: float | str | None) -> float | None:
    """A share of wrong answers, which may be written as "5%" or 0.05, or None; raises InputError for what is no such share."""
    if value is None:
        return None
    try:
        text = str(value).strip()
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise InputError(
            f"abstain={value} must be the largest share of wrong answers, above 0% and below 100%: --abstain 5% (or 0.05)"
        )
    return share


def check_abstains(kind: str, n_rows: int, error: float | None) -> None:
    """Raises InputError where so few wrong answers cannot be promised for such a task, on so many validation rows."""
    if error is None:
        return
    if kind != "single_label":
        raise InputError(
            f"abstain is for tasks where each row has one class, and this one is {kind}: leave --abstain out"
        )
    least = least_rows(error)
    if n_rows < least:
        raise InputError(
            f"abstain={error:.3g} needs {least:,} validation rows even where all of them are right ({LEVEL:.0%} confidence), and "
            f"there are {n_rows:,}: give more (--validation FILE or a larger share), or ask for a larger share of errors"
        )


def upper_bound(wrong: int, n: int) -> float:
    """The largest error that so many wrong of `n` rows are compatible with at LEVEL, by Clopper and Pearson (1934)."""
    from scipy.special import betaincinv

    return 1.0 if wrong >= n else float(betaincinv(wrong + 1, n - wrong, LEVEL))


def least_rows(error: float) -> int:
    """How many rows, all of them right, it takes for `upper_bound` to be at most `error`."""
    n = max(1, math.floor(math.log(1 - LEVEL) / math.log1p(-error)) - 1)
    while upper_bound(0, n) > error:
        n += 1
    return n


@dataclass(frozen=True)
class Abstention:
    """From which confidence on a row is answered, and what that comes to on the rows that it was chosen on."""

    below: float  # this confidence a row has no answer
    asked: float  # share of wrong answers
    answered: int
    wrong: int  # of them
    rows: int

    def as_json(self) -> dict[str, Any]:
        """As scores.json has it."""
        return {**vars(self), "level": LEVEL}

    def line(self) -> str:
        """What a fit says of it."""
        if not self.answered:
            return (
                f"No answer is given (only best_guess): the {counted(self.rows, 'validation row')} do not show, with {LEVEL:.0%} "
                f"confidence, that any share of rows can be answered with at most {self.asked:.3g} wrong: give more of "
                "them, or ask for less (--abstain)."
            )
        return (
            f"Rows of a confidence below {self.below:.3f} have no answer: of the {counted(self.rows, 'validation row')} "
            f"{self.answered:,} have one ({self.answered / self.rows:.0%}), {self.wrong:,} of them wrong "
            f"({self.wrong / self.answered:.1%}); at most {self.asked:.3g} of new ones are, with {LEVEL:.0%} confidence."
        )


def chosen_abstention(confidence: NDArray, right: NDArray, error: float) -> Abstention:
    """The Abstention that answers most, of N confidences and whether each row is right, with at most `error` wrong.

    Shares of rows, from the surest down by steps of 2%, are tried, and the largest is taken whose upper bound stays below it. To
    stop at the first that does not (fixed sequence testing) would make LEVEL exact, and answer a third less; as it is the promise
    was kept in 92 to 95% of 1,000 simulated draws of 200 to 2,000 rows (tests/tasks/test_abstention.py has one).
    """
    import numpy as np

    n, order = len(confidence), np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], np.cumsum(~right[order].astype(bool))
    # Rows of one confidence are answered together.
    steps = {max(1, math.ceil(n * step / _STEPS)) for step in range(1, _STEPS + 1)}
    sizes = [int(np.searchsorted(-sure, -sure[k - 1], side="right")) for k in sorted(steps)]
    kept = [k for k in sizes if upper_bound(int(wrong[k - 1]), k) <= error]
    if not kept:
        return Abstention(NOTHING, error, 0, 0, n)
    k = kept[-1]
    below = 0.0 if k == n else float(sure[k - 1] + sure[k]) / 2
    if k < n and below <= sure[k]:  # of neighbouring floats the mean may be the lower one
        below = float(sure[k - 1])
    return Abstention(below, error, k, int(wrong[k - 1]), n)


def risk_coverage(confidence: NDArray, right: NDArray) -> list[dict[str, float]]:
    """The error among the surest rows for each share of N rows that is answered, at most 100 of them (El-Yaniv, Wiener 2010)."""
    import numpy as np

    n, order = len(confidence), np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order].astype(bool))
    ends = sorted({max(1, math.ceil(n * i / _POINTS)) for i in range(1, _POINTS + 1)})
    return [{"coverage": k / n, "error": float(wrong[k - 1]) / k} for k in ends]
