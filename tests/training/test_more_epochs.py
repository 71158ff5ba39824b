"""A finished run that goes on: in its place, with both parts in its record, and never worse."""

import json
import tomllib

import pytest
import torch
from small import ANIMALS, make_task

from trimtab.errors import InputError
from trimtab.tasks.read import read
from trimtab.training.fit import fit
from trimtab.training.more_epochs import more_epochs

SETTINGS = {"epochs": 1, "batch_size": 8, "lr": 5e-3, "compute": "float32"}


@pytest.fixture
def table(tmp_path):
    rows = make_task(n_train=40).train
    lines = [f"{text},{ANIMALS[label]}" for text, label in zip(rows.texts[0], rows.labels, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path / "rows.csv"


def test_it_goes_on_in_its_place_and_its_record_shows_both_parts(encoder, table, tmp_path):
    first = fit(encoder, read(table), out=tmp_path / "run", **SETTINGS)
    again = fit(encoder, read(table), start_from=first, **SETTINGS | {"epochs": 2})
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
