"""trimtab curve as a user meets it."""

import json

from commands.animals import ODD


def test_curve(command, encoder, table, tmp_path):
    out = tmp_path / "cells"
    options = ["--method", "head", "--draws", 1, "--epochs", 1, "--out", out, *ODD]
    code, printed, said = command("curve", encoder.folder, table, *options, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert [each["method"] for each in found["curves"]] == ["majority", "tf-idf", "frozen vectors", "head"]
    assert found["curves"][-1]["sizes"][0]["n"] == 8
    assert (out / "curve.html").read_text().startswith("<!")
    assert "rows, seed 0" in said
    code, printed, said = command("curve", encoder.folder, table, *options, "--report", tmp_path / "table.md")
    assert code == 0, said
    assert "| rows a class | 8 |" in printed
    assert "head: now " in printed
    assert "->" not in said  # nothing was computed again


def test_what_is_wrong_is_said_before_anything_is_read(command, encoder, tmp_path):
    code, _, said = command("curve", encoder.folder, "nothing.csv", "--draws", 0, "--out", tmp_path / "cells")
    assert (code, "--draws 0" in said) == (2, True)
    code, _, said = command("curve", encoder.folder, "nothing.csv", "--method", "lra")
    assert (code, "did you mean lora?" in said) == (2, True)


def test_a_curve_of_nothing_is_an_error(command, encoder, table, tmp_path):
    places = [encoder.folder, table, *ODD, "--out", tmp_path / "cells"]
    code, out, said = command("curve", *places, "--method", "last_layers:k=9", "--draws", 1, "--epochs", 1)
    assert (code, out) == (2, ""), said
    assert "no method could be used, so there is no curve: last_layers:k=9" in said
