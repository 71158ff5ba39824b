"""Baselines: what a score is worth nothing without. The largest class, a bag of words, and frozen vectors, each in seconds."""

# Shapes: N rows, F features, C outputs.

from __future__ import annotations

import importlib.util
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..encoders.encoder import Encoder
from ..errors import InputError
from ..results.recipe import Settings
from ..tasks.losses import TaskLoss, label_tensor
from ..tasks.task import Rows, Task
from .frozen import frozen_vectors
from .linear_probe import fitted_probe

_C = 10.0  # inverse penalty of the bag of words
_TINY = 1e-6  # the least probability that a constant gives a class
_KEPT = 4  # splits of tasks whose vectors stay in memory


class Judged(NamedTuple):
    """What a baseline says of the validation rows."""

    logits: Tensor  # (N, C) float32
    n_parameters: int
    seconds: float  # as if nothing had been computed before


@dataclass(frozen=True)
class Majority:
    """Of every row the same: the shares of the classes among the training rows, or their mean."""

    name: ClassVar[str] = "majority"
    settings: ClassVar[tuple[str, ...]] = ()  # those that decide it, beside the training rows

    def judged(self, encoder: Encoder, task: Task, whole: Task, settings: Settings) -> Judged:
        """The training rows are those of `task`, which may be some of those of `whole`."""
        began = time.perf_counter()
        labels = label_tensor(task, task.train).double()
        if task.kind == "regression":
            constant = labels.mean()[None]
        elif task.kind == "multi_label":
            constant = torch.logit(labels.mean(0).clamp(_TINY, 1 - _TINY))
        else:
            counts = torch.bincount(labels.long(), minlength=task.n_outputs).double()
            constant = (counts / counts.sum()).clamp(min=_TINY).log()
        logits = constant.float().expand(len(task.validation), -1)
        return Judged(logits, task.n_outputs, time.perf_counter() - began)


@dataclass(frozen=True)
class BagOfWords:
    """TF-IDF of words and pairs of neighbouring words with logistic regression, or ridge regression; of a pair, of each text."""

    name: ClassVar[str] = "tf-idf"
    settings: ClassVar[tuple[str, ...]] = ()

    def judged(self, encoder: Encoder, task: Task, whole: Task, settings: Settings) -> Judged:
        """As `Majority.judged`; raises InputError without scikit-learn, or where no text has a word."""
        if not importlib.util.find_spec("sklearn"):
            raise InputError("it needs scikit-learn: pip install 'trimtab[sklearn]'")
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer

        began = time.perf_counter()
        train, validation = [], []
        for texts, new in zip(task.train.texts, task.validation.texts, strict=True):
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            try:
                train.append(words.fit_transform(texts))
            except ValueError:  # of a vocabulary without a word
                raise InputError("no training row has a word of two letters") from None
            validation.append(words.transform(new))
        x: Any = hstack(train, "csr")
        judged: Any = hstack(validation, "csr")
        labels = label_tensor(task, task.train).numpy()
        if task.kind == "regression":
            from sklearn.linear_model import Ridge

            logits = Ridge(alpha=1 / _C).fit(x, labels).predict(judged)[:, None]
        elif task.kind == "multi_label":
            logits = np.stack([_log_odds(x, labels[:, c], judged) for c in range(task.n_outputs)], 1)
        else:
            logits = _class_logits(x, labels, judged, task.n_outputs)
        n_parameters = (x.shape[1] + 1) * task.n_outputs
        return Judged(torch.from_numpy(np.asarray(logits, np.float32)), n_parameters, time.perf_counter() - began)


@dataclass(frozen=True)
class FrozenVectors:
    """The encoder's mean vectors as they are, with logistic or ridge regression."""

    name: ClassVar[str] = "frozen vectors"
    settings: ClassVar[tuple[str, ...]] = ("max_length", "compute")

    def judged(self, encoder: Encoder, task: Task, whole: Task, settings: Settings) -> Judged:
        """As `Majority.judged`; rows of `whole` that have been read before are not read again."""
        began, read = time.perf_counter(), _Read()
        x, judged = (_vectors(encoder, of, rows, whole, settings, read) for of, rows in (
            ("train", task.train), ("validation", task.validation)
        ))  # fmt: skip
        probe = fitted_probe(x, label_tensor(task, task.train), TaskLoss(task.kind), task.n_outputs)
        logits = judged @ probe.weight.T + probe.bias
        seconds = time.perf_counter() - began - read.seconds + read.rows_seconds
        return Judged(logits, probe.weight.numel() + probe.bias.numel(), seconds)


Baseline = Majority | BagOfWords | FrozenVectors
BASELINES: tuple[Baseline, ...] = (Majority(), BagOfWords(), FrozenVectors())


def _log_odds(x: Any, has: NDArray, judged: Any) -> NDArray:
    """Of one label of many (N,); constant where all training rows have it, or none."""
    from sklearn.linear_model import LogisticRegression

    if has.min() == has.max():
        share = min(max(float(has[0]), _TINY), 1 - _TINY)
        return np.full(judged.shape[0], math.log(share / (1 - share)))
    return LogisticRegression(C=_C, max_iter=1000).fit(x, has).decision_function(judged)


def _class_logits(x: Any, labels: NDArray, judged: Any, n_classes: int) -> NDArray:
    """(N, C): log-probabilities; tiny for classes that no training row has."""
    from sklearn.linear_model import LogisticRegression

    there = np.unique(labels)
    logits = np.full((judged.shape[0], n_classes), math.log(_TINY))
    if len(there) == 1:
        logits[:, there[0]] = 0.0
        return logits
    found = LogisticRegression(C=_C, max_iter=1000).fit(x, labels)
    logits[:, there] = np.maximum(found.predict_log_proba(judged), math.log(_TINY))
    return logits


@dataclass
class _Read:
    """The seconds that reading rows took now, and those that all of the rows would take."""

    seconds: float = 0.0
    rows_seconds: float = 0.0


@dataclass(eq=False)
class _Known:
    """The vectors of the rows of one split that have been read, by text."""

    of: dict[tuple[str, ...], Tensor]
    seconds: float = 0.0


_KNOWN: OrderedDict[tuple[Any, ...], _Known] = OrderedDict()


def _vectors(encoder: Encoder, split: str, rows: Rows, whole: Task, settings: Settings, read: _Read) -> Tensor:
    """The vectors (N, F) of the rows, of which only those are computed that are not in memory."""
    of_split = whole.rows_sha256[split != "train"]
    key = encoder.sha256, encoder.config_sha256, split, of_split, settings.max_length, settings.compute
    known = _KNOWN.setdefault(key, _Known({}))
    _KNOWN.move_to_end(key)
    while len(_KNOWN) > _KEPT:
        _KNOWN.popitem(last=False)
    texts = list(zip(*rows.texts, strict=True))
    new = _first_of_each(texts, known)
    if new:
        began = time.perf_counter()
        found = frozen_vectors(encoder, whole, rows.take(new), settings, settings.compute)  # pyright: ignore[reportArgumentType]
        known.of |= {texts[row]: vector for row, vector in zip(new, found, strict=True)}
        took = time.perf_counter() - began
        read.seconds += took
        known.seconds += took
    read.rows_seconds += known.seconds / len(known.of) * len(rows)
    return torch.stack([known.of[text] for text in texts])


def _first_of_each(texts: Sequence[tuple[str, ...]], known: _Known) -> list[int]:
    """The rows of texts that are not known, one of each text."""
    return list({text: row for row, text in reversed(list(enumerate(texts))) if text not in known.of}.values())[::-1]
