"""A file answered row by row: nothing of it is lost, and what cannot be answered is left empty."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.errors import InputError
from trimtab.files import replacing
from trimtab.tasks.answers import Answer
from trimtab.tasks.batches import Truncation
from trimtab.tasks.task import Rows, Task
from trimtab.training.predict_file import predict_file

LIMIT = 100  # letters that an Echo reads


class Echo:
    """In place of a Predictor: answers "b" to the texts that hold a b, and remembers what it was asked."""

    def __init__(self, *text_columns: str, kind: str = "single_label"):
        self.task = Task("echo", kind, ("a", "b"), text_columns, "label", "accuracy")
        self.asked: list[str] = []

    def answered(self, rows: Rows) -> tuple[list[Answer], Truncation]:
        assert len(rows), "no model takes an empty batch"
        self.asked += map(" ".join, zip(*rows.texts, strict=True))
        lengths = [len(text) for text in rows.texts[0]]
        cut = Truncation(
            len(rows), sum(n > LIMIT for n in lengths), sum(lengths), sum(max(0, n - LIMIT) for n in lengths)
        )
        if self.task.kind == "regression":
            return [Answer(value=float(n)) for n in lengths], cut
        return [Answer("b" if "b" in text else "a", {"a": 0.25, "b": 0.75}) for text in rows.texts[0]], cut


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.fixture
def late_field(tmp_path: Path) -> Path:
    """JSON Lines with a field that only the last of 151 rows has."""
    path = tmp_path / "late.jsonl"
    path.write_text('{"text": "x"}\n' * 150 + '{"text": "b", "note": "n"}\n')
    return path


def test_a_field_of_a_late_line_is_a_column(late_field: Path, tmp_path: Path) -> None:
    assert predict_file(Echo("text"), late_field, tmp_path / "out.csv") == (151, 0, 0)
    rows = rows_of(tmp_path / "out.csv")
    assert rows[0] == {
        "text": "x",
        "note": "",
        "predicted_label": "a",
        "probability_a": "0.25",
        "probability_b": "0.75",
    }
    assert (rows[150]["note"], rows[150]["predicted_label"]) == ("n", "b")


def test_a_late_field_is_not_overwritten(late_field: Path, tmp_path: Path) -> None:
    late_field.write_text(late_field.read_text().replace("note", "predicted_label"))
    with pytest.raises(InputError, match="already has the column 'predicted_label'"):
        predict_file(Echo("text"), late_field, tmp_path / "out.jsonl")


def test_usual_columns_are_found_where_those_of_the_task_are_missing(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,b\n")
    echo = Echo("What they said")
    assert predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv") == (1, 0, 0)
    assert echo.asked == ["b"]


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("body\nb\n", None, r"no column 'said'; it has 'body'.*Name the text column \(--columns\)"),
        ("body\nb\n", "bdy", r"no column 'bdy'.*Did you mean 'body'.*\(--columns\)"),
        ("body,more\nb,c\n", "body,more", r"the run takes 1 text\(s\) per row, not 2.*\(--columns\)"),
    ],
)
def test_messages_name_the_option_that_chooses_columns(
    tmp_path: Path, content: str, columns: str | None, words: str
) -> None:
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        predict_file(Echo("said"), tmp_path / "new.csv", tmp_path / "out.csv", columns)
    assert "--text" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_lone_carriage_return_stays_in_its_cell(tmp_path: Path, ending: str) -> None:
    texts = ["one\rtwo", "plain", "three\r\nfour", "ends\r"]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    to = tmp_path / f"out.{ending}"
    predict_file(Echo("text"), tmp_path / "new.jsonl", to)
    assert [row["text"] for row in rows_of(to)] == texts
    mark = "\t" if ending == "tsv" else ","
    assert to.read_bytes().startswith(
        mark.join(["text", "predicted_label", "probability_a", "probability_b\n"]).encode()
    )
    assert f"\nplain{mark}a{mark}0.25{mark}0.75\n".encode() in to.read_bytes()


@pytest.mark.parametrize("kind", ["single_label", "regression"])
@pytest.mark.parametrize(("ending", "empty"), [("csv", ""), ("tsv", ""), ("jsonl", None)])
def test_rows_without_a_text_have_no_answer(tmp_path: Path, kind: str, ending: str, empty: str | None) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,b\n2,\n3,  \n4,x\n")
    echo, to = Echo("text", kind=kind), tmp_path / f"out.{ending}"
    assert predict_file(echo, tmp_path / "new.csv", to) == (4, 2, 0)
    assert echo.asked == ["b", "x"]
    added = [list(row.values())[2:] for row in rows_of(to)]
    assert added[1] == added[2] == [empty] * len(added[0])
    assert "" not in added[0] + added[3]
    assert None not in added[0] + added[3]


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["x", "b"], "weight": [float("nan"), 1.5]}), tmp_path / "rows.parquet")
    predict_file(Echo("text"), tmp_path / "rows.parquet", tmp_path / "out.jsonl")
    assert "NaN" not in (tmp_path / "out.jsonl").read_text()
    assert [row["weight"] for row in rows_of(tmp_path / "out.jsonl")] == [None, 1.5]


def test_what_is_no_number_is_null_however_deep(tmp_path: Path) -> None:
    table = pa.table({"text": ["b"], "deep": [[1.0, float("nan")]], "inner": [{"x": float("inf")}]})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_file(Echo("text"), tmp_path / "in.parquet", tmp_path / "out.jsonl")  # pyright: ignore[reportArgumentType]
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert (row["deep"], row["inner"]) == ([1.0, None], {"x": None})


def test_a_compressed_file_names_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nb\n")
    predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / "out.csv.gz")  # pyright: ignore[reportArgumentType]
    written = (tmp_path / "out.csv.gz").read_bytes()
    assert written[3] == 8  # FNAME is there, and follows the ten bytes of the header (RFC 1952)
    assert written[10:].split(b"\0")[0] == b"out.csv"
    assert gzip.decompress(written).decode().splitlines()[0].startswith("text,predicted_label")


@pytest.mark.parametrize(
    ("there", "replaced"),
    [
        ("text,predicted_label,probability_a,probability_b\nold,a,1,0\n", True),
        ("", True),
        ("text,label\nmine,a\n", False),
    ],
)
def test_only_earlier_answers_are_replaced(tmp_path: Path, there: str, replaced: bool) -> None:
    (tmp_path / "in.csv").write_text("text\nb\n")
    (tmp_path / "out.csv").write_text(there)
    if replaced:
        assert predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / "out.csv") == (1, 0, 0)  # pyright: ignore[reportArgumentType]
        assert rows_of(tmp_path / "out.csv")[0]["text"] == "b"
        return
    with pytest.raises(InputError, match="holds something else than answers, which would be lost"):
        predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / "out.csv")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "out.csv").read_text() == there


def test_a_pair_needs_both_texts_and_a_file_may_have_none(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text_a,text_b\nx,\n,y\n")
    echo = Echo("text_a", "text_b")
    assert predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv") == (2, 2, 0)
    assert echo.asked == []


@pytest.mark.parametrize("same", [lambda path: path, lambda path: path.parent / ".." / path.parent.name / path.name])
def test_a_file_is_not_answered_into_itself(tmp_path: Path, same: Callable[[Path], Path]) -> None:
    (tmp_path / "new.csv").write_text("text\nb\n")
    with pytest.raises(InputError, match=r"is the file to be answered.*--out"):
        predict_file(Echo("text"), tmp_path / "new.csv", same(tmp_path / "new.csv"))
    assert (tmp_path / "new.csv").read_text() == "text\nb\n"


def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\nb\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.csv")
    with pytest.raises(InputError, match="is the file to be answered"):
        predict_file(Echo("text"), tmp_path / "new.csv", tmp_path / "link.csv")


def test_a_folder_is_not_answered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, and a file is needed here"):
        predict_file(Echo("text"), tmp_path, tmp_path / "out.csv")


@pytest.mark.parametrize("name", [".", "..", "x/..", "folder"])
def test_an_output_that_is_a_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder. Name a file in it"), replacing(Path(name)):
        pytest.fail("the work has begun")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_rows_that_are_read_in_part_are_counted(tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text("".join(f'{{"text": "{"x" * n}"}}\n' for n in (LIMIT, LIMIT + 1, 3, 2 * LIMIT)))
    assert predict_file(Echo("text"), tmp_path / "new.jsonl", tmp_path / "out.csv") == (4, 0, 2)  # pyright: ignore[reportArgumentType]
