"""The cells of a study: which of them count again, which are fitted anew, and that they survive a kill."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from small import make_task

import trimtab
from trimtab.changes.contract import Defaults
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.results.cells import CLAIMS, FILE
from trimtab.results.comparison import Comparison
from trimtab.results.recipe import DECIDE_NOTHING, Settings
from trimtab.studies import cell_spec as module
from trimtab.studies.compare import compare, finished_cells
from trimtab.tasks.task import Rows, Task

METHODS = (trimtab.Head(), trimtab.Biases())


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Encoder:
    return encoder_of("bert")


@pytest.fixture(scope="module")
def folder(encoder: Encoder, tmp_path_factory: Any) -> Path:
    """With the cells of one task, two methods and one seed."""
    out = tmp_path_factory.mktemp("study")
    compare(encoder, [make_task()], METHODS, seeds=1, out=out, epochs=1)
    return out


@pytest.fixture
def anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How many cells a study would fit that are not in `folder`; none of them is fitted."""
    asked: list[Any] = []

    def refusing(*arguments: Any, **settings: Any) -> Any:
        asked.append(arguments)
        raise InputError("not now")

    def count(encoder: Encoder, task: Task, methods: Any = METHODS, **other: Any) -> int:
        asked.clear()
        compare(encoder, [task], methods, **{"seeds": 1, "out": folder, "epochs": 1} | other)
        return len(asked)

    monkeypatch.setattr(module, "fit", refusing)
    return count


@pytest.mark.parametrize("field", ["sha256", "config_sha256"])
def test_another_encoder_makes_other_cells(field: str, encoder: Encoder, anew: Callable[..., int]) -> None:
    assert anew(encoder, make_task()) == 0
    assert anew(replace(encoder, **{field: 64 * "0"}), make_task()) == 2


def test_another_tokenizer_makes_other_cells(encoder: Encoder, anew: Callable[..., int], tmp_path: Path) -> None:
    """Of the same weights and configuration: a mended vocabulary gives other scores."""
    copied = tmp_path / "encoder"
    shutil.copytree(encoder.folder, copied)
    text = (copied / "tokenizer.json").read_text()
    (copied / "tokenizer.json").write_text(text.replace('"red"', '"crimson"'))
    other = load(str(copied))
    assert (other.sha256, other.config_sha256) == (encoder.sha256, encoder.config_sha256)
    assert anew(other, make_task()) == 2


def with_rows(task: Task, split: str, change: Callable[[Rows], Rows]) -> Task:
    return replace(task, splits=dict(task.splits) | {split: change(task.splits[split])})


def one_text_changed(rows: Rows) -> Rows:
    return replace(rows, texts=([f"{rows.texts[0][0]} cat", *rows.texts[0][1:]],))


def one_label_changed(rows: Rows) -> Rows:
    return replace(rows, labels=[(rows.labels[0] + 1) % 3, *rows.labels[1:]])


def turned_round(rows: Rows) -> Rows:
    return rows.take(range(len(rows))[::-1])


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("change", [one_text_changed, one_label_changed, turned_round])
def test_other_rows_make_other_cells(
    split: str, change: Callable[[Rows], Rows], encoder: Encoder, anew: Callable[..., int]
) -> None:
    assert anew(encoder, with_rows(make_task(), split, change)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "animals!"}, {"kind": "regression", "metric": "pearson"}, {"classes": ("cat", "dog", "bird")},
        {"classes": ("dog", "cat", "fish")},
    ],
    ids=str,
)  # fmt: skip
def test_another_task_of_the_same_rows_makes_other_cells(
    change: dict[str, Any], encoder: Encoder, anew: Callable[..., int]
) -> None:
    assert anew(encoder, replace(make_task(), **change)) == 2


def test_where_rows_came_from_makes_no_other_cells(encoder: Encoder, anew: Callable[..., int]) -> None:
    task = make_task()
    numbered = with_rows(task, "train", lambda rows: replace(rows, numbers=list(range(len(rows))), unit="line"))
    for same in (numbered, replace(task, source="elsewhere.csv", notes=("read twice",))):
        assert anew(encoder, same) == 0


