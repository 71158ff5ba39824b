"""How tables are read, from the command line on, and what is said of those that cannot be."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import ANIMALS, first_animal, sentences, write_csv

from commands.animals import FIT, bad_rows
from trimtab.results.recipe import Recipe


def test_how_a_table_is_read_goes_from_the_command_line_through_the_run(command, encoder, tmp_path, monkeypatch):
    """Latin-1 without a header, with marks for no label and ragged rows: fitted, repeated from elsewhere, scored."""
    rows = [f"{ANIMALS[first_animal(text)]};{text} caf\u00e9" for text in sentences(60, 3)]
    odd = ["?;no label", "cat;one;too many", "cat; "]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.csv").write_bytes("\n".join([*rows[:40], *odd]).encode("latin-1"))
    (tmp_path / "here" / "b.csv").write_bytes("\n".join([*rows[40:], odd[0]]).encode("latin-1"))
    monkeypatch.chdir(tmp_path / "here")
    reading = ["--encoding", "latin-1", "--no-header", "--missing-label", "?", "--skip-bad-rows"]
    code, _, err = command(
        "fit", encoder.folder, "a.csv", "--text", "column_2", "--label", "column_1", *reading, "--validation", "b.csv",
        "--method", "head", "--epochs", 1, "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "left out 3 of 43 rows" in err
    run = tmp_path / "here" / "run"
    recipe = Recipe.load(run / "recipe.toml")
    assert (recipe.encoding, recipe.header, recipe.missing_label) == ("latin-1", False, ("?",))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    code, out, err = command("evaluate", run, "--json")  # its own data, found by its recipe
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 20
    code, _, err = command("fit", run / "recipe.toml", "--out", "again")
    assert code == 0, err
    before, after = load_file(run / "delta.safetensors"), load_file(Path("again/delta.safetensors"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    code, out, err = command(
        "evaluate", run, tmp_path / "here" / "b.csv", "--encoding", "latin-1", "--no-header", "--json"
    )
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 20, "the run's mark for no label holds here too"
    code, _, err = command("evaluate", run, tmp_path / "here" / "b.csv", "--no-header")
    assert (code, "--encoding" in err) == (2, True)


@pytest.mark.parametrize("verb", ["fisher", "compare"])
def test_studies_read_tables_as_fits_do(command, encoder, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    rows = [f"{first_animal(text)}|{text} caf\u00e9" for text in sentences(40, 3)]
    (tmp_path / "a.csv").write_bytes("\n".join([*rows, "-100|no label"]).encode("utf-16"))
    options = {
        "fisher": ["--examples", 8, "--out", "info.safetensors"],
        "compare": ["--method", "head", "--method", "layer_norms", "--seeds", 1, "--epochs", 1, "--out", "cells"],
    }[verb]
    reading = [
        "--no-header",
        "--text",
        "column_2",
        "--label",
        "column_1",
        "--missing-label",
        "-100",
        "--validation",
        "0.2",
    ]
    code, _, err = command(verb, encoder.folder, "a.csv", *reading, *options)
    assert code == 0, err
    assert "left out 1 of 41 rows (1 with the label '-100', which stands for none)" in err
    assert "8 of 40 training rows held out" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.update(Verdict="cat") for row in rows], "every row has the label"),
        (lambda rows: rows[4].update(Verdict=""), "6"),
        (lambda rows: rows[7].update({"What they said": "  "}), "9"),
        (lambda rows: [row.update(Verdict=i + 0.5) for i, row in enumerate(rows)], "regression"),
    ],
    ids=["one class", "missing label", "empty text", "float labels"],
)
def test_bad_tables(change, message, command, encoder, tmp_path):
    table = write_csv(tmp_path / "bad.csv", bad_rows(change))
    code, _, err = command("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out")
    assert code == 2
    assert "bad.csv" in err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_rows_that_were_left_out_stay_left_out(command, encoder, tmp_path):
    """The recipe and the run remember, so that repeating and evaluating work."""
    table = write_csv(tmp_path / "gaps.csv", bad_rows(lambda rows: rows[4].update(Verdict="")))
    fit = ("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out", "--epochs", 1, "--skip-bad-rows")
    code, _, err = command(*fit)
    assert code == 0, err
    assert "left out 1 of 40 rows" in err
    assert command("evaluate", tmp_path / "out")[0] == 0
    assert command("fit", tmp_path / "out" / "recipe.toml", "--out", tmp_path / "again")[0] == 0


def test_wrong_encoding_and_truncated_gzip(command, encoder, tmp_path):
    latin = tmp_path / "latin.csv"
    latin.write_bytes("text,label\ncaf\xe9,a\nthe,b\n".encode("latin-1"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"text": "a cat", "label": 1}\n' * 500)[:-20])
    for path, message in ((latin, "UTF-8"), (cut, "cut.jsonl.gz")):
        code, _, err = command("fit", encoder.folder, path, "--out", tmp_path / "out")
        assert (code, message in err) == (2, True), err
        assert not (tmp_path / "out").exists()


def test_a_hundred_megabytes_on_one_line(command, encoder, tmp_path):
    path = tmp_path / "one-line.jsonl"
    path.write_bytes(b'{"text": "' + b"cat " * 25_000_000 + b'", "label": 0}\n')
    code, _, err = command("fit", encoder.folder, path, "--out", tmp_path / "out")
    assert code == 2
    assert "one-line.jsonl" in err
    assert len(err) < 1000
