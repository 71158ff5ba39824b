"""A check of data, in the library and as a user meets it; and corrected labels that a fit reads."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_task, sentences, write_csv

from trimtab.cli import main
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.studies.check import check, write_corrections
from trimtab.tasks.read import read
from trimtab.tasks.task import Rows
from trimtab.training.frozen import folds

LABELS = ("no", "yes")


def rows(n: int = 60) -> list[dict[str, str]]:
    """Sentences that say their label, two of them with another one, and one that is there twice with both."""
    found = []
    for i, text in enumerate(sentences(n, seed=3)):
        found.append({"text": f"{text} {'runs' if i % 2 else 'sleeps'} number{i}", "label": LABELS[i % 2]})
    found.append({**found[4], "text": found[4]["text"].upper() + " ", "label": "yes"})
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "rows.csv", rows())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line: its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trimtab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), said.out, said.err

    return call


def test_twins_with_different_labels_come_first(table: Path) -> None:
    found = check(read(table, validation_share=0))
    (twin,) = found.disagreeing
    assert (twin.first, twin.second, twin.similarity) == (("train", 4), ("train", 60), 1.0)
    assert found.twins_in_train >= 2
    assert "1 pair of near twins with different labels" in "\n".join(found.lines())
    assert found.suspects is None
    with_rows = list(csv.DictReader(found.corrections().splitlines()))
    assert [(row["row"], row["label"], row["suggested"]) for row in with_rows] == [
        ("6", "no", "yes"),
        ("62", "yes", "no"),
    ]
    assert "line 62 is nearly the same, and has another label" in with_rows[0]["why"]
    json.dumps(found.as_json())


def test_twins_across_splits_are_counted(tmp_path: Path) -> None:
    some = rows(80)
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "train.csv", some[:60])
    write_csv(
        tmp_path / "data" / "validation.csv", [*some[60:70], some[3], {**some[5], "text": some[5]["text"].title()}]
    )
    found = check(str(tmp_path / "data"))
    assert found.across["validation"][1] == 2
    assert "validation: " in (
        line := next(line for line in found.lines() if "near twin in train, 2 of them" in line)
    ), line


def test_unlikely_labels_are_listed_with_what_is_likely(encoder: Encoder) -> None:
    task = make_task(n_train=300, n_validation=30)
    draw = random.Random(0)
    wrong = sorted(draw.sample(range(300), 15))
    labels = [(label + 1) % 3 if i in wrong else label for i, label in enumerate(task.train.labels)]
    task = type(task)(**{**vars(task), "splits": {**task.splits, "train": Rows(task.train.texts, labels)}})
    found = check(task, encoder)
    assert found.suspects is not None
    assert found.probe_accuracy is not None
    assert found.probe_accuracy > 0.6
    rows = [each.row for each in found.suspects]
    assert len(set(rows) & set(wrong)) >= 8
    right = [each for each in found.suspects if each.row in wrong]
    assert np.mean([each.suggested == make_task(n_train=300).train.labels[each.row] for each in right]) > 0.7
    assert "unlikely by frozen vectors" in found.lines()[-1]
    assert "15" in found.page() or "suggested" in found.page()


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_other_kinds(encoder: Encoder, kind: str) -> None:
    found = check(make_task(kind), encoder)
    assert found.suspects is not None
    assert found.majority is None
    assert all(found.written(each.suggested) or kind == "multi_label" for each in found.suspects)
    list(csv.reader(found.corrections().splitlines()))
    assert ("<ol" in found.page()) == bool(found.suspects or found.disagreeing)


def test_pairs(encoder: Encoder) -> None:
    assert check(make_task(pairs=True), encoder).suspects is not None


def test_folds_keep_groups_whole_and_classes_spread() -> None:
    task = make_task(n_train=100)
    groups = np.arange(100) // 3
    fold = folds(task, task.train, groups, 5)
    assert all(len(set(fold[groups == group])) == 1 for group in groups)
    single = folds(task, task.train, np.arange(100), 5)
    labels = np.array(task.train.labels)
    for c in range(3):
        counts = np.bincount(single[labels == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(single)) <= 2


def test_a_page_shows_texts_as_text(tmp_path: Path) -> None:
    some = rows()
    some[4]["text"] = some[60]["text"] = "<script>alert(1)</script> & \ud83d\ude00 the old cat"
    page = check(read(some, validation_share=0)).page()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_the_command_line(table: Path, tmp_path: Path, run: Any) -> None:
    out, page = tmp_path / "look.csv", tmp_path / "look.html"
    code, said, err = run("check", table, "--out", out, "--page", page)
    assert code == 0, err
    assert "1 pair of near twins with different labels" in said
    assert "61 rows" in said  # none is held out
    assert page.read_text().startswith("<!doctype html>")
    code, _, err = run("check", table, "--out", out)
    assert code == 2
    assert "may hold corrections" in err
    for arguments, message in (
        (("--out", "a.txt"), ".csv"),
        (("--page", "a.txt"), ".html"),
        (("--encoder", "no/such"), "no/such"),
    ):
        code, _, err = run("check", table, *arguments)
        assert (code, message in err) == (2, True), err


def test_corrected_labels_are_read(table: Path, tmp_path: Path) -> None:
    found = check(read(table, validation_share=0))
    write_corrections(found, tmp_path / "look.csv")
    with (tmp_path / "look.csv").open() as file:
        listed = list(csv.DictReader(file))
    listed[1]["corrected"] = "no"
    done = write_csv(tmp_path / "done.csv", listed)
    task = read(table, corrections=done, validation_share=0)
    assert task.train.labels[60] == 0
    assert task.train.labels[4] == 0
    assert "1 label of the training rows corrected" in task.notes[0]
    assert not check(task).disagreeing
    assert task.origin.corrections == str(done)
    assert read(table, validation_share=0).train.labels[60] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"row": "999"}, "no training row '999': these are corrections of other rows"),
        ({"row": "x"}, "no training row 'x'"),
        ({"text": "another"}, "row 6 of .* has another text"),
        ({"corrected": "perhaps"}, ""),
    ],
)
def test_corrections_of_other_rows_are_refused(
    table: Path, tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    (row,) = list(csv.DictReader(check(read(table, validation_share=0)).corrections().splitlines()))[:1]
    done = write_csv(tmp_path / "done.csv", [{**row, "corrected": "yes", **changed}])
    if not message:  # a new class
        assert read(table, corrections=done).classes == ("no", "perhaps", "yes")
        return
    with pytest.raises(InputError, match=message):
        read(table, corrections=done)


def test_a_file_that_is_no_list_of_corrections(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*no.csv"):
        read(table, corrections=tmp_path / "no.csv")
    with pytest.raises(InputError, match="has no column 'row'"):
        read(table, corrections=table)
    row = {"row": "6", "text": rows()[4]["text"], "corrected": "no"}
    with pytest.raises(InputError, match="there twice"):
        read(table, corrections=write_csv(tmp_path / "twice.csv", [row, row]))
    (tmp_path / "latin.csv").write_bytes("row,text,corrected\n6,café,no\n".encode("latin-1"))
    with pytest.raises(InputError, match="no CSV in UTF-8"):
        read(table, corrections=tmp_path / "latin.csv")


def test_few_rows_and_small_classes_are_told(encoder: Encoder) -> None:
    found = check(
        read([{"text": f"row {i} of few", "label": "ab"[i % 2]} for i in range(6)], validation_share=0), encoder
    )
    assert any("fewer than 8 rows of 'a' (3), 'b' (3)" in line for line in found.lines())
    assert "too few to say which labels are unlikely" in "\n".join(found.lines())
