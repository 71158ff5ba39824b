"""Every file format to numbered rows, and every way a file can be broken."""

import csv
import gzip
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks.tables import Table, open_table
from trimtab.tasks.text_files import MAX_ROW_BYTES

Write = Callable[[str, str | bytes], Path]
TWO_ROWS = [(2, {"text": "good", "label": "yes"}), (3, {"text": "bad", "label": "no"})]

# Any character that UTF-8 can carry: control characters, line ends and quotes too.
odd_texts = st.text(st.characters(codec="utf-8"), max_size=30)
odd_rows = st.lists(st.tuples(odd_texts, odd_texts), min_size=1, max_size=5)
many_files = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(table: Table) -> list[tuple[str, str]]:
    return [(row["text"], row["label"]) for _, row in table]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "text,label\ngood,yes\nbad,no\n"),
        ("rows.csv.gz", "text,label\ngood,yes\nbad,no\n"),
        ("ROWS.CSV", "text,label\r\ngood,yes\r\nbad,no"),
        ("rows.tsv", "text\tlabel\ngood\tyes\nbad\tno\n"),
        ("rows.tsv.gz", "text\tlabel\ngood\tyes\nbad\tno\n"),
        ("rows.csv", "\ufefftext,label\ngood,yes\nbad,no\n"),
    ],
)
def test_delimited_rows_carry_their_line_numbers(write: Write, name: str, content: str) -> None:
    table = open_table(write(name, content))
    assert table.columns == ("text", "label")
    assert list(table) == TWO_ROWS
    assert list(table) == TWO_ROWS, "a table can be walked twice"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_carry_their_line_numbers_and_skip_blank_lines(write: Write, name: str) -> None:
    content = '\ufeff{"text": "good", "label": 1}\n\n{"text": "bad", "label": 0, "note": null}\n   \n'
    table = open_table(write(name, content))
    assert table.columns == ("text", "label", "note")
    assert list(table) == [(1, {"text": "good", "label": 1}), (3, {"text": "bad", "label": 0, "note": None})]


def test_parquet_rows_are_numbered_across_batches(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [str(i) for i in range(1000)], "label": list(range(1000))}), tmp_path / "r.parquet"
    )
    table = open_table(tmp_path / "r.parquet")
    assert table.columns == ("text", "label")
    assert list(table) == [(i + 1, {"text": str(i), "label": i}) for i in range(1000)]
    assert table.at(7).endswith("r.parquet, row 7")


@many_files
@given(rows=odd_rows)
def test_csv_gives_back_any_text(write: Write, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert rows_of(open_table(write("odd.csv", buffer.getvalue()))) == rows


@many_files
@given(rows=odd_rows, as_ascii=st.booleans())
def test_json_lines_give_back_any_text(write: Write, rows: list[tuple[str, str]], as_ascii: bool) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=as_ascii) for text, label in rows]
    assert rows_of(open_table(write("odd.jsonl", "\n".join(lines)))) == rows


@many_files
@given(rows=odd_rows)
def test_parquet_gives_back_any_text(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    texts, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"text": list(texts), "label": list(labels)}), tmp_path / "odd.parquet")
    assert rows_of(open_table(tmp_path / "odd.parquet")) == rows


plain_texts = st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n"'), max_size=30)


@many_files
@given(rows=st.lists(st.tuples(plain_texts, st.sampled_from(["yes", "no"])), min_size=1, max_size=5))
def test_tsv_without_quoting_gives_back_any_text(write: Write, rows: list[tuple[str, str]]) -> None:
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    assert rows_of(open_table(write("odd.tsv", content))) == rows


