"""The curve through errors: against a slow exact fit, and against planted curves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar, nnls

from trimtab.results.learning_curve import (
    _EXPONENTS,
    LEVEL,
    REACH,
    Errors,
    fitted_powers,
    learning_curve,
)

SIZES = np.array([32.0, 64, 128, 256, 512])


def squares_of(c: float, n: NDArray, errors: NDArray, weights: NDArray) -> float:
    """The least weighted squares at the exponent c, by scipy."""
    root = np.sqrt(weights)
    return nnls(np.stack([root, root * n**-c], 1), root * errors)[1] ** 2


def slow(n: NDArray, errors: NDArray, weights: NDArray) -> float:
    """The least weighted squares over all exponents."""
    grid = np.linspace(*_EXPONENTS, 400)
    of = [squares_of(c, n, errors, weights) for c in grid]
    at = int(np.argmin(of))
    ends = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = minimize_scalar(squares_of, bounds=ends, args=(n, errors, weights), method="bounded")
    return min(float(found.fun), *of)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 5), st.integers(0, 10**6))
def test_no_other_curve_fits_better(count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    n, weights = SIZES[:count], chance.uniform(0.1, 10, count)
    errors = (
        chance.uniform(0, 0.3) + chance.uniform(0, 2) * n ** -chance.uniform(0.1, 1) + chance.normal(0, 0.01, count)
    )
    a, b, c = fitted_powers(n, errors[None], weights)[0]
    ours = float((weights * (errors - a - b * n**-c) ** 2).sum())
    assert a >= 0 <= b
    assert ours <= slow(n, errors, weights) + 1e-7


def test_a_curve_without_noise_is_found_again() -> None:
    errors = 0.1 + 1.2 * SIZES**-0.6
    assert fitted_powers(SIZES, errors[None], np.ones(5))[0] == pytest.approx([0.1, 1.2, 0.6], abs=1e-3)


def planted(chance: np.random.Generator, law: tuple[float, float, float], largest: int, scale: float) -> list[Errors]:
    """Errors of nested draws from `largest` rows a class, a draw themselves; of n rows they have variance scale² / n."""
    a, b, c = law
    n_draws, sizes = 5, [32 * 2**k for k in range(12) if 32 * 2**k <= largest]
    luck = scale * chance.normal(size=largest)  # of each row
    orders = [chance.permutation(largest) for _ in range(n_draws)]
    return [Errors(n, tuple(a + b * n**-c + float(luck[order[:n]].mean()) for order in orders)) for n in sizes]


@pytest.mark.parametrize(("largest", "scale"), [(128, 0.15), (128, 0.05), (512, 0.15)])
def test_the_truth_is_inside_the_range_about_as_often_as_it_says(largest: int, scale: float) -> None:
    chance, inside, n = np.random.default_rng(1), 0, 120
    for _ in range(n):
        law = chance.uniform(0, 0.25), chance.uniform(0.4, 1.5), chance.uniform(0.2, 0.8)
        found = learning_curve(planted(chance, law, largest, scale), 1000).forecast(REACH * largest)
        inside += found.low <= law[0] + law[1] * found.n ** -law[2] <= found.high
        assert found.low <= found.middle <= found.high
    assert LEVEL - 0.1 <= inside / n <= LEVEL + 0.12, inside / n


def test_more_draws_and_sizes_make_the_range_narrower() -> None:
    def width(largest: int, scale: float) -> float:
        chance = np.random.default_rng(0)
        all_found = [learning_curve(planted(chance, (0.1, 1.0, 0.5), largest, scale), 1000) for _ in range(30)]
        return float(
            np.mean([each.forecast(REACH * largest).high - each.forecast(REACH * largest).low for each in all_found])
        )

    assert width(1024, 0.1) < width(128, 0.1) / 1.5
    assert width(128, 0.02) < width(128, 0.2) / 1.5


def test_equal_draws_of_all_rows_are_not_taken_for_certain() -> None:
    """A regression has no luck of its own: draws of all rows are the same, and still a draw from the world."""
    same = [Errors(32, (0.30, 0.26, 0.32)), Errors(64, (0.24, 0.26, 0.22)), Errors(128, (0.2, 0.2, 0.2))]
    found = learning_curve(same, 500).forecast(1024)
    assert found.high - found.low > 0.01


def test_nothing_is_told_beyond_its_reach_or_of_too_little() -> None:
    sizes = [Errors(n, (0.5 * n**-0.3, 0.51 * n**-0.3)) for n in (8, 32, 64, 128)]
    found = learning_curve(sizes, 100)
    assert found.forecast(1024).n == 1024
    with pytest.raises(ValueError, match="more than 8 times 128"):
        found.forecast(1025)
    with pytest.raises(ValueError, match="3 sizes"):
        learning_curve(sizes[:3], 100)
    with pytest.raises(ValueError, match="2 draws"):
        learning_curve([*sizes[:3], Errors(128, (0.1,))], 100)


def test_below_32_rows_errors_do_not_count() -> None:
    sizes = [Errors(n, (0.5 * n**-0.3, 0.51 * n**-0.3)) for n in (32, 64, 128)]
    assert learning_curve([Errors(8, (0.9, 0.1)), *sizes], 100).law == learning_curve(sizes, 100).law
