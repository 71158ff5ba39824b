"""`read` from a file, a folder, the hub; columns, splits, names, metrics; and the reading of rows to be predicted."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import HfApi

from trimtab.errors import InputError
from trimtab.tasks.hub import data_set_source
from trimtab.tasks.read import read, read_like, read_rows
from trimtab.tasks.task import Task

Write = Callable[[str, str], Path]
ROWS = "text,label\n" + "".join(f"text {i},{'no' if i % 3 else 'yes'}\n" for i in range(30))


def message(*arguments: Any, **options: Any) -> str:
    """The message of the InputError that `read` raises."""
    with pytest.raises(InputError) as caught:
        read(*arguments, **options)
    return str(caught.value)


def test_a_file_is_a_training_split_from_which_validation_is_cut(write: Write) -> None:
    path = write("reviews.csv.gz", ROWS)
    task = read(str(path))
    assert (task.name, task.source) == ("reviews", str(path))
    assert (task.text_columns, task.label_column, task.classes) == (("text",), "label", ("no", "yes"))
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 27, "validation": 3}
    (note,) = task.notes
    assert note.startswith(
        "no validation split: 3 of 30 training rows held out, stratified, seed 0; 22 rows are too much alike"
    )
    assert task.train[0] == {"text": "text 0", "label": 1}
    assert read(path) == task, "the same seed holds out the same rows"
    assert read(path, seed=1).validation != task.validation


def test_a_folder_has_its_splits_in_any_format(write: Write) -> None:
    write("topics/train.jsonl.gz", '{"label": "b", "text": "x"}\n{"label": "a", "text": "y"}\n')
    write("topics/test.tsv", "id\ttext\tlabel\n1\tz\ta\n")
    folder = write("topics/validation.csv", "text,label\nw,b\n").parent
    task = read(folder)
    assert list(task.splits) == ["train", "validation", "test"]
    assert [rows[0] for rows in (task.train, task.validation, task.test)] == [
        {"text": "x", "label": 1},
        {"text": "w", "label": 1},
        {"text": "z", "label": 0},
    ]
    assert (task.name, task.notes) == ("topics", ())


def test_splits_keep_their_order_when_validation_is_cut(write: Write) -> None:
    write("topics/test.csv", ROWS)
    assert list(read(write("topics/train.csv", ROWS).parent).splits) == ["train", "validation", "test"]


def test_a_folder_without_training_rows_says_what_it_holds(write: Write) -> None:
    said = message(write("topics/training.csv", ROWS).parent)
    assert "no training file" in said
    assert "training.csv" in said


def test_two_files_for_one_split_are_refused(write: Write) -> None:
    write("topics/train.csv", ROWS)
    said = message(write("topics/train.jsonl", "{}").parent)
    assert "train.csv and train.jsonl" in said


@pytest.mark.parametrize("name", ["dev.csv", "val.csv", "Valid.csv", "eval.csv"])
def test_other_names_of_a_validation_split_are_taken_and_said(write: Write, name: str) -> None:
    write("topics/train.csv", ROWS)
    task = read(write(f"topics/{name}", "text,label\nz,no\n").parent)
    assert (len(task.train), list(task.validation)) == (30, [{"text": "z", "label": 0}])
    assert f"{name} is taken as the validation split" in task.notes[0]


def test_of_two_validation_splits_the_plainly_named_one_is_read(write: Write) -> None:
    write("topics/train.csv", ROWS)
    write("topics/dev.csv", ROWS)
    task = read(write("topics/validation.csv", "text,label\nz,no\n").parent)
    assert len(task.validation) == 1
    assert "did not read dev.csv" in task.notes[0]


@pytest.mark.parametrize("name", ["val.xls", "dev.txt", "test.txt", "validation.arrow.gz", "TEST"])
def test_files_named_like_a_split_are_noted_whatever_their_ending(write: Write, name: str) -> None:
    write("topics/train.csv", ROWS)
    write("topics/notes.txt", "")
    task = read(write(f"topics/{name}", ROWS).parent)
    assert f"did not read {name};" in task.notes[0]
    assert "train, validation, test with .csv, .csv.gz" in task.notes[0]


def test_split_files_are_found_in_any_case(write: Write) -> None:
    write("topics/Train.csv", ROWS)
    write("topics/TEST.tsv", "text\tlabel\nz\tno\n")
    task = read(write("topics/validation.CSV", ROWS).parent)
    assert [len(rows) for rows in task.splits.values()] == [30, 30, 1]
    assert task.notes == ()
    assert "Train.csv and train.jsonl" in message(write("topics/train.jsonl", "{}").parent)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("text,label", ("text",)),
        ("text_a,text_b,label", ("text_a", "text_b")),
        ("sentence,idx,label", ("sentence",)),
        ("sentence1,sentence2,label", ("sentence1", "sentence2")),
        ("question1,question2,label", ("question1", "question2")),
        ("question,sentence,label", ("question", "sentence")),
        ("premise,hypothesis,label", ("premise", "hypothesis")),
    ],
)
def test_usual_text_columns_are_found(write: Write, header: str, columns: tuple[str, ...]) -> None:
    width = header.count(",")
    task = read(write("rows.csv", f"{header}\n{'x,' * width}1\n{'y,' * width}0\n"), validation_share=0)
    assert task.text_columns == columns
    assert list(task.train[0]) == (["text", "label"] if len(columns) == 1 else ["text_a", "text_b", "label"])


@pytest.mark.parametrize("text", ["b,a", ("b", "a"), ["b", "a"], "b, a"])
def test_a_pair_of_columns_can_be_named(write: Write, text: Any) -> None:
    path = write("rows.csv", "a,b,stars\nx,y,1\nv,w,2\n")
    task = read(path, text=text, label="stars", validation_share=0)
    assert task.text_columns == ("b", "a")
    assert task.train[0] == {"text_a": "y", "text_b": "x", "label": 0}


def test_names_with_commas_are_divided_where_they_are_a_text_and_not_in_a_sequence(write: Write) -> None:
    path = write("rows.csv", "a,b,l,m\nx,y,1,0\nv,w,0,1\n")
    task = read(path, text="a, b", label="l,m", validation_share=0)
    assert (task.text_columns, task.classes) == (("a", "b"), ("l", "m"))
    with pytest.raises(InputError, match="no column 'a, b'"):
        read(path, text=("a, b",), label="l,m")


def test_a_column_name_may_hold_a_comma(write: Write) -> None:
    path = write("rows.jsonl", '{"a,b": "x", "l,m": 1}\n{"a,b": "y", "l,m": 2}\n')
    for text, label in (("a,b", "l,m"), (("a,b",), ("l,m",))):
        task = read(path, text=text, label=label, validation_share=0)
        assert task.train[1] == {"text": "y", "label": 1}


def test_a_split_lacks_a_column_whose_name_holds_a_comma(write: Write) -> None:
    write("topics/train.jsonl", '{"a,b": "x", "label": 1}\n{"a,b": "y", "label": 2}\n')
    folder = write("topics/test.jsonl", '{"a": "x", "b": "y", "label": 2}\n').parent
    said = message(folder, text="a,b")
    assert "test.jsonl has no column 'a,b'" in said
    assert "first line" not in said, "only a table of fields has a line of names"


@pytest.mark.parametrize("columns", [{"text": "label"}, {"text": "a,b", "label": "b"}, {"text": "a", "label": "b,a"}])
def test_a_column_is_not_both_text_and_label(write: Write, columns: dict[str, str]) -> None:
    said = message(write("rows.csv", "a,b,label\n1,0,1\n0,1,2\n"), **columns)
    assert "is named as text and as label" in said
    assert "--label" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["no column 'text'", "it has 'Body', 'stars'", "first line", "--text"]),
        ({"text": "body"}, ["no column 'body'", "did you mean 'Body'?"]),
        ({"text": "Body,ttl"}, ["no column 'ttl'"]),
        ({"text": "Body"}, ["no column 'label'", "it has 'Body', 'stars'", "--label"]),
        ({"text": "Body", "label": "star"}, ["no column 'star'", "did you mean 'stars'?"]),
        ({"text": "Body,a,b", "label": "stars"}, ["one column or a pair"]),
        ({"text": "Body,Body", "label": "stars"}, ["once each"]),
        ({"text": (), "label": "stars"}, ["none"]),
    ],
)
def test_a_missing_column_is_named_with_what_there_is(write: Write, options: dict[str, Any], words: list[str]) -> None:
    said = message(write("rows.csv", "Body,stars\nx,1\ny,2\n"), **options)
    for word in words:
        assert word in said


def test_each_split_must_have_the_columns(write: Write) -> None:
    write("topics/train.csv", ROWS)
    write("topics/test.csv", "body,label\nx,no\n")
    assert "test.csv has no column 'text'" in message(write("topics/validation.csv", ROWS).parent)
    write("topics/test.csv", ROWS)
    assert "validation.csv has no column 'label'" in message(write("topics/validation.csv", "text\nx\n").parent)


def test_a_header_without_rows_is_refused(write: Write) -> None:
    assert "rows.csv has a header but no rows" in message(write("rows.csv", "text,label\n"))


def test_a_text_that_is_a_number_is_refused(write: Write) -> None:
    said = message(write("rows.jsonl", '{"text": "x", "label": 1}\n{"text": 3, "label": 1}\n'))
    assert "rows.jsonl, line 2: column 'text' holds 3 (int), not a text" in said


def test_empty_texts_are_refused_or_left_out(write: Write) -> None:
    path = write("rows.csv", "text_a,text_b,label\nx,y,1\n ,y,0\nx,,1\nv,w,0\nv,w,\n")
    said = message(path)
    assert "of 5 rows, 2 with an empty text (lines 3, 4); 1 with no label (line 6)" in said
    assert "--skip-bad-rows" in said
    task = read(path, skip_bad_rows=True, validation_share=0)
    assert [row["text_a"] for row in task.train] == ["x", "v"]
    assert "left out 3 of 5 rows (2 with an empty text, 1 with no label)" in task.notes[0]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_that_training_lacks_are_refused(write: Write, split: str) -> None:
    write("topics/train.csv", ROWS)
    said = message(write(f"topics/{split}.csv", "text,label\nx,no\ny,maybe\nz,never\n").parent)
    assert (
        f"{split}.csv, lines 3, 4: 'maybe', 'never' is not among the labels of the training rows, 'no', 'yes'" in said
    )


@pytest.mark.parametrize("test", ["text\nx\ny\n", "text,label\nx,-1\ny,-1\n", "text,label\nx,\ny,\n"])
def test_a_test_split_may_have_no_labels(write: Write, test: str) -> None:
    write("topics/train.csv", "text,label\nx,1\ny,0\n")
    write("topics/validation.csv", "text,label\nx,1\n")
    task = read(write("topics/test.csv", test).parent)
    assert list(task.test) == [{"text": "x", "label": None}, {"text": "y", "label": None}]
    assert "test.csv: has no labels" in task.notes[0]


def test_minus_one_is_a_label_where_training_has_it(write: Write) -> None:
    write("topics/train.csv", "text,label\nx,-1\ny,1\n")
    task = read(write("topics/test.csv", "text,label\nx,-1\n").parent, validation_share=0)
    assert task.test.labels == [0]


@pytest.mark.parametrize(("highest", "labels"), [("2.5", [-1.0]), ("-1.5", [None])])
def test_minus_one_is_a_number_within_a_regressions_range(
    write: Write, highest: str, labels: list[float | None]
) -> None:
    write("feelings/train.csv", f"text,label\nx,-2.5\ny,{highest}\n")
    folder = write("feelings/test.csv", "text,label\nx,-1\n").parent
    assert read(folder, kind="regression", validation_share=0).test.labels == labels


@pytest.mark.parametrize("label", ["-1", "-1.0"])
def test_minus_one_is_a_label_where_it_is_declared(write: Write, label: str) -> None:
    write("topics/labels.json", '["-1", "0", "1"]')
    write("topics/train.csv", "text,label\nx,0\ny,1\n")
    task = read(write("topics/test.csv", f"text,label\nx,{label}\n").parent, validation_share=0)
    assert task.test.labels == [0]


def test_a_test_split_may_not_lack_some_labels(write: Write) -> None:
    write("topics/train.csv", "text,label\nx,1\ny,0\n")
    said = message(write("topics/test.csv", "text,label\nx,\ny,1\n").parent)
    assert "test.csv: of 2 rows, 1 with no label (line 2)" in said


@pytest.mark.parametrize(
    ("name", "labels", "metric"),
    [
        ("cola", (0, 1), "matthews"),
        ("CoLA", (0, 1), "matthews"),
        ("mrpc", (0, 1), "f1"),
        ("qqp", (0, 1), "f1"),
        ("stsb", (0.5, 1.5), "pearson"),
        ("STS-B", (0.5, 1.5), "pearson"),
        ("sst2", (0, 1), "accuracy"),
        ("stsb", (0, 1), "accuracy"),
        ("cola", (0.5, 1.5), "pearson"),
        ("cola", ([0], [1]), "f1_macro"),
    ],
)
def test_a_glue_task_is_judged_by_its_own_metric(write: Write, name: str, labels: tuple[Any, Any], metric: str) -> None:
    content = "".join(json.dumps({"text": "x", "label": label}) + "\n" for label in labels)
    kind = "regression" if isinstance(labels[0], float) else None
    assert read(write(f"{name}/train.jsonl", content).parent, kind=kind, validation_share=0).metric == metric
    assert read(write(f"{name}.jsonl", content), kind=kind, validation_share=0).metric == metric


@pytest.mark.parametrize("source", ["reveiws.csv", "./nothing", "../nothing", "/nothing", "~/nothing", "x/y/z.jsonl"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(source: str) -> None:
    assert f"file not found: {source}" in message(source)


@pytest.mark.parametrize(("source", "words"), [("", "no task is named"), ("a" * 400, "cannot read aaa")])
def test_a_source_that_can_be_nothing_is_refused(source: str, words: str) -> None:
    assert words in message(source)


def test_a_wrong_path_is_answered_with_the_closest_names(write: Write) -> None:
    path = write("reviews.csv", ROWS)
    assert f"did you mean {path}?" in message(path.with_name("reveiws.csv"))
    assert "there is no folder" in message(path.parent / "nowhere" / "reviews.csv")


def test_a_folder_is_not_a_file_of_rows(write: Write) -> None:
    folder = write("topics/train.csv", ROWS).parent
    with pytest.raises(InputError, match="is a folder, and a file is needed here"):
        read_rows(folder)


def test_a_relative_path_stays_relative(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write("here/reviews.csv", ROWS).parent)
    assert read("reviews.csv").source == "reviews.csv"
    assert read("./reviews.csv").name == "reviews"
    write("here/train.csv", ROWS)
    assert read(".").name == "here"


# The hub, offline: `datasets.load_dataset` is replaced, or given a folder on this disk.


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, datasets.Dataset]], list[tuple[Any, ...]]]:
    """A function that makes every id load these splits, and gives the list of what was asked for."""

    def serve(splits: dict[str, datasets.Dataset]) -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []

        def load_dataset(*arguments: Any) -> datasets.DatasetDict:
            asked.append(arguments)
            return datasets.DatasetDict(splits)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: None)
        return asked

    return serve


def glue_split(labels: list[int]) -> datasets.Dataset:
    features = datasets.Features(
        sentence1=datasets.Value("string"),
        sentence2=datasets.Value("string"),
        label=datasets.ClassLabel(names=["not_equivalent", "equivalent"]),
        idx=datasets.Value("int32"),
    )
    n = len(labels)
    columns = {"sentence1": ["a"] * n, "sentence2": ["b"] * n, "label": labels, "idx": list(range(n))}
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_glue_task_comes_from_its_hub_data_set(hub: Callable[..., Any]) -> None:
    asked = hub({"train": glue_split([1, 0]), "validation": glue_split([1]), "test": glue_split([-1, -1])})
    task = read("glue/mrpc")
    assert asked == [("nyu-mll/glue", "mrpc")]
    assert (task.name, task.metric, task.source) == ("mrpc", "f1", "glue/mrpc")
    assert task.text_columns == ("sentence1", "sentence2")
    assert (task.classes, task.train.labels) == (("not_equivalent", "equivalent"), [1, 0])
    assert task.test.labels == [None, None]
    assert "glue/mrpc test: has no labels" in task.notes[0]


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("stanfordnlp/imdb", ("stanfordnlp/imdb", None)),
        ("imdb", ("imdb", None)),
        ("owner/name/config", ("owner/name", "config")),
    ],
)
def test_hub_ids_may_name_a_configuration(hub: Callable[..., Any], source: str, asked: tuple[Any, ...]) -> None:
    calls = hub({"train": glue_split([1, 0] * 10), "unsupervised": glue_split([-1])})
    task = read(source)
    assert calls == [asked]
    assert task.name == source.rsplit("/", maxsplit=1)[-1]
    assert task.notes[0] == f"{source}: did not read the splits unsupervised"
    assert len(task.validation) == 2


def test_the_matched_split_of_mnli_is_its_validation(hub: Callable[..., Any]) -> None:
    hub({name: glue_split([0, 1]) for name in ("train", "validation_matched", "validation_mismatched")})
    task = read("glue/mnli")
    assert len(task.validation) == 2
    assert "validation_mismatched" in task.notes[0]


def test_an_unlabelled_hub_row_is_a_row_without_label(hub: Callable[..., Any]) -> None:
    hub({"train": glue_split([1, -1, 0])})
    assert "owner/name train: of 3 rows, 1 with no label (row 2)" in message("owner/name")
    assert read("owner/name", skip_bad_rows=True, validation_share=0).train.labels == [1, 0]


def test_hub_lists_of_class_indices_are_multi_label(hub: Callable[..., Any]) -> None:
    names = datasets.ClassLabel(names=["joy", "anger"])
    features = datasets.Features(text=datasets.Value("string"), labels=datasets.List(names))
    hub({"train": datasets.Dataset.from_dict({"text": ["x", "y"], "labels": [[0, 1], []]}, features=features)})
    task = read("owner/emotions", validation_share=0)
    assert (task.kind, task.classes, task.label_column) == ("multi_label", ("joy", "anger"), "labels")
    assert task.train.labels == [[0, 1], []]


def test_a_hub_data_set_without_training_rows_is_refused(hub: Callable[..., Any]) -> None:
    hub({"test": glue_split([0, 1])})
    assert "owner/name has no split named train; it has test" in message("owner/name")


def test_a_hub_failure_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nlong traceback")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: None)
    said = message("stanfordnlp/imbd")
    assert "no file or folder 'stanfordnlp/imbd'" in said
    assert "Couldn't reach the hub." in said
    assert "path of a local copy" in said
    assert "did you mean helpdesk?" in message("helpdsk")
    assert "not the id of a data set" in message("what is this")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer the one request that is made of it."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no such host\nand more")

    monkeypatch.setattr(HfApi, "dataset_info", fail)


@pytest.mark.usefixtures("unreachable")
def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # `datasets` begins with this one, which is repeated for half a minute.
    asked_again = []
    monkeypatch.setattr(HfApi, "hf_hub_download", lambda *_, **__: asked_again.append(True))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert "the hub cannot be reached (no such host). Check the spelling and the network" in message("owner/name")
    assert not asked_again


def test_what_is_no_id_is_not_blamed_on_the_network() -> None:
    said = message("owner/a..b")
    assert "cannot be reached" not in said
    assert "a..b" in said


@pytest.mark.usefixtures("unreachable")
def test_without_the_hub_what_is_kept_of_a_data_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    offline = []

    def load_dataset(*_: object) -> datasets.DatasetDict:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        return datasets.DatasetDict(train=glue_split([1, 0]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert len(read("owner/name", validation_share=0).train) == 2
    assert offline == [True]
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_data_set_folder_is_loaded_by_datasets_itself(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write("data/train.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "label": 0}\n')
    write("data/README.md", DATA_CARD)
    source = data_set_source("owner/data", str(tmp_path / "data"), None)
    assert source.declared_for("label").classes == ("bad", "good")
    assert list(source.tables["train"]) == [(1, {"text": "x", "label": "good"}), (2, {"text": "y", "label": "bad"})]


DATA_CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': bad
          '1': good
---
"""


