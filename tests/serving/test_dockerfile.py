"""The Dockerfile, which is not built here: what it starts is what there is."""

import json
import re
from pathlib import Path

from trimtab.serving.gate import route_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def words(instruction: str) -> list[str]:
    """What the last of these instructions has as a list."""
    return json.loads(re.findall(rf"^\s*{instruction} (\[.*\])$", TEXT, re.M)[-1])


def test_it_starts_a_server_that_somebody_else_than_root_runs(command, tmp_path: Path) -> None:
    program, *arguments = words("ENTRYPOINT") + words("CMD")
    assert program == "trimtab"
    # Up to what is mounted all is understood.
    named = {"/encoder": str(tmp_path / "encoder"), "/runs": str(tmp_path)}
    code, _, err = command(*(named.get(word, word) for word in arguments))
    assert code == 2
    assert "no encoder folder" in " ".join(err.split()), err
    assert set(words("VOLUME")) == {*named}
    assert re.findall(r"^USER (\d+)$", TEXT, re.M) == ["10001"]
    last_install = max(at.start() for at in re.finditer("^RUN", TEXT, re.M))
    assert TEXT.index("\nUSER") > last_install
    assert "TOKEN=" not in TEXT


def test_it_asks_for_health_where_there_is_an_answer() -> None:
    program, _, code = json.loads(re.findall(r"HEALTHCHECK[^\[]*CMD (\[.*\])$", TEXT, re.M | re.S)[0].splitlines()[0])
    assert program == "python"
    compile(code, "healthcheck", "exec")
    path = re.findall(r"127\.0\.0\.1:8000(/[\w/]+)", code)[0]
    assert route_of(path) == path == "/healthz/live"


def test_what_it_copies_is_there_and_is_sent() -> None:
    copied = [word.strip("./") for line in re.findall(r"^COPY (.*)$", TEXT, re.M) for word in line.split()[:-1]]
    assert copied
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name in sent
