"""A file predicted row by row: nothing of it is lost, and what cannot be predicted is left empty."""

import csv
import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.encoders.unknown_tokens import Unknown
from trimtab.errors import InputError
from trimtab.files import replacing
from trimtab.inference.predict_file import predict_file
from trimtab.inference.row_predictor import Predicted
from trimtab.tasks.predictions import Prediction
from trimtab.tasks.reading import Reading
from trimtab.tasks.task import Rows, Task

LIMIT = 100  # letters that an Echo reads
ALL_KNOWN = Unknown(0, 0, 0, 0)


class Echo:
    """In place of a Predictor: predicts "b" for the texts that hold a b, and remembers what it was asked."""

    def __init__(self, *text_columns: str, kind: str = "single_label"):
        self.task = Task("echo", kind, ("a", "b"), text_columns, "label", "accuracy")
        self.max_length = LIMIT
        self.asked: list[str] = []

    def predicted(self, rows: Rows) -> Predicted:
        assert len(rows), "no model takes an empty batch"
        self.asked += map(" ".join, zip(*rows.texts, strict=True))
        lengths = [len(text) for text in rows.texts[0]]
        cut = sum(n > LIMIT for n in lengths)
        if self.task.kind == "regression":
            return Predicted([Prediction(value=float(n)) for n in lengths], cut, ALL_KNOWN, {})
        found = [Prediction("b" if "b" in text else "a", {"a": 0.25, "b": 0.75}) for text in rows.texts[0]]
        return Predicted(found, cut, ALL_KNOWN, {})


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
    assert predict_file(Echo("text"), late_field, tmp_path / "out.csv")[:3] == (151, 0, 0)
    rows = rows_of(tmp_path / "out.csv")
    assert rows[0] == {
        "text": "x",
        "note": "",
        "predicted_label": "a",
        "probability_a": "0.25",
        "probability_b": "0.75",
        "not_predicted": "",
    }
    assert (rows[150]["note"], rows[150]["predicted_label"]) == ("n", "b")


def test_a_late_field_is_not_overwritten(late_field: Path, tmp_path: Path) -> None:
    late_field.write_text(late_field.read_text().replace("note", "predicted_label"))
    with pytest.raises(InputError, match="already has the column 'predicted_label'"):
        predict_file(Echo("text"), late_field, tmp_path / "out.jsonl")


def test_usual_columns_are_found_where_those_of_the_task_are_missing(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,b\n")
    echo = Echo("What they said")
    assert predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv")[:3] == (1, 0, 0)
    assert echo.asked == ["b"]


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("body\nb\n", None, r"no column 'said'; it has 'body'.*Name the text column \(--columns\)"),
        ("body\nb\n", "bdy", r"no column 'bdy'.*did you mean 'body'.*\(--columns\)"),
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
        mark.join(["text", "predicted_label", "probability_a", "probability_b", "not_predicted\n"]).encode()
    )
    assert f"\nplain{mark}a{mark}0.25{mark}0.75{mark}\n".encode() in to.read_bytes()


@pytest.mark.parametrize("kind", ["single_label", "regression"])
@pytest.mark.parametrize(("ending", "empty"), [("csv", ""), ("tsv", ""), ("jsonl", None)])
def test_rows_without_a_text_have_no_answer(tmp_path: Path, kind: str, ending: str, empty: str | None) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,b\n2,\n3,  \n4,x\n")
    echo, to = Echo("text", kind=kind), tmp_path / f"out.{ending}"
    assert predict_file(echo, tmp_path / "new.csv", to)[:3] == (4, 2, 0)
    assert echo.asked == ["b", "x"]
    added = [list(row.values())[2:] for row in rows_of(to)]
    assert added[1] == added[2] == [*[empty] * (len(added[0]) - 1), "empty text"]
    assert [cells[-1] for cells in (added[0], added[3])] == [empty, empty]
    assert not {"", None} & {*added[0][:-1], *added[3][:-1]}


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
def test_only_earlier_answers_are_replaced_and_only_on_request(tmp_path: Path, there: str, replaced: bool) -> None:
    (tmp_path / "in.csv").write_text("text\nb\n")
    (tmp_path / "out.csv").write_text(there)
    if there:
        words = (
            "is there already.*--overwrite"
            if replaced
            else "holds something else than predictions, which would be lost"
        )
        for overwrite in (False, not replaced):
            with pytest.raises(InputError, match=words):
                predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / "out.csv", overwrite=overwrite)
        assert (tmp_path / "out.csv").read_text() == there
    if replaced:
        found = predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / "out.csv", overwrite=bool(there))
        assert found[:3] == (1, 0, 0)
        assert rows_of(tmp_path / "out.csv")[0]["text"] == "b"


