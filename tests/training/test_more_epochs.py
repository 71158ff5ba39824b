"""A finished run that goes on: in its place, with both parts in its record, and never worse."""

import json
import signal
import tomllib
from contextlib import contextmanager

import pytest
import torch
from small import ANIMALS, make_task

import trimtab
import trimtab.training.more_epochs as module
from trimtab.changes.delta import Delta
from trimtab.errors import InputError
from trimtab.results import run_folder
from trimtab.tasks.read import read
from trimtab.training import workbench
from trimtab.training.batches import shuffled_batches
from trimtab.training.fit import fit
from trimtab.training.more_epochs import more_epochs
from trimtab.training.workbench import Workbench

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 5e-3, "compute": "float32"}


@pytest.fixture
def table(tmp_path):
    rows = make_task(n_train=40).train
    lines = [f"{text},{ANIMALS[label]}" for text, label in zip(rows.texts[0], rows.labels, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path / "rows.csv"


def test_it_goes_on_in_its_place_and_its_record_shows_both_parts(encoder, table, tmp_path):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    again = fit(encoder, read(table), start_from=first, **SETTINGS | {"epochs": 2, "first_epoch": 1})
    more = more_epochs(tmp_path / "run", 2)
    assert all(torch.equal(more.delta.values[name], value) for name, value in again.delta.values.items())
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]
    assert [entry["step"] for entry in history] == [0, 5, 10, 15]
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert (scores["steps"], scores["baseline"], scores["run"]) == (15, first.baseline, "run")
    assert scores["start_from"]["sha256"] == first.delta.sha256
    assert tomllib.loads((tmp_path / "run/recipe.toml").read_text())["more_epochs"] == [2]
    assert not (tmp_path / "run/.more").exists()
    assert not (tmp_path / "run/.replaced").exists()


@pytest.fixture
def orders(monkeypatch):
    """The epochs whose orders of rows are asked for from now on, each once for every stretch of steps in it."""
    seen: list[int] = []

    def noted(n_rows, batch_size, seed, epoch):
        if seen[-1:] != [epoch]:
            seen.append(epoch)
        return shuffled_batches(n_rows, batch_size, seed, epoch)

    monkeypatch.setattr(workbench, "shuffled_batches", noted)
    return seen


@pytest.mark.parametrize("says", [True, False], ids=["its record says how far", "as of an older version"])
def test_no_epoch_repeats_the_order_of_an_earlier_one(says, encoder, table, tmp_path, orders):
    fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    record = tmp_path / "run/scores.json"
    said = json.loads(record.read_text())
    assert said["epochs_done"] == 1
    if not says:
        record.write_text(json.dumps({name: value for name, value in said.items() if name != "epochs_done"}))
    more_epochs(tmp_path / "run", 2)
    more_epochs(tmp_path / "run", 1)
    made = more_epochs(tmp_path / "run", 1, tmp_path / "new")
    more_epochs(tmp_path / "new", 1)
    assert orders == [0, 1, 2, 3, 4, 5]
    recipe = tomllib.loads((tmp_path / "new/recipe.toml").read_text())
    assert (recipe["settings"]["first_epoch"], recipe["more_epochs"]) == (4, [1])
    again = fit(encoder, read(table), start_from=tmp_path / "run", **SETTINGS | {"first_epoch": 4})
    assert again.delta.sha256 == made.delta.sha256, "the recipe of the new folder repeats it"


def test_a_run_that_stopped_within_an_epoch_goes_on_behind_it(encoder, table, tmp_path, orders):
    with trimtab.steps(encoder, read(table), out=tmp_path / "run", **SETTINGS | {"epochs": 9}) as steps:
        for event in steps:
            if isinstance(event, trimtab.Step) and event.step == 7:  # of 5 an epoch
                steps.stop()
    more = more_epochs(tmp_path / "run", 1)
    assert orders == [0, 1, 2]
    assert more.history[-1]["step"] == 12


def test_the_old_values_stay_where_no_step_is_better(encoder, table, tmp_path):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    recipe = tmp_path / "run/recipe.toml"
    recipe.write_text(recipe.read_text().replace("lr = 0.005", "lr = 10.0"))
    more = more_epochs(tmp_path / "run", 1, tmp_path / "new")
    assert more.details["best_step"] == first.details["best_step"]
    assert all(torch.equal(more.delta.values[name], value) for name, value in first.delta.values.items())
    assert any("its values are kept" in note for note in more.notes)


def test_what_cannot_go_on_is_refused(encoder, table, tmp_path):
    fit(encoder, read(table), "head", out=tmp_path / "head", **SETTINGS)
    with pytest.raises(InputError, match="solved for"):
        more_epochs(tmp_path / "head", 1)
    fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    table.write_text(table.read_text() + "a red cat runs,cat\n" * 20)
    with pytest.raises(InputError, match="have changed since the run"):
        more_epochs(tmp_path / "run", 1)
    with pytest.raises(InputError, match="no delta in"):
        more_epochs(tmp_path / "none", 1)


def test_other_options_beside_it_are_refused(command):
    code, _, err = command("fit", "runs/x", "--more-epochs", 2, "--lr", 1e-3)
    assert code == 2
    assert "leave out --lr" in err


class Killed(BaseException):
    pass


@contextmanager
def interrupted_before(step):
    """Ctrl-C is pressed in front of optimizer step `step` (from 0)."""
    train_step = Workbench.train_step

    def step_after_interrupt(bench, number):
        if number == step:
            signal.raise_signal(signal.SIGINT)
        return train_step(bench, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workbench, "train_step", step_after_interrupt)
        yield


def killed(*_):
    raise Killed


@pytest.mark.parametrize("moved", range(7))
def test_a_kill_while_the_new_part_takes_its_place_leaves_the_old_run(encoder, table, tmp_path, monkeypatch, moved):
    """As a killed process leaves it: nothing is cleaned up. The next try finds the old run and comes to the end."""
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    other = fit(encoder, read(table), out=tmp_path / "other", **SETTINGS | {"seed": 1})
    run, other_folder = tmp_path / "run", tmp_path / "other"

    def some(source, to):
        run_folder._move(run_folder._present(source)[::-1][:moved], source, to)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "_clear", lambda folder: None)
        patch.setattr(run_folder, "_put_back", lambda folder: None)
        with pytest.raises(Killed), run_folder.taking_place(run, overwrite=True):
            some(other_folder, run)
    (run / ".begun").touch()
    whole = not (other_folder / "delta.safetensors").exists()
    assert whole == (moved == 6)
    run_folder.settle(run)
    assert Delta.load(run).sha256 == (other if whole else first).delta.sha256
    assert not (run / ".begun").exists()
    assert not (run / ".replaced").exists()
    assert (run / "scores.json").exists()
    assert len(more_epochs(run, 1).history) == 3