@many_files
@given(rows=odd_rows)
def test_tsv_with_every_field_quoted_gives_back_any_text(write: Write, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert rows_of(open_table(write("odd.tsv", buffer.getvalue()))) == rows


@pytest.mark.parametrize("text", ['" Hm , " he said .', 'the "best" one', '"open', '"whole"', 'ends with "'])
def test_stray_quotes_in_a_tsv_belong_to_the_text(write: Write, text: str) -> None:
    content = f'text\tlabel\n{text}\tyes\n" a stray one\tno\n'
    assert rows_of(open_table(write("glue.tsv", content)))[0] == (text, "yes")


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", 'say "hi"'])
def test_quotes_that_a_spreadsheet_wrote_into_a_tsv_are_taken_away(write: Write, text: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t").writerows([("text", "label"), (text, "yes"), ("plain", "no")])
    assert rows_of(open_table(write("sheet.tsv", buffer.getvalue()))) == [(text, "yes"), ("plain", "no")]


@pytest.mark.parametrize(
    ("name", "delimiter", "words"),
    [("rows.csv", ";", "semicolons"), ("rows.csv", "\t", "tabs"), ("rows.tsv", ",", "commas")],
)
def test_another_separator_in_the_header_is_found_and_noted(
    write: Write, name: str, delimiter: str, words: str
) -> None:
    table = open_table(write(name, f"text{delimiter}label\ngood{delimiter}yes\nbad{delimiter}no\n"))
    assert list(table) == TWO_ROWS
    assert words in table.notes[0]


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [
        ("rows.csv", "id;text, long;label", ("id", "text, long", "label")),
        ("rows.csv", 'text;"one, two, three"', ("text", "one, two, three")),
        ("rows.csv", '"a;b;c",label', ("a;b;c", "label")),
        ("rows.csv", "text,label;s", ("text", "label;s")),
        ("rows.tsv", "text\tlabel, or none", ("text", "label, or none")),
        ("rows.tsv", "text", ("text",)),
    ],
)
def test_the_separator_cuts_the_header_into_most_fields(
    write: Write, name: str, header: str, columns: tuple[str, ...]
) -> None:
    assert open_table(write(name, header + "\n")).columns == columns


def test_a_record_over_several_lines_is_numbered_by_its_first(write: Write) -> None:
    table = open_table(write("rows.csv", 'text,label\n"one\ntwo",a\nthree,b\n'))
    assert [number for number, _ in table] == [2, 4]


def test_a_document_of_100_000_words_is_read(write: Write) -> None:
    document = "word " * 100_000
    assert rows_of(open_table(write("long.csv", f"text,label\n{document},a\n"))) == [(document, "a")]


def refused(path: Path, *words: str) -> None:
    """Asserts that reading the file through raises an InputError that names it and holds `words`."""
    with pytest.raises(InputError) as caught:
        list(open_table(path))
    for word in (path.name, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", ["is empty"]),
        ("a.jsonl", "", ["is empty"]),
        ("a.parquet", "", ["is empty"]),
        ("a.csv", "\n\n", ["is empty"]),
        ("a.jsonl", "\n \n", ["is empty"]),
        ("a.jsonl.gz", "", ["is empty"]),
        ("a.csv", "sep=;\r\ntext;label\r\na;b\r\n", ["line 1", "'sep=;'", "Delete that line"]),
        ("a.tsv", '\n"SEP=,"\ntext,label\n', ["line 2", "Delete that line"]),
        ("a.csv", "text,label\na,b\nc,d,e\n", ["line 3", "3 fields", "names 2", "double quotes"]),
        ("a.csv", "text,label\nonly one\n", ["line 2", "1 field, but"]),
        ("a.tsv", "text\tlabel\na\tb\tc\n", ["line 2", "3 fields", "tabs"]),
        ("a.csv", 'text,label\nx,y\n"never closed,a\nb,c\n', ["line 3", "quote"]),
        ("a.csv", 'text,label\n"a"b,c\n', ["line 2", "quote"]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', ["line 2", "not JSON", "one object"]),
        ("a.jsonl", '[{"text": "a"},\n', ["line 1", "not JSON", "one object"]),
        ("a.jsonl", '{"text": "a"}\n["b", 1]\n', ["line 2", "list", "one object"]),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "b", "x": {"y": 1}, "text": "c"}\n',
            ["line 2", "several values", "'text'"],
        ),
        ("a.jsonl", "[" * 100_000, ["line 1", "cannot be read"]),
        ("a.jsonl", '{"text": "half \\ud83d"}\n', ["line 1", "\\ud83d", "surrogate"]),
        ("a.csv", "text,label\nfine,a\ncaf\xe9,b\n".encode("latin-1"), ["line 3", "0xe9", "position 21", "UTF-8"]),
        ("a.jsonl", '{"text": "\xe9"}\n'.encode("latin-1"), ["line 1", "0xe9", "position 10", "UTF-8"]),
        ("a.csv", "text,label\n".encode("utf-16-le"), ["line 1", "UTF-16", "--encoding utf-16-le"]),
        ("a.csv", b"\xef\xbb\xbftext\n\xe9\n", ["line 2", "position 8"]),
        ("a.csv", b"\x1f\x8b\x08", ["line 1", "0x8b", "gzipped", "add .gz"]),
        ("a.csv", b"PK\x03\x04\xff", ["line 1", "0xff", "spreadsheet"]),
        ("a.parquet", b"PAR1 this is no parquet PAR1", ["Parquet"]),
        ("a.xlsx", b"PK", ["cannot be read as an Excel workbook", "CSV"]),
        ("a.json", "[]", ["is empty"]),
        ("a.json", "{}", ["is empty"]),
        ("a.json", '{"a": 1, "b": [1]}', ["no table", "list of objects"]),
        ("a.json", '[{"text": "a"}, 3]', ["item 2", "int", "list of objects"]),
        ("a.json", '[{"text": "a"}, {"text": "half \\ud83d"}]', ["row 2", "surrogate"]),
        ("a.json", '[{"text": "a"}', ["cannot be read"]),
        ("a.txt", "[]", ["unknown file format", ".jsonl"]),
        ("noending", "text\n", ["unknown file format", "(no ending)"]),
    ],
)
def test_broken_files_are_refused(write: Write, name: str, content: str | bytes, words: list[str]) -> None:
    refused(write(name, content), *words)


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "' + os.urandom(3000).hex().encode() + b'", "label": 1}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.jsonl.gz", "line 1", "truncated or corrupt")


