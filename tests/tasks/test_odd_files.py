"""Files as people have them: quotes behind spaces, other encodings, no header, empty columns, JSON documents, shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_like, read_rows
from trimtab.tasks.reading import Reading
from trimtab.tasks.tables import open_table

Write = Callable[[str, str | bytes], Path]


def rows_of(path: Path, **reading: Any) -> list[dict[str, Any]]:
    return [row for _, row in open_table(path, Reading(**reading))]


# Quotes behind spaces.


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_a_quote_behind_a_space_quotes(write: Write, mark: str) -> None:
    content = f'text{mark} label\n"it was fine{mark} very"{mark} "good"\n"x"{mark}  "bad"\n'
    assert rows_of(write("a.csv", content)) == [
        {"text": f"it was fine{mark} very", "label": "good"},
        {"text": "x", "label": "bad"},
    ]


def test_quotes_around_classes_are_no_part_of_their_names(write: Write) -> None:
    rows = "".join(f'"day {i}", "{"bad" if i % 2 else "good"}"\n' for i in range(20))
    assert read(write("a.csv", "text, label\n" + rows)).classes == ("bad", "good")


@pytest.mark.parametrize("text", ['he said, "yes"', ' "a" and b', 'one,  "two"\nhe, "three"', 'a, "b'])
def test_a_space_and_a_quote_within_quotes_are_text(write: Write, text: str) -> None:
    doubled = text.replace('"', '""')
    assert rows_of(write("a.csv", f'text,label\n"{doubled}",a\nplain, b\n')) == [
        {"text": text, "label": "a"},
        {"text": "plain", "label": " b"},
    ]


fields = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(fields, fields), min_size=1, max_size=4), space=st.sampled_from(["", " ", "  "]))
def test_quoted_fields_give_back_any_text_whatever_space_is_before_them(
    write: Write, rows: list[tuple[str, str]], space: str
) -> None:
    quoted = [[f'"{field.replace(chr(34), chr(34) * 2)}"' for field in row] for row in rows]
    content = f"text,{space}label\n" + "".join(f",{space}".join(row) + "\n" for row in quoted)
    found = [(row["text"], row["label"]) for row in rows_of(write("a.csv", content))]
    assert found == rows


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_a_space_behind_a_closing_quote_is_none_of_the_text(write: Write, mark: str) -> None:
    content = f'"text" {mark} "label"\n"it was {mark} ""fine""" {mark}"a"\n"""so"" {mark} he" {mark} "b" \n'
    assert rows_of(write("a.csv", content)) == [
        {"text": f'it was {mark} "fine"', "label": "a"},
        {"text": f'"so" {mark} he', "label": "b"},
    ]


def test_letters_behind_a_closing_quote_are_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"line 2.*nothing between a closing quote and the separator"):
        rows_of(write("a.csv", 'text,label\n"fine" or so,"a"\n'))


def test_backslashes_in_front_of_quotes_are_read_where_the_usual_reading_fails(write: Write) -> None:
    """As Spark writes them; every other backslash is one of the text."""
    path = write("a.csv", 'text,label\n"He said \\"yes\\", twice",a\n"C:\\new\\\\",b\n"two\nlines \\"",c\n')
    found = [(row["text"], row["label"]) for row in rows_of(path)]
    assert found == [('He said "yes", twice', "a"), ("C:\\new\\", "b"), ('two\nlines "', "c")]
    # The usual reading is right: a field that ends in a backslash.
    assert rows_of(write("b.csv", 'text,label\n"in C:\\",a\n')) == [{"text": "in C:\\", "label": "a"}]


def test_a_tsv_is_quoted_where_every_cell_of_a_column_is(write: Write) -> None:
    content = "text\tlabel\n" + "".join(f'"day {i}"\t"{"ab"[i % 2]}"\n' for i in range(20))
    assert read(write("a.tsv", content)).classes == ("a", "b")
    some = content.replace('"day 7"', "day 7").replace('"a"', "a")
    assert rows_of(write("b.tsv", some))[0] == {"text": '"day 0"', "label": "a"}, "then they are part of the text"


# Line ends, separators and headers too many.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_carriage_returns_end_the_lines_of_a_file_without_line_feeds(write: Write, encoding: str) -> None:
    path = write("a.csv", 'text,label\rgrün,x\r"two\rlines",y\r'.encode(encoding))
    assert rows_of(path) == [{"text": "grün", "label": "x"}, {"text": "two\rlines", "label": "y"}]
    assert rows_of(write("b.csv", 'text,label\n"a\rb",x\n')) == [{"text": "a\rb", "label": "x"}]


def test_blank_fields_behind_the_last_column_are_passed_over(write: Write) -> None:
    assert rows_of(write("a.csv", "text,label\none,a,\ntwo,b, ,\n")) == [
        {"text": "one", "label": "a"},
        {"text": "two", "label": "b"},
    ]
    with pytest.raises(InputError, match="line 2: 4 fields, but the header names 2"):
        read(write("b.csv", "text,label\none,a,,c\n"))


def test_a_header_in_the_middle_of_a_file_is_no_row(write: Write) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    path = write("a.csv", f"text,label\n{rows}text,label\n{rows}")
    with pytest.raises(InputError, match=r"line 22: the header stands here again"):
        read(path)
    task = read(path, skip_bad_rows=True, validation_share=0)
    assert (task.classes, len(task.train)) == (("a", "b"), 40)
    assert "left out 1 of 41 rows (1 with the header again)" in task.notes[0]
    assert [reason for _, _, reason in read_rows(path).rows].count("the header again") == 1


# Rows that do not have the form of their table.


def test_ragged_rows_are_left_out_on_request(write: Write) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
    path = write("a.csv", f"text,label\n{rows}hello, you,a\nonly one\n")
    with pytest.raises(InputError, match=r"line 22: 3 fields, but the header names 2.*--skip-bad-rows"):
        read(path)
    task = read(path, skip_bad_rows=True, validation_share=0)
    assert len(task.train) == 20
    assert "left out 2 of 22 rows (2 with another number of fields)" in task.notes[0]


def test_numbers_for_texts_and_broken_lines_are_left_out_on_request(write: Write) -> None:
    rows = "".join(json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) + "\n" for i in range(20))
    odd = '{"text": 2024, "label": "a"}\n{"text": "cut\n{"text": "x", "label": {"a": 1}}\n{"text": "", "label": "a"}\n'
    path = write("a.jsonl", rows + odd)
    with pytest.raises(InputError, match=r"line 21: column 'text' holds 2024 \(int\)"):
        read(path)
    task = read(path, skip_bad_rows=True, validation_share=0)
    assert len(task.train) == 20
    for count in ("left out 4 of 24", "1 with a number for a text", "1 with no readable JSON", "1 with an empty text"):
        assert count in task.notes[0]
    scored = read_like(task, path, skip_bad_rows=True)
    assert scored.test.labels == task.train.labels


def test_a_file_in_which_no_row_is_right_is_refused_with_the_first(write: Write) -> None:
    with pytest.raises(InputError, match=r"line 2: 3 fields"):
        read(write("a.csv", "text,label\na,b,c\nd,e,f\n"), skip_bad_rows=True)


# Encodings.

LETTERS = "text,label\ncaf\u00e9,oui\nna\u00efve,non\n"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_an_encoding_that_is_named_is_read(write: Write, encoding: str, name: str) -> None:
    path = write(name, LETTERS.encode(encoding))
    assert rows_of(path, encoding=encoding) == [
        {"text": "caf\u00e9", "label": "oui"},
        {"text": "na\u00efve", "label": "non"},
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_its_encoding(write: Write, encoding: str) -> None:
    for name, content in (("a.csv", LETTERS), ("a.json", '[{"text": "caf\u00e9", "label": "oui"}]')):
        assert rows_of(write(name, content.encode(encoding)))[0] == {"text": "caf\u00e9", "label": "oui"}


def test_what_is_not_of_the_named_encoding_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"not utf-16.*--encoding"):
        rows_of(write("a.csv", LETTERS.encode("utf-16-le") + b"\x00\xd8\x00"), encoding="utf-16-le")
    with pytest.raises(InputError, match=r"line 2: byte 0xe9 at position 14 is not ascii. Name the encoding"):
        rows_of(write("a.csv", LETTERS.encode("latin-1")), encoding="ascii")
    for name in ("latin-77", "base64"):
        with pytest.raises(InputError, match="unknown encoding"):
            Reading(encoding=name)


# Headers.


def test_columns_without_names_that_nobody_asked_for_do_no_harm(write: Write) -> None:
    rows = "".join(f"{'ham' if i % 2 else 'spam'},text {i},,,{'x' if i == 3 else ''}\n" for i in range(20))
    task = read(write("spam.csv", "v1,v2,,,\n" + rows), text="v2", label="v1")
    assert task.classes == ("ham", "spam")
    table = open_table(write("a.csv", ",text,label\n0,x,a\n"))
    assert table.columns == ("", "text", "label"), "one alone keeps its name, as the index of pandas"


def test_of_columns_of_one_name_only_those_that_are_wanted_are_refused(write: Write) -> None:
    path = write("a.csv", "text,note,label,note, note\nx,1,a,2,3\ny,4,b,5,6\n")
    assert read(path, validation_share=0).classes == ("a", "b")
    assert rows_of(path)[0] == {"text": "x", "note": "1", "label": "a", "column_4": "2", "column_5": "3"}
    with pytest.raises(InputError, match="a.csv: several columns are named 'note'. Give each column its own name"):
        read(path, text="note")
    for header in ("text,label,text", "text,label, label", "a,b,label,a"):
        with pytest.raises(InputError, match="several columns are named"):
            read(write("b.csv", f"{header}\n{'x,' * header.count(',')}y\n"), text="a,b" if "a,b" in header else None)
    with pytest.raises(InputError, match="several columns are named 'text'"):
        read_rows(write("c.tsv", "text\ttext\nx\ty\n"))


@pytest.mark.parametrize("mark", [",", "\t", ";", "|"])
def test_a_file_without_a_header_has_numbered_columns(write: Write, mark: str) -> None:
    rows = [("good", "fine; nice, really | well"), ("bad", "no, thanks; no | not")]
    lines = [f'{label}{mark}"{text}"' for label, text in rows] if mark != "\t" else [mark.join(row) for row in rows]
    path = write("a.csv", "\n".join(lines))
    table = open_table(path, Reading(header=False))
    assert table.columns == ("column_1", "column_2")
    assert list(table) == [
        (1, {"column_1": "good", "column_2": rows[0][1]}), (2, {"column_1": "bad", "column_2": rows[1][1]}),
    ]  # fmt: skip
    task = read(path, header=False, text="column_2", label="column_1", validation_share=0)
    assert (task.classes, task.reading.header) == (("bad", "good"), False)
    with pytest.raises(InputError, match=r"no column 'text'.*--no-header"):
        read(path)


def test_one_column_without_a_header_is_numbered_too(write: Write) -> None:
    assert rows_of(write("a.csv", "good\nbad\n"), header=False) == [{"column_1": "good"}, {"column_1": "bad"}]


def test_stray_quotes_in_a_file_without_a_header_belong_to_the_text(write: Write) -> None:
    content = 'gj04\t1\t\t"Hm," he said, "so"\ngj04\t0\t*\tHe "sighed, and" so, what.\n'
    assert [row["column_4"] for row in rows_of(write("cola.tsv", content), header=False)] == [
        '"Hm," he said, "so"',
        'He "sighed, and" so, what.',
    ]


# JSON documents.


@pytest.mark.parametrize(
    "document",
    [
        '[{"text": "good", "label": 1}, {"text": "bad", "label": 0}]',
        '{"version": 2, "data": [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]}',
        '{"text": ["good", "bad"], "label": [1, 0]}',
        '{"text": {"0": "good", "1": "bad"}, "label": {"0": 1, "1": 0}}',
        '{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n',
        '[\n {"text": "good", "label": 1},\n {"text": "bad", "label": 0}\n]',
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_documents_are_tables(write: Write, document: str, name: str) -> None:
    path = write(name, document)
    assert rows_of(path) == [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]
    assert open_table(path).columns == ("text", "label")


def test_ndjson_is_json_lines(write: Write) -> None:
    table = open_table(write("a.ndjson", '{"text": "good"}\n\n{"text": "bad"}\n'))
    assert list(table) == [(1, {"text": "good"}), (3, {"text": "bad"})]


# Parquet, and what `datasets` writes.

ANIMALS = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["dog", "cat", "bird"]),
        "tags": datasets.List(datasets.ClassLabel(names=["wild", "tame"])),
    }
)


def animals(n: int) -> datasets.Dataset:
    columns = {
        "text": [f"t {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "tags": [[1, 0][: i % 3] for i in range(n)],
    }
    return datasets.Dataset.from_dict(columns, features=ANIMALS)


def test_class_names_in_a_parquet_file_are_the_classes(tmp_path: Path) -> None:
    animals(6).to_parquet(tmp_path / "a.parquet")
    task = read(tmp_path / "a.parquet", validation_share=0)
    assert (task.kind, task.classes) == ("single_label", ("dog", "cat", "bird")), "of a class without rows too"
    assert task.train.labels == [0, 1, 0, 1, 0, 1]
    several = read(tmp_path / "a.parquet", label="tags", validation_share=0)
    assert (several.kind, several.classes) == ("multi_label", ("wild", "tame"))
    assert several.train.labels == [[], [1], [0, 1], [], [1], [0, 1]]


def test_notes_of_another_program_in_a_parquet_file_are_passed_over(tmp_path: Path) -> None:
    for notes in (b"not json", b"[]", b'{"info": {"features": []}}', b'{"info": {"features": {"label": [[]]}}}'):
        table = pa.table({"text": ["x", "y"], "label": [0, 1]}).replace_schema_metadata({b"huggingface": notes})
        pq.write_table(table, tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet", validation_share=0).classes == ("0", "1")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder as the hub keeps a data set: shards under data/."""
    folder = tmp_path / "animals"
    (folder / "data").mkdir(parents=True)
    for i in range(3):
        animals(10).select(range(2 * i, 2 * i + 2)).to_parquet(folder / "data" / f"train-0000{i}-of-00003.parquet")
    animals(2).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text("# Animals\n")
    return folder


