"""Classifier: fits of one class a row, or any number of them, as scikit-learn has them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from ..errors import InputError
from ..tasks.decision_rule import DecisionRule
from ..tasks.read import MAIN_METRICS
from .columns import columns_of
from .text_estimator import TextEstimator, labels_of


class Classifier(ClassifierMixin, TextEstimator):
    """A classifier of texts, or of pairs of texts, for scikit-learn: an encoder of which `method` trains a small change.

    Rows are a list, an array or a Series (pandas, polars) of texts; for pairs a list of pairs, or two columns. `y` holds one
    class a row, or as an indicator matrix (N, C) any number of them. `encoder` and `method` are what `trimtab.fit` takes,
    `learning_rate` and `head_learning_rate` its lr and head_lr, `class_weight` is None, "balanced" or weights by class, and the
    others are fields of Settings. Of the rows given to `fit` a share is held out by `random_state`, as `trimtab.fit` does, to
    choose the best step by `metric` (accuracy; of several classes f1_macro); with `validation_share=0`, or too few rows, all are
    learned from and judge.

    `classes_` are sorted, and the columns of `predict_proba` in their order. `delta_` is what was trained: `delta_.save(folder)`
    makes a folder of it that `trimtab.predict` and the other commands take. A pickle holds the delta and names the encoder, whose
    hash is compared when the first prediction loads it. Raises InputError, which is a ValueError, as `trimtab.fit` does.
    """

    def __init__(
        self, encoder: Any = "minilm", method: Any = "layer_norms", *, epochs: int | None = None,
        learning_rate: float | None = None, head_learning_rate: float | None = None, batch_size: int = 32,
        weight_decay: float = 0.01, max_length: int = 256, head: str = "auto", pairs: str = "auto",
        class_weight: Any = None, label_smoothing: float = 0.0, dropout: float | None = None, patience: int | None = None,
        metric: str | None = None, validation_share: float = 0.1, compute: str = "auto", random_state: Any = 0,
        verbose: bool = False,
    ):  # fmt: skip
        super().__init__(
            encoder, method, epochs=epochs, learning_rate=learning_rate, head_learning_rate=head_learning_rate,
            batch_size=batch_size, weight_decay=weight_decay, max_length=max_length, head=head, pairs=pairs, dropout=dropout,
            patience=patience, metric=metric, validation_share=validation_share, compute=compute, random_state=random_state,
            verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing

    def __sklearn_tags__(self) -> Any:
        """Also rows of several classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Learns the classes `y` of the rows `X`, in memory, and returns the classifier."""
        columns = columns_of(X)
        y = labels_of(y, len(columns.texts[0]), self)
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if type_of_target(y, input_name="y") == "multilabel-indicator":
            # As scikit-learn's forests have it: with one array for all, its scorers would take two labels for two classes.
            kind, classes, named = "multi_label", [np.array([0, 1])] * y.shape[1], range(y.shape[1])
            labels: list[Any] = [np.flatnonzero(row).tolist() for row in y]
        else:
            classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
            kind, named, labels = "single_label", classes, codes.tolist()
            if len(classes) < 2:
                raise InputError(
                    f"y holds one class only, {classes.tolist()[0]!r:.40}: there is nothing to learn; give rows of two"
                )
        weights = self._class_weights([*named])
        self._train(
            columns, kind, [str(name) for name in named], labels, MAIN_METRICS[kind],
            class_weights=weights, label_smoothing=self.label_smoothing,
        )  # fmt: skip
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> NDArray:
        """The class of each row (N,), or 0 and 1 for each of several classes (N, C)."""
        likely = self.predict_proba(X)
        if isinstance(self.classes_, list):
            return DecisionRule.from_json(self.delta_.task).given(likely)
        return self.classes_[likely.argmax(-1)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class (N, C), in the order of `classes_`; where a row may have several, each by itself."""
        logits = self._logits(X)
        return (logits.sigmoid() if isinstance(self.classes_, list) else logits.softmax(-1)).numpy()

    def _class_weights(self, named: list[Any]) -> Any:
        """As Settings have them; raises InputError for a class that is none."""
        if self.class_weight is None or self.class_weight == "balanced":
            return self.class_weight or "none"
        if not isinstance(self.class_weight, dict):
            raise InputError(
                f"class_weight={self.class_weight!r:.60} must be None, 'balanced' or a dict of weights by class"
            )
        unknown = [name for name in self.class_weight if name not in named]
        if unknown:
            raise InputError(f"class_weight: {unknown[0]!r} is no class of y; the classes are {named[:20]}")
        return {str(name): weight for name, weight in self.class_weight.items()}
