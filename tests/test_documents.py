"""What the documents tell a user to type, typed: on a small encoder and a small table."""

import re
import shlex
from pathlib import Path

import pytest
from small import ANIMALS, first_animal, sentences, write_csv

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/workflow.md")
FITTING = ("fit", "compare", "recommend")


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a document in a language ("" for those without one)."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M) if kind == language]


def commands(document: str) -> list[list[str]]:
    """The arguments of every trimtab command in a document, without comments."""
    lines = "".join(blocks(document, "")).splitlines()
    found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("trimtab ")]
    assert found
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with the tables that the documents speak of."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("reviews", 3), ("held_out", 4), ("new", 5)):
        rows = [(text, ANIMALS[first_animal(text)]) for text in sentences(64, seed)]
        table = [
            {"text": t, "label": v, "Customer says": t, "Verdict": v, "body": t, "stars": v, "Id": i}
            for i, (t, v) in enumerate(rows)
        ]
        write_csv(tmp_path / f"{name}.csv", table)
    return tmp_path


@pytest.mark.parametrize(
    "document", [DOCUMENTS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in DOCUMENTS[1:])]
)
def test_every_command_does_what_it_is_there_for(document, command, encoder, workplace):
    for arguments in commands(document):
        typed = [str(encoder.folder) if word == "minilm" else word for word in arguments]
        if typed[0] in FITTING:
            typed += ["--epochs", "1"]
        if typed[0] == "fit" and "--overwrite" not in typed:
            typed += ["--overwrite"]  # several documents' runs may have one name
        code, printed, err = command(*typed)
        assert code == 0, f"trimtab {' '.join(arguments)}: {err}"
        # What a command is told to write is there, and what it is to say is said.
        for option in ("--out", "--report", "--save-selection"):
            if option in typed:
                assert (workplace / typed[typed.index(option) + 1]).exists(), arguments
        if typed[0] in ("inspect", "predict", "evaluate", "compare", "recommend", "movement", "fisher"):
            assert printed or "--file" in typed, arguments
        if typed[0] == "fit":
            assert "the delta takes" in err
        if typed[0] == "recommend":
            assert (workplace / "runs/reviews-recommend/recommended.toml").is_file()


def test_the_python_of_the_readme_runs(encoder, workplace):
    (code,) = blocks("README.md", "python")
    shorter = (
        code.replace('"minilm"', repr(str(encoder.folder)))
        .replace("epochs=3", "epochs=1")
        .replace("seeds=3", "seeds=1")
    )
    exec(compile(shorter, "README.md", "exec"), {})
    assert (workplace / "methods.html").is_file()