def test_shards_are_one_table(clone: Path) -> None:
    task = read(clone, validation_share=0)
    assert (task.name, task.classes) == ("animals", ("dog", "cat", "bird"))
    assert task.train.texts == ([f"t {i}" for i in range(6)],)
    assert task.train.numbers == [1, 2, 3, 4, 5, 6]
    assert len(task.test) == 2
    assert read(clone / "data", validation_share=0).train == task.train


def test_parts_of_older_data_sets_end_in_a_hash(clone: Path) -> None:
    for path in (clone / "data").glob("*.parquet"):
        path.rename(path.with_name(f"{path.stem}-0fd4c3c4f2ba3e4c{path.suffix}"))
    assert len(read(clone, validation_share=0).train) == 6


def test_a_missing_shard_is_named(clone: Path) -> None:
    (clone / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match="of the 3 parts of train-00000-of-00003.parquet, part 00001 is missing"):
        read(clone)


def test_shards_have_the_same_columns(clone: Path) -> None:
    pq.write_table(pa.table({"other": ["x"]}), clone / "data" / "train-00002-of-00003.parquet")
    with pytest.raises(InputError, match="train-00002-of-00003.parquet has the columns other, but"):
        read(clone)


CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': dog
          '1': cat
          '10': fish
          '2': bird
