"""trimtab movement as a user meets it."""

import json

import pytest

from commands.animals import ODD


def test_movement(command, encoder, table, run_folder, tmp_path):
    info = tmp_path / "info.safetensors"
    assert command("fisher", encoder.folder, table, *ODD, "--within", "full", "--examples", 20, "--out", info)[0] == 0
    picture = tmp_path / "moved.svg"
    code, printed, said = command("movement", run_folder, "--fisher", info, "--plot", picture, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert found["by_kind"]["query"]["mean"] > 0
    assert found["foreseen"]["overlap"]["0.1"]["chance"] == pytest.approx(0.1, rel=0.01)
    assert picture.is_file()
    code, printed, _ = command("movement", run_folder, "--fisher", info, "--plot", picture)
    assert "by chance" in printed
    assert "relative norm" in printed
    code, _, said = command("movement", run_folder, "--fisher", run_folder / "delta.safetensors", "--plot", picture)
    assert code == 2
    assert "no file of Fisher information" in said
