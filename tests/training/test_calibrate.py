"""A run whose probabilities are calibrated: every reader of its delta has them, and no class has changed."""

import json
from pathlib import Path

import pytest
import torch
from small import FAMILIES, make_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.exports.forms import export
from trimtab.inference.predictor import Predictor
from trimtab.pages.run_page import report
from trimtab.results.recipe import Recipe, Settings
from trimtab.serving.pool import Pool
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import scores
from trimtab.training.fit import fit

SURE = {
    "epochs": 3,
    "lr": 3e-3,
    "batch_size": 16,
    "dropout": 0.0,
    "head_start": "random",
    "seed": 1,
    "compute": "float32",
}


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize("head", ["default", "linear"])
def test_every_reader_has_them(kind: str, head: str, encoder: Encoder, tmp_path: Path) -> None:
    task = make_task(kind, 96, 80)
    run = fit(encoder, task, "full", out=tmp_path / "run", head=head, **SURE)
    plain = fit(encoder, task, "full", calibrate=False, head=head, **SURE)
    found = run.details["calibration"]
    assert found["fitted"]
    assert found["temperature"] != 1
    assert run.delta.notes["temperature"] == found["temperature"]
    assert run.logits is not None
    assert plain.logits is not None
    assert torch.allclose(run.logits * found["temperature"], plain.logits, atol=1e-5)
    # The classes are the same, and so is every score that is of classes; the log-loss is lower.
    for name in ("accuracy", "f1_macro"):
        assert run.scores[name] == plain.scores[name]
    assert found["before"]["loss"] == pytest.approx(plain.scores["loss"])
    assert run.scores["loss"] == found["after"]["loss"] < plain.scores["loss"]
    # Whoever reads the folder has the same probabilities: a predictor, a pool, a page.
    predictor = Predictor(tmp_path / "run", encoder)
    assert torch.allclose(predictor.logits(task.validation), run.logits, atol=0.02)  # in bfloat16, or not
    assert predictor.scored(task.validation)[0]["loss"] == pytest.approx(run.scores["loss"], rel=5e-3)
    said = Pool(encoder, {"animals": tmp_path / "run"}).predict([("animals", task.validation.texts[0][0])])[0]
    ours = predictor.predictions(task.validation.take([0]))[0]
    assert said.label == ours.label
    assert said.probabilities == pytest.approx(ours.probabilities, abs=5e-3)
    page = report(tmp_path / "run").read_text()
    assert "Reliability" in page
    assert f"temperature of {found['temperature']:.3g}" in page
    assert any("temperature" in note and "log-loss" in note for note in run.notes)


def test_any_program_has_them_in_a_merged_folder(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task("single_label", 96, 80)
    run = fit(encoder, task, "full", out=tmp_path / "run", head="default", **SURE)
    assert run.details["calibration"]["temperature"] != 1
    folder = export(tmp_path / "run", out=tmp_path / "merged", encoder=encoder)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        theirs = model.eval()(**tokenizer(task.validation.texts[0], padding=True, return_tensors="pt")).logits
    found = scores(task, theirs, label_tensor(task, task.validation))
    assert found == pytest.approx(run.scores, rel=1e-3, abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*padding-free batches")
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_of_all_families_can_be_divided(family: str, encoder_of, tmp_path: Path) -> None:
    run = fit(encoder_of(family), make_task("single_label", 64, 60), "head", head="default", epochs=2, head_lr=0.05)
    assert run.details["calibration"]["fitted"]


def test_a_head_that_does_not_end_in_a_map_is_left_as_it_is(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.training import calibrate

    task = make_task("single_label", 96, 80)
    plain = fit(encoder, task, "full", calibrate=False, **SURE)
    monkeypatch.setattr(calibrate, "last_map", lambda model: None)
    run = fit(encoder, task, "full", **SURE)
    assert not run.details["calibration"]["fitted"]
    assert all(torch.equal(value, plain.delta.values[name]) for name, value in run.delta.values.items())
    assert any("not calibrated" in note for note in run.notes)


def test_a_map_in_the_middle_is_put_back(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.training import calibrate

    task = make_task("single_label", 96, 80)
    plain = fit(encoder, task, "full", calibrate=False, head="default", **SURE)
    # The pooler's, behind which there is a tanh.
    monkeypatch.setattr(calibrate, "last_map", lambda model: ("bert.pooler.dense", model.bert.pooler.dense))
    run = fit(encoder, task, "full", head="default", **SURE)
    assert not run.details["calibration"]["fitted"]
    assert all(torch.equal(value, plain.delta.values[name]) for name, value in run.delta.values.items())


def test_few_rows_have_none_and_asking_for_one_is_an_error(encoder: Encoder, tmp_path: Path) -> None:
    few = fit(encoder, make_task(n_validation=49), "head", out=tmp_path / "few", epochs=1)
    assert few.details["calibration"]["fitted"] is False
    assert "Reliability" in report(tmp_path / "few").read_text()
    with pytest.raises(InputError, match="needs 50 validation rows"):
        fit(encoder, make_task(n_validation=49), "head", epochs=1, calibrate=True)
    with pytest.raises(InputError, match="regression"):
        fit(encoder, make_task("regression", n_validation=60), "head", epochs=1, calibrate=True)
    number = fit(encoder, make_task("regression", n_validation=60), "head", out=tmp_path / "number", epochs=1)
    assert number.details["calibration"] is None
    assert "Reliability" not in report(tmp_path / "number").read_text()


def test_a_run_that_starts_from_it_begins_with_its_probabilities(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task("single_label", 96, 80)
    first = fit(encoder, task, "full", out=tmp_path / "run", **SURE)
    again = fit(encoder, task, start_from=tmp_path / "run", epochs=1, lr=1e-9, head_lr=1e-9)
    assert again.baseline["loss"] == pytest.approx(first.scores["loss"], rel=1e-4)
    assert again.details["calibration"]["temperature"] == pytest.approx(1.0, abs=0.011)


def test_a_record_of_an_older_version_has_none(encoder: Encoder, tmp_path: Path) -> None:
    fit(encoder, make_task(n_validation=60), "head", out=tmp_path / "run", epochs=1)
    file = tmp_path / "run" / "scores.json"
    said = json.loads(file.read_text())
    del said["calibration"]
    file.write_text(json.dumps(said))
    assert "Reliability" not in report(tmp_path / "run").read_text()


def test_settings_say_so_only_where_they_were_asked() -> None:
    assert "calibrate" not in Settings().deciding()
    assert Settings(calibrate=False).deciding()["calibrate"] is False


def test_a_recipe_keeps_it(encoder: Encoder, tmp_path: Path) -> None:
    fit(encoder, make_task(n_validation=60), "head", out=tmp_path / "run", epochs=1, calibrate=False)
    assert Recipe.load(tmp_path / "run" / "recipe.toml").settings.calibrate is False
    assert "temperature" not in Delta.load(tmp_path / "run").notes
