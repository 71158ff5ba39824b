"""Correlations against scipy's."""

import sys
from subprocess import run

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from trimtab.correlation import pearson, ranks, spearman

NUMBERS = st.lists(st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=40)  # ties, and none


@given(NUMBERS)
def test_ranks_are_scipys(values: list[float]) -> None:
    assert ranks(np.array(values)).tolist() == scipy.stats.rankdata(values).tolist()


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_correlations_are_scipys(dtype: type, scale: float) -> None:
    draw = np.random.default_rng(0)
    a = draw.normal(size=500).round(1).astype(dtype)
    b = (a + draw.normal(size=500)).astype(dtype)
    scaled = b.astype(np.float64) * scale
    assert pearson(a, scaled) == pytest.approx(
        scipy.stats.pearsonr(a.astype(np.float64), b.astype(np.float64))[0], abs=1e-12
    )
    assert spearman(a, scaled) == pytest.approx(scipy.stats.spearmanr(a, b)[0], abs=1e-12)


def test_ranks_of_many_float32_do_not_overflow() -> None:
    """The squares of 12 million ranks, added up, are more than float32 holds to the digit, or at all."""
    values = np.random.default_rng(0).random(2_000_000).astype(np.float32)
    assert ranks(values).dtype == np.float64
    assert spearman(values, values) == pytest.approx(1, abs=1e-12)
    assert spearman(values, -values) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("side", [[], [1.0], [2.0, 2.0, 2.0]])
def test_nothing_to_relate(side: list[float]) -> None:
    a, b = np.array(side), np.arange(len(side), dtype=float)
    assert np.isnan(pearson(a, b))
    assert np.isnan(spearman(b, a))


def test_labels_far_from_zero() -> None:
    """Time stamps, of which the mean square is 18 digits from the spread."""
    a = 1.7e9 + np.arange(10.0)
    b = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 8.0])
    assert pearson(a, b) == pytest.approx(pearson(a - 1.7e9, b), abs=1e-9)


def test_neither_a_measurement_nor_a_score_loads_scipys_statistics() -> None:
    """They take half a second, which a user would wait for in every fit of a regression and every measurement."""
    code = (
        "import sys, numpy as np, torch; from trimtab.changes.fisher import stability_of; "
        "from trimtab.changes.selection import Selection; from trimtab.encoders.parameter_kinds import Part; "
        "from trimtab.tasks.metrics import _regression; "
        "within = Selection({'w': Part(0, 'query', 'weight', 50)}, {'w': None}); "
        "stability_of(within, {'w': torch.rand(2, 50)}); _regression(np.ones((3, 1)), np.arange(3.0)); "
        "print('scipy.stats' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