OTHER = {  # setting -> a value that is not its default; the cells were made with epochs=1
    "epochs": 2, "batch_size": 8, "first_epoch": 1, "lr": 3e-4, "head_lr": 3e-4, "weight_decay": 0.1, "warmup": 0.1, "clip": 0.5,
    "max_length": 20, "head": "cls", "head_start": "random", "pairs": "together",
    "class_weights": "balanced", "label_smoothing": 0.1, "dropout": 0.2, "threshold": 0.3, "at_least_one": True,
    "calibrate": True, "thresholds": "f1", "abstain": 0.2,
    "eval_steps": 2, "patience": 1, "train_limit": 90, "compute": "bfloat16", "tokens_per_batch": 50, "cache_gb": 0.5,
}  # fmt: skip


def test_every_setting_but_those_that_decide_nothing_makes_other_cells(
    encoder: Encoder, anew: Callable[..., int]
) -> None:
    task = make_task()
    assert set(OTHER) == {field.name for field in fields(Settings)} - {"seed"}, "a new setting belongs in OTHER"
    found = {name: anew(encoder, task, **{name: value}) for name, value in OTHER.items()}
    assert found == {name: 0 if name in DECIDE_NOTHING else 2 for name in OTHER}


def test_other_methods_and_seeds_are_added_to_the_cells(encoder: Encoder, anew: Callable[..., int]) -> None:
    task = make_task()
    assert anew(encoder, task, [trimtab.Head(), trimtab.Biases(which="query")]) == 1
    assert anew(encoder, task, seeds=3) == 4


def test_the_rates_of_a_method_make_other_cells(
    encoder: Encoder, anew: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimtab.Head, "defaults", Defaults(head_lr=0.5))
    assert anew(encoder, make_task()) == 1
    assert anew(encoder, make_task(), head_lr=0.1) == 2


def test_methods_whose_files_have_one_name_are_told_apart(encoder: Encoder, tmp_path: Path) -> None:
    task = replace(make_task(), name=90 * "a")  # a file's name has its first 80 letters
    settings = {"epochs": 1, "lr": 1e-3, "head_lr": 1e-3}  # which differ by method where they are not given
    compare(encoder, [task], [trimtab.Head()], seeds=1, out=tmp_path, **settings)
    assert len(finished_cells(tmp_path, encoder, task, METHODS, [0], **settings)) == 1


def lines(folder: Path) -> list[str]:
    """Of the finished cells in the folder of a study, one each."""
    return (folder / FILE).read_text().splitlines() if (folder / FILE).is_file() else []


def cut_off(cell: dict[str, Any]) -> str:
    return json.dumps(cell)[:40]


def with_other_fields(cell: dict[str, Any]) -> str:
    return json.dumps(cell | {"colour": "red"})


def of_an_older_format(cell: dict[str, Any]) -> str:
    return json.dumps(cell | {"format": 1})


def of_another_identity(cell: dict[str, Any]) -> str:
    return json.dumps(cell | {"identity": cell["identity"][::-1]})