def test_a_kill_before_the_new_part_takes_its_place_needs_no_more_than_another_try(
    encoder, table, tmp_path, monkeypatch
):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_record", killed)
        with pytest.raises(Killed):
            more_epochs(tmp_path / "run", 1)
    assert (tmp_path / "run/.more/delta.safetensors").exists()
    assert Delta.load(tmp_path / "run").sha256 == first.delta.sha256
    more = more_epochs(tmp_path / "run", 1, resume=True)
    assert [entry["epoch"] for entry in more.history] == [0, 1, 2]
    assert not (tmp_path / "run/.more").exists()


def test_an_interrupted_one_is_resumed_and_the_run_is_left_until_then(encoder, table, tmp_path):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    fit(encoder, read(table), out=tmp_path / "whole", **SETTINGS)
    with interrupted_before(3):
        stopped = more_epochs(tmp_path / "run", 2)
    assert (stopped.stopped, stopped.folder) == ("interrupted", tmp_path / "run/.more")
    assert Delta.load(tmp_path / "run").sha256 == first.delta.sha256
    with pytest.raises(InputError, match="--resume goes on with it"):
        more_epochs(tmp_path / "run", 2)
    more, whole = more_epochs(tmp_path / "run", 2, resume=True), more_epochs(tmp_path / "whole", 2)
    assert more.delta.sha256 == whole.delta.sha256
    assert [entry["step"] for entry in more.history] == [0, 5, 10, 15]


def test_an_interrupted_one_of_an_older_version_goes_on_as_it_began(encoder, table, tmp_path, monkeypatch, orders):
    """Its order of rows was that of the first epoch again."""
    fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    with monkeypatch.context() as patch, interrupted_before(3):
        patch.setattr(module, "_epochs_done", lambda *record: 0)
        more_epochs(tmp_path / "run", 2)
    more = more_epochs(tmp_path / "run", 2, resume=True)
    assert orders == [0, 1]
    assert more.details["steps"] == 15


def test_nothing_never_takes_the_place_of_a_run(encoder, table, tmp_path):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="has gone"), run_folder.taking_place(tmp_path / "run", overwrite=True):
        run_folder.move_run(tmp_path / "none", tmp_path / "run")
    assert Delta.load(tmp_path / "run").sha256 == first.delta.sha256


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        more_epochs(tmp_path, 1)
