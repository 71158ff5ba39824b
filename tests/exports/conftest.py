"""Runs of small random encoders that tests export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import make_task

from trimtab.training.fit import fit


@pytest.fixture(scope="session")
def run_of(encoder_of: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function from a kind of task, a family and settings to the folder of a run that is made once."""
    made: dict[str, Path] = {}

    def get(
        kind: str = "single_label", family: str = "bert", *, of_pairs: bool = False, method: str = "layer_norms", **settings: Any
    ) -> Path:  # fmt: skip
        key = repr((kind, family, of_pairs, method, settings))
        if key not in made:
            folder = tmp_path_factory.mktemp("run") / "run"
            task = make_task(kind, n_train=24, n_validation=12, pairs=of_pairs)
            fit(encoder_of(family), task, method, epochs=1, out=folder, compute="float32", **settings)
            made[key] = folder
        return made[key]

    return get
