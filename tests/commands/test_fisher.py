"""trimtab fisher as a user meets it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small import write_csv

from commands.animals import ODD, animal_rows


def test_fisher_and_a_fit_of_its_selection(command, encoder, table, tmp_path):
    out, chosen = tmp_path / "info.safetensors", tmp_path / "chosen.safetensors"
    options = [
        "--examples",
        40,
        "--within",
        "full",
        "--estimator",
        "exact",
        "--share",
        0.01,
        "--save-selection",
        chosen,
    ]
    code, printed, said = command("fisher", encoder.folder, table, *ODD, *options, "--out", out, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert sum(entry["share"] for entry in found["by_kind"].values()) == pytest.approx(1)
    assert found["rows"] == [40]
    assert "correlation" in said
    assert Path(found["plot"]).is_file()
    run = tmp_path / "run"
    method = f"selection:file={chosen}"
    code, printed, said = command(
        "fit", encoder.folder, table, *ODD, "--method", method, "--epochs", 1, "--out", run, "--json"
    )
    assert code == 0, said
    assert json.loads(printed.splitlines()[-1])["elements"]["body"] == found["selected"]
    code, printed, _ = command("fisher", encoder.folder, table, *ODD, "--examples", 20, "--out", out)
    assert code == 0
    assert "by layer" in printed


def test_fisher_over_tasks(command, encoder, table, tmp_path):
    other = write_csv(tmp_path / "other.csv", animal_rows(60))
    out = tmp_path / "global.safetensors"
    code, printed, said = command(
        "fisher", encoder.folder, table, other, *ODD, "--global", "--examples", 20, "--out", out, "--json"
    )
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert len(found["stability"]) == 2
    assert sum(entry["sum"] for entry in found["by_kind"].values()) == pytest.approx(1, rel=1e-4)


def test_a_share_of_information_needs_a_file_to_go_to(command, encoder, table):
    code, _, err = command("fisher", encoder.folder, table, "--share", "0.1")
    assert (code, "--save-selection" in err) == (2, True), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--global"], "two tasks or more"),
        (["--save-selection", "x", "--share", 0], "share=0"),
        (["--save-selection", "x", "--share", 1.5], "share=1.5"),
        (["--save-selection", "x"], "needs --share or --count"),
        (["--within", "fisher"], "unknown method"),
        (["--save-selection", "x", "--share", 0.1], "--save-selection x: name a file that ends in .safetensors"),
        (["--save-selection", "info.safetensors", "--out", "info.safetensors", "--share", 0.1], "a file of its own"),
        (["--estimator", "true"], "estimator must be one of"),
        (
            ["--save-selection", "chosen.safetensors", "--count", 10**9],
            "less than the 1,000,000,000 to choose (--count)",
        ),
    ],
)
def test_bad_fisher_options(options, message, command, encoder, table, tmp_path):
    code, _, said = command(
        "fisher", encoder.folder, table, *ODD, "--examples", 5, "--out", tmp_path / "info.safetensors", *options
    )
    assert code == 2
    assert message in said
    assert not Path("x").exists()
    assert not (tmp_path / "info.safetensors").exists(), "refused before anything was measured"


def test_fisher_replaces_only_what_it_has_written(command, encoder, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights, picture = tmp_path / "weights.safetensors", tmp_path / "info.png"
    save_file({"weight": torch.ones(2)}, weights)
    picture.write_text("mine")
    before = weights.read_bytes()
    measured = ("fisher", encoder.folder, table, *ODD, "--examples", 5)
    for options in (("--out", weights), ("--save-selection", weights, "--share", 0.5)):
        code, _, said = command(*measured, *options)
        assert (code, "this file holds something else" in said) == (2, True), said
    # The default of --out counts too.
    default = Path("runs") / "odd-names-fisher.safetensors"
    code, _, said = command(*measured, "--save-selection", default, "--share", 0.5)
    assert (code, "a file of its own" in said) == (2, True), said
    for _ in range(2):
        assert command(*measured, "--out", "info.safetensors")[0] == 0
    assert command(*measured)[0] == 0
    code, _, said = command(*measured)
    assert (code, "is there already: name it to have it replaced" in said) == (2, True), said
    assert (weights.read_bytes(), picture.read_text()) == (before, "mine")
    assert Path("info-heatmap.png").is_file()


def test_all_tasks_are_read_and_places_tried_before_anything_is_measured(
    command, encoder, table, tmp_path, monkeypatch
):
    def measured(*arguments, **options):
        pytest.fail("it was measured")

    monkeypatch.setattr("trimtab.studies.measure_fisher.fisher", measured)
    missing = tmp_path / "missing.csv"
    code, _, said = command("fisher", encoder.folder, table, missing, *ODD, "--global")
    assert (code, "missing.csv" in said) == (2, True), said
    (tmp_path / "file").touch()
    code, _, said = command("fisher", encoder.folder, table, *ODD, "--out", tmp_path / "file" / "x.safetensors")
    assert (code, "cannot write" in said) == (2, True), said
