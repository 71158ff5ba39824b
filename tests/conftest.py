"""Fixtures that all tests share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from small import make_encoder_folder

from trimtab.cli import main
from trimtab.encoders.encoder import Encoder, load

# So many threads whatever else the machine does, since sums are rounded by them; one beside other test processes.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else str(os.cpu_count() or 1))
# The same examples in every run, and none that fails because the machine is busy.
settings.register_profile("trimtab", deadline=None, derandomize=True)
settings.load_profile("trimtab")


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoder]:
    """A function from a family to a small Encoder of it, made once."""
    made: dict[str, Encoder] = {}

    def get(family: str) -> Encoder:
        if family not in made:
            made[family] = load(make_encoder_folder(family, tmp_path_factory.mktemp(family) / "encoder"))
        return made[family]

    return get


@pytest.fixture
def encoder(encoder_of: Callable[[str], Encoder]) -> Encoder:
    """A small BERT."""
    return encoder_of("bert")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that no test sees what another has computed or what the user has."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TRIMTAB_CACHE", str(folder))
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `trimtab` with arguments; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
