"""How a run is used: the commands and the lines of Python that its page and the end of a fit show."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path


def commands(folder: Path, text_columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what it does, the code) for using the run in `folder` from a shell and from Python, to be copied as they are."""
    # Quoted: a folder may have spaces in its name.
    run = shlex.quote(shown(folder))
    pair = " --text-pair '...'" if len(text_columns) == 2 else ""
    yield "Predict one text" if not pair else "Predict one pair of texts", f"trimtab predict {run} --text '...'{pair}"
    yield "Predict every row of a file", f"trimtab predict {run} --file new.csv --out scored.csv"
    yield "Score the run again, or on another table", f"trimtab evaluate {run}"
    yield "Use it in Python", "\n".join(python_lines(folder, text_columns))


def python_lines(folder: Path, text_columns: Sequence[str]) -> tuple[str, str, str]:
    """Three lines of Python that load the run once and predict."""
    texts = '("...", "...")' if len(text_columns) == 2 else '"..."'
    return (
        "import trimtab", f"predictor = trimtab.Predictor({shown(folder)!r})", f"trimtab.predict(predictor, [{texts}])"
    )  # fmt: skip


def use_lines(folder: Path, text_columns: Sequence[str]) -> list[str]:
    """What a fit says at its end: the commands and the Python of `commands`, without the words for a page."""
    shell = [code for _, code in commands(folder, text_columns)][:-1]
    return ["use it:", *(f"  {line}" for line in (*shell, "", *python_lines(folder, text_columns)))]


def shown(path: Path) -> str:
    """`path` as one would type it here: relative where it lies below the current folder."""
    # A path that lies elsewhere stays as it was given, and is not turned into a row of ../.
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
