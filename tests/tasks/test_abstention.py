"""Abstention: the bound of an error against scipy's, the rows that are answered, and whether the promise is kept."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from trimtab.errors import InputError
from trimtab.tasks.abstention import (
    LEVEL,
    NOTHING,
    check_abstains,
    checked_abstain,
    chosen_abstention,
    least_rows,
    risk_coverage,
    upper_bound,
)


@pytest.mark.parametrize(("wrong", "n"), [(0, 1), (0, 45), (1, 45), (7, 300), (45, 45), (299, 300)])
def test_the_bound_is_that_of_clopper_and_pearson(wrong: int, n: int) -> None:
    # Two-sided at 80% has the same upper end as one-sided at 90%.
    expected = binomtest(wrong, n).proportion_ci(2 * LEVEL - 1, method="exact").high
    assert upper_bound(wrong, n) == pytest.approx(expected, rel=1e-9)
    if wrong < n:  # and by its definition
        assert binom.cdf(wrong, n, upper_bound(wrong, n)) == pytest.approx(1 - LEVEL)


@pytest.mark.parametrize("error", [0.001, 0.01, 0.05, 0.2, 0.5, 0.95])
def test_the_least_rows_are_the_least(error: float) -> None:
    n = least_rows(error)
    assert upper_bound(0, n) <= error
    assert n == 1 or upper_bound(0, n - 1) > error


def slow(confidence: NDArray, right: NDArray, error: float) -> int:
    """How many rows are answered, without ties: one step after the other."""
    n, order, answered = len(confidence), np.argsort(-confidence), 0
    for i in range(1, 51):
        k = max(1, math.ceil(n * i / 50))
        if upper_bound(int((~right[order[:k]]).sum()), k) <= error:
            answered = k
    return answered


def drawn(n: int, seed: int) -> tuple[NDArray, NDArray]:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, n).astype(np.float32)
    return confidence, generator.random(n) < confidence


@pytest.mark.parametrize("n", [50, 91, 400, 1500])
@pytest.mark.parametrize("error", [0.05, 0.1, 0.2, 0.4])
def test_as_many_are_answered_as_can_be(n: int, error: float) -> None:
    for seed in range(5):
        confidence, right = drawn(n, seed)
        found = chosen_abstention(confidence, right, error)
        assert found.answered == slow(confidence, right, error)
        answered = confidence >= found.below
        assert answered.sum() == found.answered
        assert (~right[answered]).sum() == found.wrong
        assert not found.answered or upper_bound(found.wrong, found.answered) <= error


def test_rows_of_one_confidence_are_answered_together() -> None:
    confidence = np.repeat(np.float32([0.99, 0.9, 0.6]), [100, 100, 100])
    right = np.concatenate([np.full(200, True), np.full(100, False)])
    found = chosen_abstention(confidence, right, 0.05)
    assert (found.answered, found.wrong) == (200, 0)
    assert 0.6 < found.below <= 0.9
    assert "67%" in found.line()


def test_all_rows_are_answered_where_all_may_be_and_none_where_none_may() -> None:
    confidence = np.linspace(0.5, 1, 200)
    everything = chosen_abstention(confidence, np.full(200, True), 0.05)
    assert (everything.answered, everything.below) == (200, 0.0)
    nothing = chosen_abstention(confidence, np.full(200, False), 0.05)
    assert (nothing.answered, nothing.below) == (0, NOTHING)
    assert "No answer is given" in nothing.line()


def test_the_promise_is_kept_in_nine_of_ten_draws() -> None:
    kept, answers = 0, []
    for seed in range(400):
        confidence, right = drawn(500, seed)
        found = chosen_abstention(confidence, right, 0.1)
        # The true error of rows above c is the mean of 1 - confidence there.
        true = (1 - max(found.below, 0.5)) / 2 if found.answered else 0.0
        kept += true <= 0.1
        answers.append(found.answered)
    assert kept / 400 >= LEVEL
    assert np.mean(answers) > 100  # of some 200 that could be


def test_the_curve_is_the_error_of_the_surest() -> None:
    confidence, right = drawn(333, 1)
    curve = risk_coverage(confidence, right)
    assert len(curve) == 100
    assert curve[-1] == {"coverage": 1.0, "error": pytest.approx((~right).mean())}
    for each in curve[::7]:
        k = round(each["coverage"] * 333)
        assert each["error"] == pytest.approx((~right[np.argsort(-confidence)[:k]]).mean())
    assert len(risk_coverage(confidence[:3], right[:3])) == 3


@pytest.mark.parametrize("value", ["0", "0%", 1, "100%", -0.1, "five", "", float("nan"), "200%"])
def test_what_is_no_share_is_refused(value: float | str) -> None:
    with pytest.raises(InputError, match="above 0% and below 100%"):
        checked_abstain(value)


def test_a_share_may_be_written_in_two_ways() -> None:
    assert (checked_abstain("5%"), checked_abstain("0.05"), checked_abstain(0.05)) == (0.05, 0.05, 0.05)
    assert checked_abstain(None) is None


def test_rows_that_cannot_show_it_are_refused_before_a_fit() -> None:
    with pytest.raises(InputError, match=r"needs 45 validation rows.*there are 44"):
        check_abstains("single_label", 44, 0.05)
    check_abstains("single_label", 45, 0.05)
    check_abstains("multi_label", 3, None)
    for kind in ("multi_label", "regression"):
        with pytest.raises(InputError, match="each row has one class"):
            check_abstains(kind, 500, 0.05)