@pytest.mark.parametrize("damage", [cut_off, with_other_fields, of_an_older_format, of_another_identity])
def test_a_damaged_cell_is_computed_again(
    damage: Callable[[Any], str], encoder: Encoder, anew: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "study"
    shutil.copytree(folder, copied)
    assert anew(encoder, make_task(), out=copied) == 0
    first, *others = lines(copied)
    (copied / FILE).write_text("\n".join([damage(json.loads(first)), *others, ""]))
    assert anew(encoder, make_task(), out=copied) == 1


def test_a_refused_cell_is_tried_again(encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def study() -> Comparison:
        return compare(encoder, [make_task()], [trimtab.Head()], seeds=1, out=tmp_path, epochs=1)

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit", lambda *args, **kwargs: (_ for _ in ()).throw(InputError("needs peft")))
        assert study().refused == {"head": "needs peft"}
    assert not finished_cells(tmp_path, encoder, make_task(), [trimtab.Head()], [0], epochs=1)
    assert not study().refused  # as if peft had been installed
    (line,) = lines(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(json.loads(line) | {"refused": "an older version wrote this"}) + "\n")
    assert not study().refused


class Plain:
    """A user's own method, known by its class."""

    def attach(self, model: Any, batches: Any = (), loss: Any = None) -> Any:
        return trimtab.Head().attach(model)


class Unnamed(Plain):
    """One whose only attribute prints as its address in memory."""

    def __init__(self):
        self.rule = object()


@dataclass(frozen=True)
class Named(Plain):
    part: int = 3


def test_methods_without_a_lasting_name_are_not_kept(encoder: Any, tmp_path: Path) -> None:
    for method in (Unnamed(), trimtab.Random(count=5, within=Unnamed()), trimtab.Union((trimtab.Head(), Unnamed()))):
        with pytest.raises(InputError, match="make it a frozen dataclass"):
            compare(encoder, [make_task()], [method], seeds=1, out=tmp_path, epochs=1)
        with pytest.raises(InputError, match="make it a frozen dataclass"):
            finished_cells(tmp_path, encoder, make_task(), [method], [0], epochs=1)
    assert compare(encoder, [make_task()], [Unnamed()], seeds=1, epochs=1).overall
    for method in (Named(), Plain()):
        assert compare(encoder, [make_task()], [method], seeds=1, out=tmp_path, epochs=1).overall
        assert len(finished_cells(tmp_path, encoder, make_task(), [method], [0], epochs=1)) == 1


STUDY = """
import sys
sys.path.insert(0, {tests!r})
from small import make_task
import trimtab
encoder = trimtab.load({encoder!r})
trimtab.compare(encoder, [make_task()], [trimtab.LayerNorms(), trimtab.Head()], seeds=3, out={out!r}, epochs=2)
"""


@pytest.mark.slow
def test_killed_twice_it_goes_on_to_the_same_table(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = [trimtab.LayerNorms(), trimtab.Head()]
    expected = compare(encoder, [make_task()], methods, seeds=3, out=tmp_path / "whole", epochs=2)
    out = tmp_path / "killed"
    script = STUDY.format(tests=str(Path(__file__).parent.parent), encoder=str(encoder.folder), out=str(out))
    n_there = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 240
        while process.poll() is None and len(lines(out)) == n_there and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()  # right behind a cell, somewhere in the next one; nothing where it has ended by itself
        message = process.communicate()[1]
        assert time.monotonic() < deadline, "no cell was written"
        assert process.returncode == -signal.SIGKILL, message or "it was not killed but came to its end"
        n_before, n_there = n_there, len(lines(out))
        assert n_before < n_there < 6
    fits: list[Any] = []
    real = module.fit
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: fits.append(kwargs) or real(*args, **kwargs))
    again = compare(encoder, [make_task()], methods, seeds=3, out=out, epochs=2)
    assert len(fits) == 6 - n_there
    names = ("method", "mean", "standard_deviation", "rank", "elements", "delta_bytes")
    assert [[getattr(s, name) for name in names] for s in again.overall] == [
        [getattr(s, name) for name in names] for s in expected.overall
    ]
    assert [c.answers for c in again.cells] == [c.answers for c in expected.cells]
    assert all(json.loads(line)["format"] for line in lines(out))


def test_two_studies_in_one_folder_share_its_fits(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell is fitted once, whichever of two that run at the same time comes to it first, and both have all of them."""
    fit, fitted = module.fit, []

    def counted(*args: Any, **settings: Any) -> Any:
        fitted.append((args[2], settings["seed"]))
        return fit(*args, **settings)

    monkeypatch.setattr(module, "fit", counted)
    methods = [trimtab.LayerNorms(), trimtab.Head(), trimtab.Biases()]

    def study() -> Any:
        return compare(encoder, [make_task()], methods, seeds=2, out=tmp_path, epochs=1)

    with ThreadPoolExecutor(2) as pool:
        one, other = (each.result() for each in [pool.submit(study), pool.submit(study)])
    assert len(fitted) == len(set(fitted)) == 6
    assert [cell.scores for cell in one.cells] == [cell.scores for cell in other.cells]
    assert len(lines(tmp_path)) == 6
    assert [path.name for path in (tmp_path / CLAIMS).iterdir()] == ["append.lock"]


def test_a_study_says_how_many_fits_it_is_and_how_many_are_there(
    encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"out": tmp_path, "epochs": 1, "progress": True}
    compare(encoder, [make_task()], [trimtab.Head()], seeds=1, **given)
    assert "1 fit (1 method, 1 task, 1 seed)\n" in capsys.readouterr().err
    compare(encoder, [make_task()], [trimtab.Head(), trimtab.LayerNorms()], seeds=2, **given)
    err = capsys.readouterr().err
    assert "4 fits (2 methods, 1 task, 2 seeds), of which 1 are there already" in err
    assert re.search(r"seed 0: .* in .*; about .* left", err)