---
# Animals
"""


@pytest.mark.parametrize("place", ["data/train.csv", "train.csv", "data/train-00000-of-00001.jsonl"])
def test_the_card_of_a_data_set_names_its_classes(write: Write, place: str) -> None:
    rows = [{"text": f"t {i}", "label": i} for i in range(4)]
    table = "".join(f"{row['text']},{row['label']}\n" for row in rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write(f"animals/{place}", "text,label\n" + table if place.endswith("csv") else lines)
    folder = write("animals/README.md", CARD).parent
    task = read(folder, validation_share=0)
    assert (task.classes, task.train.labels) == (("dog", "cat", "bird", "fish"), [0, 1, 2, 3])
    write("animals/README.md", CARD.replace("  features:", " features: ["))
    assert read(folder, validation_share=0).classes == ("0", "1", "2", "3"), "a page that cannot be read says nothing"


@pytest.mark.parametrize("several", [True, False])
def test_what_datasets_saves_on_disk_is_read(tmp_path: Path, several: bool) -> None:
    saved = datasets.DatasetDict({"train": animals(6), "dev": animals(2)}) if several else animals(6)
    saved.save_to_disk(tmp_path / "saved")
    task = read(tmp_path / "saved", validation_share=0)
    assert (task.name, task.classes, len(task.train)) == ("saved", ("dog", "cat", "bird"), 6)
    assert len(task.validation) == (2 if several else 0)
    assert any("dev is taken as the validation split" in note for note in task.notes) == several
    (tmp_path / "saved" / ("dataset_dict.json" if several else "dataset_info.json")).write_text("{")
    with pytest.raises(InputError, match="cannot be read as a saved data set"):
        read(tmp_path / "saved")


# A file of validation rows.


def test_validation_rows_may_lie_in_another_file(write: Write) -> None:
    train = write("a.csv", "text,label\nx,a\ny,b\n")
    other = write("b.jsonl", '{"text": "z", "label": "b"}\n')
    task = read(train, validation=other)
    assert (len(task.train), list(task.validation)) == (2, [{"text": "z", "label": 1}])
    assert task.reading.validation == str(other)
    assert read(train, **vars(task.reading)) == task
    with pytest.raises(InputError, match="file not found"):
        read(train, validation=other.with_name("c.jsonl"))
    with pytest.raises(InputError, match=r"b.jsonl, line 1: 'c' is not among the labels"):
        read(train, validation=write("b.jsonl", '{"text": "z", "label": "c"}\n'))


def test_a_file_of_validation_rows_takes_the_place_of_a_split(write: Write) -> None:
    write("topics/validation.csv", "text,label\nx,a\n")
    folder = write("topics/train.csv", "text,label\nx,a\ny,b\n").parent
    task = read(folder, validation=write("b.csv", "text,label\nz,b\n"))
    assert list(task.validation) == [{"text": "z", "label": 1}]
    assert any("takes the place of the validation split" in note for note in task.notes)
    assert "no share (0.3)" in read(folder, validation_share=0.3).notes[-1]


# What Spark writes.


def test_the_parts_of_a_spark_folder_are_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for part in (1, 0):
        texts = [f"text {10 * part + i}" for i in range(10)]
        table = pa.table({"text": texts, "label": [text[-1] for text in texts]})
        pq.write_table(table, folder / f"part-0000{part}-9943d681-c000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "._SUCCESS.crc").touch()
    task = read(folder, validation_share=0, kind="single_label")
    assert (task.name, task.train.texts[0]) == ("reviews", [f"text {i}" for i in range(20)])
    assert read_like(task, folder).test.texts == task.train.texts


def test_spark_folders_named_like_splits_are_splits(write: Write) -> None:
    rows = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(10))
    write("task/train/part-00000.csv", rows)
    write("task/train/part-00001.csv", "")  # an empty part, as Spark writes them
    write("task/test.csv/part-00000-1f3c-c000.csv", rows)
    task = read(write("task/val/part-m-00000.csv", rows).parent.parent)
    assert {split: len(found) for split, found in task.splits.items()} == {"train": 10, "validation": 10, "test": 10}


def test_other_tables_beside_parts_leave_open_what_a_folder_is(write: Write) -> None:
    write("task/part-00000.csv", "text,label\nx,a\n")
    with pytest.raises(InputError, match="no training file"):
        read(write("task/other.csv", "text,label\ny,b\n").parent)