# Scoring a trained task on other rows.


@pytest.fixture
def task(write: Write) -> Task:
    """A task of three classes whose names come from labels.json."""
    write("trained/labels.json", '["low", "middle", "high"]')
    return read(write("trained/train.csv", "text,label\nx,0\ny,1\nz,2\n").parent, validation_share=0)


def test_other_rows_get_the_class_indices_of_the_task(task: Task, write: Write) -> None:
    by_name = read_like(task, write("new.csv", "text,label\nv,high\nw,low\n"))
    assert (by_name.classes, by_name.test.labels, by_name.train.labels) == (task.classes, [2, 0], [])
    assert by_name.source.endswith("new.csv")
    by_index = read_like(task, write("new.jsonl", '{"t": "v", "l": 2}\n'), text="t", label="l")
    assert by_index.test[0] == {"text": "v", "label": 2}


def test_other_class_orders_are_mapped_by_name(task: Task, write: Write) -> None:
    write("other/labels.json", '["high", "low"]')
    write("other/train.csv", "text,label\nx,0\n")
    folder = write("other/test.csv", "text,label\nv,0\nw,1\n").parent
    scored = read_like(task, folder)
    assert (scored.train.labels, scored.test.labels) == ([2], [2, 0])


def test_classes_that_the_task_lacks_are_refused(task: Task, write: Write) -> None:
    with pytest.raises(InputError, match=r"new.csv, line 3: 'huge' is none of the classes 'low', 'middle'"):
        read_like(task, write("new.csv", "text,label\nv,low\nw,huge\n"))
    write("other/labels.json", '["low", "huge"]')
    with pytest.raises(InputError, match="declares the classes 'huge', which task 'trained' does not have"):
        read_like(task, write("other/train.csv", "text,label\nx,0\n").parent)


