"""Regressor: fits of a number a row, as scikit-learn has them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import assert_all_finite, column_or_1d

from ..errors import InputError
from ..tasks.labels import refuse_unresolved
from .columns import columns_of
from .text_estimator import TextEstimator, labels_of


class Regressor(RegressorMixin, TextEstimator):
    """A regressor of texts, or of pairs of texts, for scikit-learn: one number a row.

    Rows, parameters and pickles are those of Classifier, but for the weights of classes; the best step is chosen by
    `mean_squared_error` where `metric` says nothing, as scikit-learn's R2 would.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Learns the numbers `y` of the rows `X`, in memory, and returns the regressor."""
        columns = columns_of(X)
        y = labels_of(y, len(columns.texts[0]), self)
        y = column_or_1d(y, warn=True)
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"y must hold a number for each row ({error})") from None
        assert_all_finite(y, input_name="y")
        if np.ptp(y):  # of equal numbers there is one to predict
            refuse_unresolved("y", y.tolist())
        self._train(columns, "regression", (), y.tolist(), "mean_squared_error")
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The number of each row (N,)."""
        return self._logits(X).numpy()[:, 0]
