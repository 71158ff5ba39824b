"""A table, and a run of it, that the subcommands are tried on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import write_csv

from commands.animals import animal_rows


@pytest.fixture
def table(tmp_path) -> Path:
    return write_csv(tmp_path / "odd names.csv", animal_rows())


@pytest.fixture(scope="session")
def run_folder(encoder_of, tmp_path_factory) -> Path:
    """A finished run, made through the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("cli")
    table = write_csv(folder / "animals.csv", animal_rows(160))
    arguments = [
        "fit", encoder_of("bert").folder, table, "--text", "What they said", "--label", "Verdict", "--method", "full",
        "--epochs", "8", "--lr", "0.005", "--batch-size", "16", "--dropout", "0", "--head", "default",
        "--head-start", "random", "--out", folder / "run", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["scores"]["accuracy"] > answer["baseline"]["accuracy"]
    assert "best so far" in done.stderr
    return folder / "run"
