"""Fits that die on the way, as those of a process that is killed do."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trimtab.training.workbench import Workbench


class Killed(Exception):
    pass


@contextmanager
def dying_before(step: int, error: type[BaseException] = Killed) -> Iterator[None]:
    """The block must die in front of optimizer step `step` (from 0) of its fit, with `error`."""
    train_step = Workbench.train_step

    def step_or_die(bench: Workbench, number: int) -> tuple[float, int]:
        if number == step:
            raise error
        return train_step(bench, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workbench, "train_step", step_or_die)
        with pytest.raises(error):
            yield