@pytest.mark.parametrize(
    ("labels", "codes"), [(["1.0", "2.0", "5.0"], [0, 1, 4]), (["+5", "3"], [4, 2]), (["1", "2"], [0, 1])]
)
def test_class_names_that_are_numbers_are_never_indices(write: Write, labels: list[str], codes: list[int]) -> None:
    trained = read(write("stars.csv", "text,label\n" + "".join(f"x,{i}\n" for i in range(1, 6))), validation_share=0)
    assert trained.classes == ("1", "2", "3", "4", "5")
    scored = read_like(trained, write("new.csv", "text,label\n" + "".join(f"x,{label}\n" for label in labels)))
    assert scored.test.labels == codes
    with pytest.raises(InputError, match=r"new.csv, line 3: '0' is none of"):
        read_like(trained, write("new.csv", "text,label\nx,1.0\nx,0.0\n"))


def test_a_split_without_labels_is_read_like_the_task(task: Task, write: Write) -> None:
    write("other/train.csv", "text,label\nx,0\n")
    write("other/validation.csv", "text,label\nx,high\n")
    scored = read_like(task, write("other/test.csv", "text,label\nv,\nw,\n").parent)
    assert (scored.validation.labels, scored.test.labels) == ([2], [None, None])
    assert "test.csv: has no labels" in scored.notes[0]


