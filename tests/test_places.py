"""Where the command line reads and writes: tried before hours of work, refused in one line, and nobody's file is lost."""

import json
from pathlib import Path

import pytest
from small import ANIMALS, first_animal, sentences, write_csv

LONG = "y" * 300


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(tmp_path) -> Path:
    rows = [{"text": text, "label": ANIMALS[first_animal(text)]} for text in sentences(60, 3)]
    return write_csv(tmp_path / "animals.csv", rows)


@pytest.fixture
def run(command, encoder, table, tmp_path) -> Path:
    folder = tmp_path / "run"
    code, _, said = command("fit", encoder.folder, table, "--method", "head", "--epochs", 1, "--out", folder)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("compare", "--out", "BLOCKED/cells"), "--out"),
        (("compare", "--out", "cells", "--report", "BLOCKED/page.html"), "--report"),
        (("recommend", "--budget", "200", "--out", "BLOCKED/trials"), "--out"),
        (("fisher", "--out", "BLOCKED/info.safetensors"), "--out"),
        (("fisher", "--out", "i.safetensors", "--share", 0.5, "--save-selection", "BLOCKED/s.safetensors"), "--save-"),
    ],
)
def test_places_are_tried_before_anything_is_computed(
    arguments, option, command, encoder, table, tmp_path, monkeypatch
):
    def computed(*others, **options):
        pytest.fail("it was computed")

    for name in ("studies.cell_spec.fit", "studies.measure_fisher.fisher", "studies.recommend.fisher"):
        monkeypatch.setattr(f"trimtab.{name}", computed)
    Path("BLOCKED").write_text("mine")
    verb, *options = arguments
    code, _, said = command(verb, encoder.folder, table, *options)
    assert (code, "cannot write BLOCKED" in said, option in said) == (2, True, True), said
    assert Path("BLOCKED").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "RUN", "--file", f"{LONG}.csv", "--out", "o.csv"),
        ("predict", "RUN", "--file", "TABLE", "--out", f"{LONG}.csv"),
        ("fisher", "ENCODER", "TABLE", "--examples", 4, "--out", f"{LONG}.safetensors"),
        ("report", LONG), ("inspect", LONG), ("evaluate", "RUN", f"{LONG}.csv"), ("movement", LONG),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_name_that_no_file_can_have_ends_in_one_line(arguments, command, encoder, table, run):
    names = {"RUN": run, "TABLE": table, "ENCODER": encoder.folder}
    code, _, said = command(*(names.get(each, each) for each in arguments))
    assert code == 2, said
    assert "File name too long" in said


def test_a_task_whose_name_is_long_has_a_place_of_its_own(command, encoder, table, tmp_path):
    long = table.rename(tmp_path / f"{'z' * 240}.csv")
    code, printed, said = command("fisher", encoder.folder, long, "--examples", 4, "--json")
    assert code == 0, said
    assert Path(json.loads(printed.splitlines()[-1])["out"]).is_file()


def test_fisher_leaves_a_picture_alone_that_is_not_its_own(command, encoder, table, tmp_path):
    picture = tmp_path / "info-heatmap.png"
    picture.write_text("mine")
    code, _, said = command("fisher", encoder.folder, table, "--examples", 4, "--out", tmp_path / "info.safetensors")
    assert (code, f"{picture} is there already" in said) == (2, True), said
    assert picture.read_text() == "mine"
    assert not (tmp_path / "info.safetensors").exists()


def test_a_run_finds_data_again_that_was_named_with_a_tilde(command, encoder, table, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, said = command("fit", encoder.folder, "~/animals.csv", "--method", "head", "--epochs", 1, "--out", "~r")
    assert code == 0, said
    code, _, said = command("evaluate", "~r")
    assert code == 0, said


@pytest.mark.parametrize(("verb", "options"), [("compare", []), ("recommend", ["--budget", "200"])])
def test_a_misspelt_encoder_leaves_no_folder(verb, options, command, table, tmp_path):
    code, _, said = command(verb, tmp_path / "no encoder", table, *options, "--out", tmp_path / "cells")
    assert code == 2, said
    assert not (tmp_path / "cells").exists()
