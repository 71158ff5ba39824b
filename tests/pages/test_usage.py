"""The commands and the Python that use a run are right as they stand."""

import shlex
from pathlib import Path

import pytest

from trimtab.pages.run_page import commands, python_lines, use_lines


def test_a_folder_with_spaces_is_quoted_and_two_texts_are_a_pair():
    place = Path("/tmp/my runs/it's")
    for purpose, code in commands(place, ("question", "answer")):
        if "Python" not in purpose:
            assert str(place) in shlex.split(code)
    assert shlex.split(next(code for _, code in commands(place, ("question", "answer"))))[3:] == [
        "--text", "...", "--text-pair", "..."
    ]  # fmt: skip
    assert "--text-pair" not in "".join(code for _, code in commands(place, ("text",)))


@pytest.mark.parametrize("columns", [("text",), ("question", "answer")])
def test_the_python_is_python_and_names_the_run(columns: tuple[str, ...]):
    lines = python_lines(Path("/tmp/a 'run'"), columns)
    assert len(lines) == 3
    compile("\n".join(lines), "lines", "exec")
    assert repr("/tmp/a 'run'") in lines[1]
    assert all(f"  {line}" in use_lines(Path("/tmp/a 'run'"), columns) for line in lines)


def test_a_run_below_the_current_folder_is_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "trimtab evaluate runs/x" in [code for _, code in commands(tmp_path / "runs" / "x", ("text",))]