def test_corrupt_gzip_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(os.urandom(3000).hex().encode()))
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "odd.csv.gz").write_bytes(whole)
    refused(tmp_path / "odd.csv.gz", "line 1", "truncated or corrupt")


def test_a_file_that_is_only_named_gz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.csv.gz").write_bytes(b"text,label\na,b\n")
    refused(tmp_path / "plain.csv.gz", "truncated or corrupt")


@pytest.mark.parametrize("name", ["huge.jsonl", "huge.csv", "huge.jsonl.gz"])
def test_a_line_of_100_mebibytes_is_refused_without_being_loaded(tmp_path: Path, name: str) -> None:
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wb") as file:
        for _ in range(100):
            file.write(b"x" * 2**20)
    tracemalloc.start()
    refused(tmp_path / name, "line 1", "10 MiB", "JSON Lines", "never closed")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * MAX_ROW_BYTES


def test_an_open_quote_is_refused_at_the_line_that_opens_it(write: Write) -> None:
    rest = "a harmless line\n" * (MAX_ROW_BYTES // 10)
    refused(write("open.csv", f'text,label\nfine,a\n"open,b\n{rest}'), "line 3", "10 MiB", "never closed")


def test_a_folder_name_or_missing_permission_is_reported_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.csv"
    path.write_text("text,label\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    refused(path, "cannot read", "Permission denied")


def test_a_header_with_spaces_behind_its_commas_names_the_columns(write: Write) -> None:
    table = open_table(write("a.csv", "text, label\nfine, a\n"))
    assert table.columns == ("text", "label")
    assert [row for _, row in table] == [{"text": "fine", "label": " a"}], "only names lose their spaces"


def test_an_object_within_a_row_may_repeat_a_name(write: Write) -> None:
    table = open_table(write("a.jsonl", '{"x": {"y": 1, "y": 2}, "text": "a"}\n'))
    assert [row for _, row in table] == [{"x": {"y": 2}, "text": "a"}]


def test_a_parquet_column_with_two_fields_of_one_name_is_refused(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["same", "same"])
    pq.write_table(pa.table({"text": ["a"], "odd": twice}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "Parquet")