@pytest.mark.parametrize("content", ["text\nv\nw\n", "text,label\nv,\nw,\n", "text,label\nv,-1\nw,-1\n"])
def test_a_file_without_labels_has_rows_without_labels(task: Task, write: Write, content: str) -> None:
    scored = read_like(task, write("new.csv", content))
    assert list(scored.test) == [{"text": "v", "label": None}, {"text": "w", "label": None}]
    assert "new.csv: has no labels" in scored.notes[0]


def test_a_label_column_of_another_name_is_not_taken_for_none(write: Write) -> None:
    trained = read(write("a.csv", "text,verdict\nx,no\ny,yes\n"), label="verdict", validation_share=0)
    assert "no column 'verdict'" in read_like(trained, write("b.csv", "text\nx\n")).notes[0]
    with pytest.raises(InputError, match=r"no column 'verdict'.*--label"):
        read_like(trained, write("b.csv", "text,label\nx,no\n"))
    with pytest.raises(InputError, match="no column 'stars'"):
        read_like(trained, write("b.csv", "text\nx\n"), label="stars")


@pytest.mark.parametrize("name", ["new.csv", "new/test.csv"])
def test_minus_one_is_a_label_where_the_task_has_it(write: Write, name: str) -> None:
    trained = read(write("a.csv", "text,label\nx,-1\ny,1\n"), validation_share=0)
    path = write(name, "text,label\nv,-1\n")
    assert read_like(trained, path if name == "new.csv" else path.parent).test.labels == [0]


