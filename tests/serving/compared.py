"""Deltas for pools, what each says by itself, and threads that ask a pool at once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from deltas import make_delta
from small import make_task, sentences

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.inference.predictor import Predictor, predict
from trimtab.serving.pool import Pool, TaskPrediction
from trimtab.tasks.predictions import Prediction

TEXTS = sentences(12, seed=1)
METHODS = ("layer_norms", "lora:rank=2", "biases", "head", "last_layers:k=1", "random:count=40")
KINDS = ("single_label", "multi_label", "regression")


def versions(encoder: Encoder, count: int) -> list[Delta]:
    """Deltas of all methods and kinds in turn."""
    return [make_delta(encoder, make_task(KINDS[i % 3]), METHODS[i % len(METHODS)], i) for i in range(count)]


def norms(encoder: Encoder, count: int) -> list[Delta]:
    """Deltas of one layout."""
    return [make_delta(encoder, make_task(), "layer_norms", seed) for seed in range(count)]


def offline(encoder: Encoder, deltas: list[Delta], texts: list[str] = TEXTS) -> dict[str, dict[str, Prediction]]:
    """What a Predictor of each version says of each text, in float32."""
    found = {}
    for delta in deltas:
        predictor = Predictor(delta, encoder)
        predictor.prepared.use("float32")
        found[delta.sha256[:12]] = dict(zip(texts, predict(predictor, texts), strict=True))
    return found


def is_right(found: TaskPrediction, expected: Prediction) -> bool:
    if expected.value is not None:
        return found.value == pytest.approx(expected.value, rel=1e-4, abs=1e-4)
    return found.label == expected.label and found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


def in_threads(*works: Callable[[], Any]) -> None:
    """Runs them at once; the first error of any is raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def state(of: Pool) -> tuple[set[int], set[int]]:
    """How many use each delta, and how many read it: 1 and 0 for every name where no call is under way."""
    known = of._residents._known.values()
    return {each.users.total() for each in known}, {each.busy for each in known}
