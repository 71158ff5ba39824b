"""Deltas in which nothing is wrong, for tests that change them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tensor_files import METHODS, save_sound

from trimtab.encoders.encoder import Encoder


@pytest.fixture(scope="session")
def sound(encoder_of: Callable[[str], Encoder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a sound delta by each kind of method."""
    return {kind: save_sound(kind, encoder_of("bert"), tmp_path_factory.mktemp(kind)) for kind in METHODS}