def test_a_pair_needs_both_texts_and_a_file_may_have_none(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text_a,text_b\nx,\n,y\n")
    echo = Echo("text_a", "text_b")
    assert predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv")[:3] == (2, 2, 0)
    assert echo.asked == []


@pytest.mark.parametrize("same", [lambda path: path, lambda path: path.parent / ".." / path.parent.name / path.name])
def test_a_file_is_not_predicted_into_itself(tmp_path: Path, same: Callable[[Path], Path]) -> None:
    (tmp_path / "new.csv").write_text("text\nb\n")
    with pytest.raises(InputError, match=r"is the file to be predicted.*--out"):
        predict_file(Echo("text"), tmp_path / "new.csv", same(tmp_path / "new.csv"))
    assert (tmp_path / "new.csv").read_text() == "text\nb\n"


def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\nb\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.csv")
    with pytest.raises(InputError, match="is the file to be predicted"):
        predict_file(Echo("text"), tmp_path / "new.csv", tmp_path / "link.csv")


def test_a_folder_is_not_predicted(tmp_path: Path) -> None:
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
    assert predict_file(Echo("text"), tmp_path / "new.jsonl", tmp_path / "out.csv")[:3] == (4, 0, 2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_row_that_is_not_of_the_tables_form_has_a_reason_and_no_answer(tmp_path: Path, ending: str) -> None:
    """A comma that is not quoted, a number in place of a text: the rows around it have their predictions all the same."""
    (tmp_path / "new.csv").write_text("text,id\nb,1\nhello, you,2\nx\n\u200b,4\nb,5\n")
    echo, to = Echo("text"), tmp_path / f"out.{ending}"
    assert predict_file(echo, tmp_path / "new.csv", to)[:3] == (5, 3, 0)
    assert echo.asked == ["b", "b"]
    rows = pq.read_table(to).to_pylist() if ending == "parquet" else rows_of(to)
    ragged = "another number of fields"
    assert [row["not_predicted"] or None for row in rows] == [None, ragged, ragged, "empty text", None]
    assert [row["predicted_label"] or None for row in rows] == ["b", None, None, None, "b"]
    assert (rows[1]["text"], rows[1]["id"]) == ("hello", " you,2"), "nothing of the row is lost"
    (tmp_path / "new.jsonl").write_text('{"text": "b"}\n{"text": 2024}\n{"text": "x\n{"text": "b"}\n')
    predict_file(echo, tmp_path / "new.jsonl", to, overwrite=True)
    rows = pq.read_table(to).to_pylist() if ending == "parquet" else rows_of(to)
    reasons = [None, "a number for a text", "no readable JSON object", None]
    assert [row["not_predicted"] or None for row in rows] == reasons


def test_a_file_that_cannot_be_read_to_its_end_is_refused_before_the_first_answer(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_bytes(b"text\n" + b"b\n" * 9000 + b"caf\xe9\n")
    echo = Echo("text")
    with pytest.raises(InputError, match=r"new.csv, line 9002: byte 0xe9.*--encoding"):
        predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv")
    assert echo.asked == []
    assert not (tmp_path / "out.csv").exists()
    found = predict_file(echo, tmp_path / "new.csv", tmp_path / "out.csv", reading=Reading(encoding="latin-1"))
    assert found[:3] == (9001, 0, 0)
    assert rows_of(tmp_path / "out.csv")[-1]["text"] == "caf\u00e9"


class Tags(Echo):
    """Answers with all classes to whatever it is asked."""

    def __init__(self):
        super().__init__("text")
        self.task = Task("tags", "multi_label", ("a|b", "c"), ("text",), "label", "f1_macro")

    def predicted(self, rows: Rows) -> Predicted:
        found = [Prediction(self.task.classes, {"a|b": 0.9, "c": 0.8}) for _ in rows.texts[0]]
        return Predicted(found, 0, ALL_KNOWN, {})


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_several_classes_are_a_list_in_a_column_of_their_own(tmp_path: Path, ending: str) -> None:
    (tmp_path / "in.csv").write_text("text\nb\n\u200b\n")
    to = tmp_path / f"out.{ending}"
    predict_file(Tags(), tmp_path / "in.csv", to)
    found = [row["predicted_labels"] for row in (pq.read_table(to).to_pylist() if ending == "parquet" else rows_of(to))]
    if ending in ("csv", "tsv"):
        assert found[1] == ""
        found = [json.loads(found[0]), None]
    assert found == [["a|b", "c"], None], "a name that holds a bar stays whole"


def test_parquet_keeps_the_types_of_its_columns(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    when = datetime(2024, 5, 1, 12, 30)
    table = pa.table(
        {
            "text": ["b", "x"],
            "label": [1, 0],
            "when": [when, None],
            "tags": [["u"], []],
            "n": pa.array([1, 2], pa.int16()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_file(Echo("text"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(["text", "when", "tags", "n"]).equals(table.select(["text", "when", "tags", "n"]))
    assert found["label"].to_pylist() == ["yes", "no"]
    assert found["probability_b"].to_pylist() == [0.75, 0.75]


def test_json_columns_of_one_type_keep_it_in_parquet_and_mixed_ones_are_text(tmp_path: Path) -> None:
    rows = [
        {"text": "b", "n": 1, "x": 1, "odd": 1, "deep": {"a": [1]}},
        {"text": "x", "n": None, "x": 0.5, "odd": "one"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict_file(Echo("text"), tmp_path / "in.jsonl", tmp_path / "out.parquet")
    columns = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert [columns[name] for name in ("n", "x", "odd", "deep")] == [
        [1, None], [1.0, 0.5], ["1", "one"], ['{"a": [1]}', None],
    ]  # fmt: skip


def test_lists_are_written_into_cells_as_json(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["b"], "tags": [["it's", "b"]]}), tmp_path / "in.parquet")
    predict_file(Echo("text"), tmp_path / "in.parquet", tmp_path / "out.csv")
    assert json.loads(rows_of(tmp_path / "out.csv")[0]["tags"]) == ["it's", "b"]


def test_only_parquet_without_gz_can_be_written(tmp_path: Path) -> None:
    for name in ("out.parquet.gz", "out.xlsx", "out"):
        with pytest.raises(InputError, match="its name must end in"):
            predict_file(Echo("text"), tmp_path / "in.csv", tmp_path / name)
