"""trimtab predict with the URL of a served task: what a local run says, without torch."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from live import LIMIT, LiveServer
from small import sentences, write_csv

from trimtab.engine import prepare
from trimtab.errors import InputError
from trimtab.inference import predict_file as predict_file_module
from trimtab.inference import predictor as predictor_module
from trimtab.inference.predict_file import predict_file
from trimtab.inference.predictor import Predictor
from trimtab.serving.client import Client
from trimtab.serving.remote_predictor import RemotePredictor

TOKEN = "0123456789abcdef"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def url(run_folder: Path) -> Iterator[str]:
    """Of the run as a task."""
    encoder = Predictor(run_folder).encoder.folder
    with LiveServer(encoder, f"reviews={run_folder}", "--compute", "float32", TRIMTAB_TOKEN=TOKEN) as server:
        yield f"{server.url}/reviews"


@pytest.fixture(autouse=True)
def as_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token, and its arithmetic, whatever this CPU is best at."""
    monkeypatch.setenv("TRIMTAB_TOKEN", TOKEN)
    monkeypatch.setattr(predictor_module, "prepare", lambda model: prepare(model, "float32"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of which some have no text, one has half a character, and one is longer than the run reads."""
    texts = [*sentences(60, 5), "", " \u200b ", "the old cat " * 200]
    lines = [json.dumps({"Id": i, "What they said": text}) for i, text in enumerate(texts)]
    lines.insert(5, '{"What they said": \n'.strip())
    lines.insert(9, '{"Id": 1, "What they said": "a \\ud800 cat"}')
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row, with its probabilities as numbers."""
    return {
        name: float(cell) if name.startswith("probability_") and cell not in ("", None) else cell
        for name, cell in row.items()
    }


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row, as far as neighbours in a batch let it be the same."""
    return {
        name: pytest.approx(cell, abs=2e-5) if isinstance(cell, float) else cell for name, cell in numbers(row).items()
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_has_the_predictions_of_a_local_run(
    command: Command, run_folder: Path, url: str, table: Path, tmp_path: Path, ending: str
) -> None:
    local, remote = tmp_path / f"local.{ending}", tmp_path / f"remote.{ending}"
    code, out, err = command("predict", run_folder, "--file", table, "--out", local, "--json")
    assert code == 0, err
    code, remote_out, remote_err = command("predict", url, "--file", table, "--out", remote, "--json")
    assert code == 0, remote_err
    expected, found = rows_of(local), rows_of(remote)
    assert [[*row] for row in found] == [[*row] for row in expected]
    assert [numbers(row) for row in found] == [rounded(row) for row in expected]
    assert remote_err.strip().splitlines()[-1] == err.strip().splitlines()[-1].replace(str(local), str(remote))
    told, remote_told = json.loads(out.splitlines()[-1]), json.loads(remote_out.splitlines()[-1])
    same = ("rows", "unanswered", "cut")
    assert [remote_told[name] for name in same] == [told[name] for name in same]
    assert told["unanswered"] >= 3
    assert told["cut"] == 1
    assert (remote_told["tokens"], remote_told["unknown"]) == (None, None), "the server does not tell"


def test_texts_have_the_predictions_of_a_local_run(command: Command, run_folder: Path, url: str) -> None:
    asked = ("--text", "the old cat", "--text", "a fish", "--json")
    _, local, _ = command("predict", run_folder, *asked)
    code, remote, err = command("predict", url, *asked)
    assert code == 0, err
    expected, found = (json.loads(out.splitlines()[-1])["answers"] for out in (local, remote))
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    assert [each["probabilities"] for each in found] == [
        pytest.approx(each["probabilities"], abs=1e-5) for each in expected
    ]
    assert [[*each] for each in found] == [[*each] for each in expected]
    for texts, told in (
        ([" "], "text 1 is empty"),
        (["a cat", "x " * 60_000], "text 2 has no prediction: the text has 120,000"),
    ):
        code, _, err = command("predict", url, *(word for text in texts for word in ("--text", text)))
        assert code == 2
        assert told in " ".join(err.split())
    code, _, err = command("predict", url, "--text", "a cat", "--text-pair", "a fish")
    assert code == 2
    assert "text 1 has 2 part(s); task 'reviews' takes 1" in err


def test_a_text_that_a_server_does_not_read_is_told_in_its_row(command: Command, url: str, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "new.csv", [{"What they said": "a cat"}, {"What they said": "cat " * 30_000}])
    code, _, err = command("predict", url, "--file", source, "--out", tmp_path / "o.jsonl")
    assert code == 0, err
    good, long = rows_of(tmp_path / "o.jsonl")
    assert good["not_predicted"] is None
    assert long["predicted_label"] is None
    assert long["not_predicted"].startswith("the text has 120,000 characters, and at most 100,000 are read")
    assert "1 of them without a prediction" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("URLL", "--text", "a cat"), "has no task 'reviewsl' (did you mean reviews?); it has reviews"),
        (("BASE", "--text", "a cat"), "names no task: put its name behind, /NAME; it has reviews"),
        (("BASE/", "--text", "a cat"), "names no task"),
        (("http://127.0.0.1:1/reviews", "--text", "a cat"), "nothing answers at http://127.0.0.1:1"),
        (("http://me:secret@127.0.0.1:1/reviews", "--text", "a cat"), "no name and password in it"),
        (("BASE/docs/reviews", "--text", "a cat"), "/docs is no server of trimtab"),
        (("URL", "--text", "a cat", "--encoder", "minilm"), "--encoder goes with the folder of a run"),
        (("URL", "--file", "none.csv", "--out", "o.csv"), "file not found"),
        (("URL", "--file", "TABLE", "--out", "o.txt"), "its name must end in"),
        (("URL", "--file", "TABLE", "--out", "o.csv", "--columns", "Ido"), "(did you mean 'Id'?)"),
        (("URL", "--file", "TABLE", "--out", "TABLE"), "is the file to be predicted"),
        (("URL", "--text", "a cat", "--out", "o.csv"), "go with --file"),
    ],
)
def test_what_is_wrong_is_told(
    command: Command, url: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    base = url.rpartition("/")[0]
    named = {"URLL": f"{url}l", "URL": url, "TABLE": table}
    code, _, err = command("predict", *(named.get(word, word.replace("BASE", base)) for word in arguments))
    said = " ".join(err.split())
    assert code == 2
    assert told in said
    assert "secret" not in said
    assert [each.name for each in tmp_path.iterdir()] == [table.name]


def test_a_wrong_token_is_told_and_not_shown(command: Command, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_TOKEN", "fedcba9876543210")
    code, _, err = command("predict", url, "--text", "a cat")
    assert code == 2
    assert "does not take this token" in " ".join(err.split())
    assert "fedcba" not in err


def test_a_task_that_is_replaced_meanwhile_is_told_and_leaves_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "new.csv", [{"What they said": text} for text in sentences(6, 5)])
    ask, asked = Client.predict, []

    def replaced(self: Client, items: Any) -> Any:
        asked.append(len(items))
        found = ask(self, items)
        return found if len(asked) == 1 else [replace(each, version="0123456789ab") for each in found]

    monkeypatch.setattr(Client, "predict", replaced)
    monkeypatch.setattr(predict_file_module, "CHUNK_ROWS", 2)
    with (
        RemotePredictor(url) as predictor,
        pytest.raises(InputError, match="was replaced on the server meanwhile .* by 0123456789ab"),
    ):
        predict_file(predictor, source, tmp_path / "o.csv")
    assert asked == [2, 2]
    assert [each.name for each in tmp_path.iterdir()] == ["new.csv"]


def test_torch_is_not_imported(url: str, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "new.csv", [{"What they said": text} for text in sentences(6, 5)])
    code = (
        "import sys\nfrom trimtab.cli import main\nsys.argv[:1] = ['trimtab', 'predict']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    arguments = [url, "--file", source, "--out", tmp_path / "o.csv"]
    out = subprocess.check_output([sys.executable, "-c", code, *map(str, arguments)], text=True, timeout=LIMIT)
    assert out.splitlines()[-1] == "[]"
    assert len(rows_of(tmp_path / "o.csv")) == 6
