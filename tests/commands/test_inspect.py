"""trimtab inspect as a user meets it."""

import json
import sys

import pytest


def test_inspect(command, encoder):
    code, out, _ = command("inspect", encoder.folder, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["methods"]["layer_norms"]["body"] == 2 * 32 * 7
    _, out, _ = command("inspect", encoder.folder)
    assert "layer_norms" in out


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_inspect_cuts_nothing_in_a_narrow_window(command, encoder, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = command("inspect", encoder.folder)
    grid, _, _ = out.partition("What each")
    blocks = grid.count("after")
    assert "…" not in grid
    assert all(len(line) <= width for line in grid.splitlines())
    # Every block names the layers, and together they hold what one wide table holds.
    assert [line.split()[0] for line in grid.splitlines() if line[:1].isdigit()] == [*"012"] * blocks
    assert blocks == 1 or width < 80
    assert grid.split().count("pooler") == 1


def test_inspect_says_what_is_missing_word_for_word(command, encoder, monkeypatch):
    """What stands in brackets is not taken for markup, nor cut at the edge of the table."""
    monkeypatch.setitem(sys.modules, "peft", None)
    _, out, _ = command("inspect", encoder.folder)
    assert "pip install 'trimtab[lora]'" in " ".join(out.split())
