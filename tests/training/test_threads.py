"""Several threads of one process: each fit comes to the bits that it has alone."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from small import make_task
from transformers.utils import logging

from trimtab.changes.methods import LayerNorms
from trimtab.changes.top import Random
from trimtab.encoders.encoder import quiet
from trimtab.inference.predictor import Predictor
from trimtab.training.fit import fit


def side_by_side(*works: Callable[[], Any]) -> list[Any]:
    """What each of the works returns, all begun at the same time."""
    found: list[Any] = [None] * len(works)
    ready = threading.Barrier(len(works))

    def do(number: int) -> None:
        ready.wait()
        found[number] = works[number]()

    threads = [threading.Thread(target=do, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_fits_and_predictors_beside_a_fit_change_none_of_its_bits(encoder):
    task = make_task(n_train=48, n_validation=8)

    def fitted(seed: int):
        return fit(encoder, task, Random(count=300), epochs=2, batch_size=8, seed=seed, compute="float32")

    alone = [fitted(seed) for seed in (0, 1)]
    small = fit(encoder, task, LayerNorms(), epochs=1)
    answering = side_by_side(
        lambda: fitted(0), lambda: fitted(1), lambda: [Predictor(small, encoder) for _ in range(12)]
    )
    for expected, found in zip(alone, answering[:2], strict=True):
        assert found.selection == expected.selection
        assert found.baseline == expected.baseline
        assert all(torch.equal(found.delta.values[name], value) for name, value in expected.delta.values.items())


def test_a_predictor_is_ready_for_several_threads_when_it_is_made(encoder):
    run = fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1)
    assert Predictor(run, encoder).prepared.packed


def test_what_transformers_prints_is_restored_behind_the_last_thread():
    before, first_is_in, second_is_in, first_is_out = logging.get_verbosity(), *(threading.Event() for _ in range(3))

    def first() -> None:
        with quiet():
            first_is_in.set()
            assert second_is_in.wait(10)
        first_is_out.set()

    def second() -> int:
        assert first_is_in.wait(10)
        with quiet():
            second_is_in.set()
            assert first_is_out.wait(10)
            return logging.get_verbosity()

    logging.set_verbosity_info()
    try:
        assert side_by_side(first, second)[1] == logging.ERROR
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)
