"""scikit-learn's own checks of an estimator, which are about numbers: a subclass writes each row of them as words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data
from small import WORDS

from trimtab import Classifier, Encoder, Regressor

# A row is computed with others in one pass: float32 sums are rounded by how many there are, and these two ask for 7 digits.
# Whether they pass is a matter of the processor.
_ROUNDED = dict.fromkeys(
    ("check_methods_subset_invariance", "check_methods_sample_order_invariance"),
    "a prediction depends on the others in its pass by float32's rounding",
)
_EDGES = np.linspace(-3, 3, len(WORDS) - 1)
# The encoder is small and random, so that all of it is trained where a score is asked for.
_SMALL: dict[str, Any] = {"encoder": "encoder", "epochs": 2, "batch_size": 16, "head": "linear", "compute": "float32"}
_LEARNING: dict[str, Any] = {"method": "full", "epochs": 25, "learning_rate": 3e-3, "validation_share": 0}


class _Numbers:
    """Rows of numbers for an estimator of texts: each number is the word of the interval that it lies in."""

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(_words(validate_data(self, X)), y)  # pyright: ignore[reportAttributeAccessIssue]

    def _logits(self, rows: Any) -> Any:
        check_is_fitted(self)
        return super()._logits(_words(validate_data(self, rows, reset=False)))  # pyright: ignore[reportAttributeAccessIssue]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # pyright: ignore[reportAttributeAccessIssue]
        tags.input_tags.string, tags.input_tags.two_d_array = False, True
        return tags


class NumbersClassifier(_Numbers, Classifier):
    """Of the classes of rows of numbers."""


class NumbersRegressor(_Numbers, Regressor):
    """Of the numbers of rows of numbers."""


def _words(numbers: np.ndarray) -> list[str]:
    return [" ".join(WORDS[k] for k in np.searchsorted(_EDGES, row)) for row in numbers]


def _checks(estimator: Any) -> list[Any]:
    """Every check of this estimator, the longest as slow ones; those that do not apply to it are skipped by themselves."""
    found = []
    for each, check in estimator_checks_generator(estimator):
        name = getattr(check, "func", check).__name__
        options = getattr(check, "keywords", {})
        if name.endswith("s_train"):  # which asks for a score
            each = clone(each).set_params(**_LEARNING)
        named = "-".join([type(each).__name__, name, *(f"{key}={value}" for key, value in options.items())])
        marks = [pytest.mark.slow] if name.endswith("s_train") else []
        if name in _ROUNDED:
            marks.append(pytest.mark.xfail(reason=_ROUNDED[name], strict=False))
        found.append(pytest.param(each, check, id=named, marks=marks))
    return found


@pytest.fixture(autouse=True)
def _beside_the_encoder(encoder_of: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder where the small encoder lies under the name that the estimators have of it."""
    monkeypatch.chdir(encoder_of("bert").folder.parent)


@pytest.mark.parametrize(
    ("estimator", "check"), [*_checks(NumbersClassifier(**_SMALL)), *_checks(NumbersRegressor(**_SMALL))]
)
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]):
    check(estimator)
