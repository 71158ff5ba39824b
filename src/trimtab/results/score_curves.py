"""Scores at several sizes of the training rows, and the sentences that people want of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, counted, suggestion
from ..tasks.metrics import METRICS
from ..tasks.task import Task
from .formatting import count, metric_name, score
from .learning_curve import (
    LEAST_ROWS,
    LEAST_SIZES,
    LEVEL,
    REACH,
    Errors,
    LearningCurve,
    learning_curve,
    usable,
)

_MILESTONE = 0.05  # the scores that are named are multiples of it
_NARROW = 0.02  # ranges below this are told with one decimal more


class Scores(NamedTuple):
    """The scores of one size, one for each draw."""

    n: int  # rows a class where rows have one class, else rows
    rows: int  # of all classes
    of_draws: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over draws."""
        return float(np.mean(self.of_draws))

    @property
    def standard_deviation(self) -> float | None:
        """Over draws; None for one."""
        return float(np.std(self.of_draws, ddof=1)) if len(self.of_draws) > 1 else None


class Expected(NamedTuple):
    """The score that is expected of n rows (a class), as a range that holds in 4 of 5 cases."""

    n: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """One method, or baseline, at all sizes."""

    method: str
    is_baseline: bool
    sizes: tuple[Scores, ...]  # the last is all rows
    metric: str
    through: LearningCurve | None  # its errors; None where there is too little for one
    why_not: str = ""

    @classmethod
    def of(cls, method: str, is_baseline: bool, sizes: Sequence[Scores], metric: str, n_judged: int) -> ScoreCurve:
        """The curve of scores on `n_judged` rows."""
        errors = [Errors(each.n, tuple(_error(metric, one) for one in each.of_draws)) for each in sizes]
        through, why = None, ""
        if not all(math.isfinite(one) for each in errors for one in each.of_draws):
            why = "a score is undefined"
        elif len(usable(errors)) < LEAST_SIZES:
            why = f"that takes {LEAST_SIZES} sizes of at least {LEAST_ROWS} rows (a class, where rows have one)"
        elif any(len(each.of_draws) < 2 for each in usable(errors)):
            why = "one draw says nothing of how far others would be from it"
        else:
            through = learning_curve(errors, n_judged)
        return cls(method, is_baseline, tuple(sizes), metric, through, why)

    @property
    def now(self) -> Scores:
        """The scores of all rows."""
        return self.sizes[-1]

    def expected(self, n: int) -> Expected:
        """The score of n rows (a class); raises InputError where nothing can be said of it."""
        if self.through is None:
            raise InputError(f"nothing can be said of {self.method} with more rows: {self.why_not}")
        if n > REACH * self.now.n:
            raise InputError(
                f"{n:,} is more than {REACH} times the {self.now.n:,} that there are: nothing is said of that"
            )
        found = self.through.forecast(n)
        ends = sorted((_score(self.metric, found.low), _score(self.metric, found.high)))
        return Expected(n, ends[0], _score(self.metric, found.middle), ends[1])

    def rows_for(self, wanted: float) -> tuple[int, int] | None:
        """The range of rows (a class) that it takes to score `wanted`; None where that is out of reach, or unknown."""
        return None if self.through is None else self.through.rows_for(_error(self.metric, wanted))

    def sentence(self, unit: str) -> str:
        """What more labels would bring; `unit` is said behind numbers of rows."""
        now = f"now {_figures(self.metric, self.now.mean)}"
        if self.through is None:
            return f"{self.method}: {now} with {count(self.now.n)}{unit}; what more would bring is not known: {self.why_not}"
        far = self.expected(REACH * self.now.n)
        said = f"{self.method}: {count(self.now.n)} -> {count(far.n)}{unit}: {_figures(self.metric, far.low, far.high)}, {now}"
        return "; ".join([said, *self._milestones(far, unit)])

    def _milestones(self, far: Expected, unit: str) -> Iterator[str]:
        """The next round score and how many rows it takes, and the first one that is not in sight."""
        metric = METRICS[self.metric]
        if not metric.higher_is_better or metric.high is None:
            return
        following = _above(self.now.mean)
        rows = self.rows_for(following) if following < metric.high else None
        if rows is not None and rows[1] > self.now.n:
            low, high = (count(_rounded(max(each, self.now.n))) for each in rows)
            yield (
                f"{_figures(self.metric, following)} takes {low} to {high}{unit}"
                if low != high
                else (f"{_figures(self.metric, following)} takes about {high}{unit}")
            )
        beyond = _above(far.high)
        if beyond < metric.high:
            yield f"{_figures(self.metric, beyond)} is not in sight"

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        ahead = [self.expected(k * self.now.n) for k in (2, 4, REACH)] if self.through else []
        return {
            "method": self.method, "is_baseline": self.is_baseline,
            "sizes": [
                {"n": s.n, "rows": s.rows, "scores": list(s.of_draws), "mean": s.mean,
                 "standard_deviation": s.standard_deviation} for s in self.sizes
            ],
            "law": None if self.through is None else self.through.law._asdict(),
            "expected": [each._asdict() for each in ahead], "why_not": self.why_not or None,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """The curves of several methods on one task; baselines are the first."""

    encoder: str
    task: Task
    per_class: bool  # whether n are rows a class
    curves: tuple[ScoreCurve, ...]
    refused: Mapping[str, str]  # method -> why

    def __getitem__(self, method: str) -> ScoreCurve:
        """The curve of a method, or baseline, by its text; raises InputError for another."""
        if method not in self._by_name:
            known = [*self._by_name]
            raise InputError(f"there is no curve of {method}{suggestion(method, known)}: {', '.join(known)}")
        return self._by_name[method]

    @cached_property
    def _by_name(self) -> dict[str, ScoreCurve]:
        return {each.method: each for each in self.curves}

    @property
    def unit(self) -> str:
        """What is said behind a number of rows."""
        return " a class" if self.per_class else " rows"

    def lines(self) -> list[str]:
        """In plain words, a method a line, baselines first."""
        found = [each.sentence(self.unit) for each in self.curves if each.method != "majority"]
        for each in self.curves:
            if each.method == "majority":  # more rows do not make it better
                found.insert(0, f"majority: {_figures(each.metric, each.now.mean)}")
        found += [f"{method} is left out: {why}" for method, why in self.refused.items()]
        found += self._doubts()
        return found

    def _doubts(self) -> Iterator[str]:
        metric = METRICS[self.task.metric]
        others = [each for each in self.curves if not each.is_baseline]
        if others:
            best = max(others, key=lambda each: each.now.mean if metric.higher_is_better else -each.now.mean)
            for each in self.curves:
                if each.is_baseline and not metric.better(best.now.mean, each.now.mean):
                    yield f"no method is better than {each.method} here, which takes seconds"
        if any(each.through for each in self.curves):
            yield (
                f"Ranges hold in {round(10 * LEVEL)} of 10 cases, for the score ({metric_name(self.task)}) on these "
                f"{counted(len(self.task.validation), 'validation row')}; beyond {REACH} times the rows that there are "
                "nothing is told."
            )

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "encoder": self.encoder, "task": self.task.name, "metric": self.task.metric,
            "n_counts": "rows a class" if self.per_class else "rows", "level": LEVEL,
            "curves": [each.as_json() for each in self.curves], "refused": dict(self.refused), "lines": self.lines(),
        }  # fmt: skip


def _error(metric: str, value: float) -> float:
    """How far a score is from the best that there can be."""
    known = METRICS[metric]
    return known.high - value if known.higher_is_better and known.high is not None else value


def _score(metric: str, error: float) -> float:
    """The score of an error, at least the lowest that there can be."""
    known = METRICS[metric]
    if not (known.higher_is_better and known.high is not None):
        return error
    return known.high - error if known.low is None else max(known.low, known.high - error)


def _above(value: float) -> float:
    """The next multiple of _MILESTONE."""
    return round((math.floor(value / _MILESTONE + 1e-9) + 1) * _MILESTONE, 6)


def _rounded(n: int) -> int:
    """To two digits: more would promise too much."""
    return int(float(f"{n:.2g}"))


def _figures(metric: str, *values: float) -> str:
    """One score, or the ends of a range, in percent where scores are shares: 80%, 84 to 88%, 77.1 to 77.8%."""
    known = METRICS[metric]
    if (known.low, known.high) != (0.0, 1.0):
        return " to ".join(map(score, values))
    decimals = 1 if len(values) > 1 and values[-1] - values[0] < _NARROW else 0
    return " to ".join(f"{100 * value:.{decimals}f}" for value in values) + "%"