def test_a_folder_of_test_rows_is_enough_to_score(task: Task, write: Write) -> None:
    folder = write("other/test.csv", "text,label\nv,high\n").parent
    assert read_like(task, folder).test.labels == [2]
    assert "no training file" in message(folder)
    (folder / "test.csv").rename(folder / "other.csv")
    with pytest.raises(InputError, match=r"no split: expected train, validation, test.*found other.csv"):
        read_like(task, folder)


def test_rows_of_two_texts_do_not_fit_a_task_of_one(task: Task, write: Write) -> None:
    with pytest.raises(InputError, match=r"takes 1 text\(s\) per row, not 2: text, more.*--text"):
        read_like(task, write("new.csv", "text,more,label\nv,w,high\n"), text="text,more")


def test_regression_rows_are_read_like_the_task(write: Write) -> None:
    trained = read(write("a.csv", "text,label\nx,1.5\ny,2\n"), kind="regression", validation_share=0)
    assert read_like(trained, write("b.csv", "text,label\nz,3\n")).test.labels == [3.0]


def test_labels_that_begin_late_in_json_lines_are_found(write: Write) -> None:
    rows = [{"text": f"text {i}"} | ({"label": "ab"[i % 2]} if i >= 150 else {}) for i in range(200)]
    path = write("late.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert "150 with no label" in message(path)
    task = read(path, skip_bad_rows=True, validation_share=0)
    assert len(task.train) == 50
    assert read_like(task, write("again.jsonl", path.read_text()), skip_bad_rows=True).test.labels == task.train.labels


def test_numbers_of_numpy_are_numbers(write: Write) -> None:
    path = write("a.csv", "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    plain, other = (
        read(path, validation_share=0.25, seed=3),
        read(path, validation_share=np.float32(0.25), seed=np.int64(3)),
    )
    assert plain == other
    assert [type(value) for value in (other.split_seed, other.validation_share)] == [int, float]
    with pytest.raises(InputError, match="the validation share must be a number"):
        read(path, validation_share="0.1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="the seed must be a whole number"):
        read(path, seed=0.5)  # pyright: ignore[reportArgumentType]


def test_a_user_who_is_not_there_is_refused() -> None:
    assert "Could not determine home directory" in message(Path("~nobody-of-this-name/a.csv"))


@pytest.mark.parametrize("unit", [1e-22, 1e20])
def test_numbers_whose_squares_are_none_are_refused(write: Write, unit: float) -> None:
    path = write("a.csv", f"text,label\nx,{1.5 * unit}\ny,{2.5 * unit}\n")
    assert "Use another unit" in message(path, kind="regression")


@pytest.mark.parametrize(("names", "right"), [("low,medium,high", None), ("b,c,a", [0, 1, 2])])
def test_numbers_for_classes_in_alphabetical_order_are_refused(
    write: Write, names: str, right: list[int] | None
) -> None:
    """Nobody said which is 0: of low, medium and high the alphabet makes high the first."""
    first, second, third = names.split(",")
    rows = "".join(f"text {name} {i},{name}\n" for i in range(4) for name in (first, second, third))
    write("trained/train.csv", "text,label\n" + rows)
    if right is not None:  # an order that was meant, and is not the alphabet's
        write("trained/labels.json", json.dumps([first, second, third]))
    trained = read(write("trained/test.csv", "text,label\n" + rows).parent, validation_share=0)
    numbered = write("numbered.csv", "text,label\nx,0\ny,1\nz,2\n")
    if right is None:
        with pytest.raises(InputError, match="could count in any order. Write the names"):
            read_like(trained, numbered)
        return
    assert read_like(trained, numbered).test.labels == right


@pytest.mark.parametrize("labels", [["a|b", "a", "b"], ["a; b", "a", "b"], ["['a', 'b']", "['a']", "[]"]])
def test_labels_that_may_be_several_classes_are_asked_about(write: Write, labels: list[str]) -> None:
    path = write(
        "several.jsonl",
        "".join(json.dumps({"text": f"t {i}", "label": label}) + "\n" for i, label in enumerate(labels * 9)),
    )
    assert "may be one class or several" in message(path)
    assert read(path, kind="single_label").kind == "single_label"
    if "[" not in labels[0]:
        assert read(path, kind="multi_label").classes == ("a", "b")


def test_a_separator_between_words_that_are_no_classes_is_a_part_of_the_name(write: Write) -> None:
    rows = "".join(f"t {i},{'R&D | sales' if i % 2 else 'law'}\n" for i in range(20))
    assert read(write("names.csv", "text,label\n" + rows)).classes == ("R&D | sales", "law")


# Rows to be predicted.


@pytest.mark.parametrize("name", ["new.csv", "new.tsv", "new.jsonl", "new.csv.gz"])
def test_rows_to_predict_keep_all_columns(write: Write, name: str) -> None:
    rows = [{"id": "1", "body": "good", "note": ""}, {"id": "2", "body": "", "note": "n"}]
    mark = "\t" if "tsv" in name else ","
    lines = [json.dumps(row) for row in rows] if "jsonl" in name else [mark.join(rows[0])]
    lines += [] if "jsonl" in name else [mark.join(row.values()) for row in rows]
    found = read_rows(write(name, "\n".join(lines)), "body")
    assert found.table.columns == ("id", "body", "note")
    assert list(found.rows) == [(rows[0], ("good",), None), (rows[1], ("",), "empty text")]


def test_rows_to_predict_come_one_at_a_time_and_an_odd_one_with_its_reason(write: Write) -> None:
    found = read_rows(write("new.jsonl", '{"text": "good"}\n' * 200 + '{"text": 7}\n{"text": "b"\n'))
    assert isinstance(found.rows, Iterator)
    assert found.n_rows == 202
    assert next(found.rows) == ({"text": "good"}, ("good",), None)
    *_, number, broken = found.rows
    assert number == ({"text": 7}, ("",), "a number for a text")
    assert broken == ({}, ("",), "no readable JSON object")


def test_a_column_without_any_text_is_refused_before_the_first_row(write: Write) -> None:
    with pytest.raises(InputError, match=r"new.jsonl, line 1: column 'text' holds 7"):
        read_rows(write("new.jsonl", '{"text": 7}\n' * 20))


def test_rows_to_predict_have_the_names_of_all_lines(write: Write) -> None:
    found = read_rows(write("new.jsonl", '{"text": "good"}\n' * 150 + '{"text": "bad", "late": 1}\n'))
    assert found.table.columns == ("text", "late")


@pytest.mark.parametrize(
    ("header", "preferred", "found"),
    [
        ("said,text", ("said",), "x"),
        ("sentence,text", ("said",), "y"),
        ("body,sentence", ("said",), "y"),
        ("sentence1,sentence2,text", ("a", "b"), "xy"),
    ],
)
def test_preferred_columns_go_before_usual_ones_of_their_number(
    write: Write, header: str, preferred: tuple[str, ...], found: str
) -> None:
    path = write("new.csv", f"{header}\n{'x,y,z'[: 2 * header.count(',') + 1]}\n")
    assert "".join(next(read_rows(path, preferred=preferred).rows)[1]) == found


def test_a_missing_preferred_column_is_named_with_its_option(write: Write) -> None:
    path = write("new.csv", "body,text_a,text_b\nx,y,z\n")
    with pytest.raises(InputError, match=r"no column 'said'; it has 'body'.*\(--columns\)"):
        read_rows(path, preferred=("said",), option="--columns")
    path = write("new.jsonl", '{"body": 3}\n')
    with pytest.raises(InputError, match=r"line 1: column 'body' holds 3.*\(--columns\)"):
        read_rows(path, "body", option="--columns")


def test_rows_to_predict_need_the_text_column_and_the_file(write: Write) -> None:
    path = write("new.csv", "body\ngood\n")
    with pytest.raises(InputError, match="has no column 'text'; it has 'body'"):
        read_rows(path)
    with pytest.raises(InputError, match=r"file not found: .*did you mean"):
        read_rows(path.with_name("mew.csv"), "body")


def test_of_two_classes_the_rarer_is_the_positive_one_where_it_is_much_rarer(write: Write) -> None:
    def task(n_fraud: int, **options) -> Task:
        rows = [f"text {i},{'fraud' if i < n_fraud else 'legit'}" for i in range(100)]
        return read(write("fraud.csv", "\n".join(["text,label", *rows]) + "\n"), **options)

    assert (task(25).positive, task(25).notes[:-1]) == ("legit", ())  # 3 : 1 is not above it
    rare = task(10)
    assert rare.positive == "fraud"
    assert "are those of 'fraud', the rarer class (10 of 100 training rows); positive names another" in rare.notes[0]
    assert task(10, positive="legit").positive == "legit"
    assert Task.from_description(rare.description()).positive == "fraud"
    assert Task.from_description({k: v for k, v in rare.description().items() if k != "positive"}).positive == "legit"
    assert read_like(rare, write("more.csv", "text,label\none,legit\n")).positive == "fraud"
    with pytest.raises(
        InputError, match="positive='spam' .* the classes of this single_label task are 'fraud', 'legit'"
    ):
        task(10, positive="spam")
    with pytest.raises(InputError, match="of this regression task are none"):
        read(write("n.csv", "text,label\na,1.5\nb,2.5\n"), kind="regression", positive="1.5", validation_share=0)
    assert read(write("n.csv", "text,label\na,x\nb,y\nc,z\n"), positive="", validation_share=0).positive is None
