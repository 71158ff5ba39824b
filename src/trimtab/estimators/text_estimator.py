"""What Classifier and Regressor share: parameters, the fit in memory, the predictor behind them, and pickles of kilobytes."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..encoders.encoder import Encoder, encoder_of
from ..encoders.places import Place
from ..encoders.resident import resident
from ..errors import InputError, counted
from ..inference.predictor import Predictor
from ..tasks.holdout import hold_out
from ..tasks.metrics import check_metric
from ..tasks.task import SPLITS, Kind, Rows, Task
from ..training.display import Display
from ..training.fit import steps
from .columns import Columns, columns_of

# Parameters whose names are those of Settings, and others -> theirs. Class weights are the classifier's.
_SETTINGS = {
    name: name
    for name in ("epochs", "batch_size", "weight_decay", "max_length", "head", "pairs", "dropout", "patience", "compute")
} | {"learning_rate": "lr", "head_learning_rate": "head_lr"}  # fmt: skip


class _Loaded:
    """What predicts, once it has been asked to: an attribute that stays the same object, since predicting changes no estimator.

    Copies and pickles of it are empty.
    """

    predictor: Predictor | None = None

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()


class TextEstimator(BaseEstimator):
    """An encoder with a change that `fit` trains, for texts or pairs of texts."""

    def __init__(
        self, encoder: Any = "minilm", method: Any = "layer_norms", *, epochs: int | None = None,
        learning_rate: float | None = None, head_learning_rate: float | None = None, batch_size: int = 32,
        weight_decay: float = 0.01, max_length: int = 256, head: str = "auto", pairs: str = "auto",
        dropout: float | None = None, patience: int | None = None, metric: str | None = None,
        validation_share: float = 0.1, compute: str = "auto", random_state: Any = 0, verbose: bool = False,
    ):  # fmt: skip
        # scikit-learn copies estimators by their parameters: nothing is checked or changed here.
        self.encoder = encoder
        self.method = method
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.max_length = max_length
        self.head = head
        self.pairs = pairs
        self.dropout = dropout
        self.patience = patience
        self.metric = metric
        self.validation_share = validation_share
        self.compute = compute
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator: rows are texts, and labels are needed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags

    def _train(
        self, columns: Columns, kind: Kind, classes: Sequence[str], labels: list[Any], metric: str, **settings: Any
    ) -> None:  # fmt: skip
        """Fits on rows with these labels (as a Task has them) and keeps what came of it; nothing is written to a run folder."""
        seed = self._seed()
        splits, note = _divided(Rows(columns.texts, labels), kind, self.validation_share, seed)
        names = columns.names or (("text",) if len(columns.texts) == 1 else ("text_a", "text_b"))
        metric = check_metric(self.metric or metric, kind)
        task = Task(type(self).__name__.lower(), kind, tuple(classes), names, "y", metric, splits, notes=(note,))
        given = {setting: getattr(self, name) for name, setting in _SETTINGS.items()}
        # A search may bring numpy's numbers.
        given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        # On rows that it has learned from a model is surer than on others.
        if splits["train"] is splits["validation"]:
            settings["calibrate"] = False
        # Read here and not by `fit`, whose Ctrl-C keeps what there is: a search would go on with its next fit.
        events = steps(_encoder(self.encoder), task, self.method, **given, **settings, seed=seed)
        display = Display(bool(self.verbose))
        with events, display:
            for event in events:
                display.show(event)
        run = events.run
        self.delta_ = run.delta
        self.history_ = run.history
        self.notes_ = [note, *run.notes]
        self._loaded = _Loaded()
        vars(self).pop("feature_names_in_", None)  # of an earlier fit
        if columns.names is not None:
            self.feature_names_in_ = np.array(columns.names, dtype=object)

    def _logits(self, rows: Any) -> Any:
        """Float64 logits (N, C) of the rows, a tensor; raises NotFittedError, or InputError for rows unlike those of `fit`."""
        check_is_fitted(self)
        columns = columns_of(rows)
        wanted = self.delta_.task["text_columns"]
        if len(columns.texts) != len(wanted):
            raise InputError(f"X has {len(columns.texts)} text(s) a row, and fit was given {len(wanted)}")
        fitted = getattr(self, "feature_names_in_", None)
        if fitted is not None and columns.names is not None and tuple(fitted) != columns.names:
            raise InputError(
                f"the columns of X are {', '.join(columns.names)}, and fit was given {', '.join(fitted)}: give them by the same "
                "names, in that order"
            )
        if self._loaded.predictor is None:
            self._loaded.predictor = Predictor(self.delta_, self._base())
        return self._loaded.predictor.logits(Rows(columns.texts, [None] * len(columns.texts[0]))).double()

    def _base(self) -> Encoder:
        """The encoder that the delta was trained on, found where it was then, or else where the parameter says.

        Whether its hash is that one's is checked when the delta is attached.
        """
        if isinstance(self.encoder, Encoder) and self.encoder.sha256 == self.delta_.base["sha256"]:
            return self.encoder
        try:
            return resident(self.delta_.base["place"], self.delta_.base["revision"])
        except InputError as error:
            try:
                return _encoder(self.encoder)
            except InputError:
                raise InputError(
                    f"{error} (the encoder that this {type(self).__name__} was fitted with; set_params(encoder=...) says where "
                    "it is now)"
                ) from error

    def _seed(self) -> int:
        """`random_state` as a seed: itself where it is a number, so that the fit is that of `trimtab.fit(seed=...)`."""
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __getstate__(self) -> dict[str, Any]:
        """An Encoder by where it lies: a pickle names it, and the delta in there has its hash."""
        state = {**cast(dict[str, Any], super().__getstate__())}
        if isinstance(self.encoder, Encoder):
            revision = self.encoder.revision
            state["encoder"] = f"{self.encoder.place}@{revision}" if revision else self.encoder.place
        return state


def labels_of(y: Any, n_rows: int, estimator: Any) -> Any:
    """`y` as scikit-learn takes it, as long as there are rows; raises ValueError where it is missing or of another length."""
    if y is None:
        # In the words by which scikit-learn's own estimators, and its checks, say so.
        raise InputError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    if hasattr(y, "toarray"):
        y = y.toarray()
    try:
        y = np.asarray(y)
    except ValueError:  # lists of unequal length
        raise InputError("y holds lists: for several classes a row give the matrix of a MultiLabelBinarizer") from None
    check_consistent_length(y, range(n_rows))
    return y


def _encoder(given: Any) -> Encoder:
    """The Encoder of that name that this process has, or the one given."""
    return encoder_of(given) if isinstance(given, Encoder | Place) or not _is_name(given) else resident(given)


def _is_name(given: Any) -> bool:
    return isinstance(given, str) or hasattr(given, "__fspath__")


def _divided(rows: Rows, kind: Kind, share: Any, seed: int) -> tuple[dict[str, Rows], str]:
    """The rows given as rows to learn from and to choose the best step by, and what is to be said of that.

    Where none can be spared, all rows are both.
    """
    if not isinstance(share, numbers.Real) or not 0 <= float(share) < 1:
        raise InputError(f"validation_share={share!r} must be a number, at least 0 and below 1")
    if share:
        try:
            train, validation, note = hold_out(rows, kind, float(share), seed, twins=True)
            return dict(zip(SPLITS, (train, validation), strict=False)), note
        except InputError:  # too few rows, or one of each class
            pass
    why = "none could be spared" if share else "validation_share=0"
    note = f"the best step was chosen on the {counted(len(rows), 'row')} that were learned from ({why})"
    return dict(zip(SPLITS, (rows, rows), strict=False)), note
