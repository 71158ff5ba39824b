"""A run with thresholds of its own, and one that answers only what it is sure of: in its delta, scores, page and every reader."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small import make_task, write_csv

from trimtab.changes.delta import Delta
from trimtab.changes.delta_checks import check_description
from trimtab.changes.delta_header import FORMAT, WITH_RULES, header_of
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.exports.onnx_folder import about_task
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predict_file import predict_file
from trimtab.inference.predictor import Predictor
from trimtab.pages.run_page import report
from trimtab.results.recipe import Recipe, Settings
from trimtab.serving.app import _as_json
from trimtab.serving.pool import Pool
from trimtab.serving.schemas import SingleLabel
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import decided, probabilities, scores
from trimtab.tasks.task import Task
from trimtab.training.fit import fit

FAST = {
    "epochs": 3, "lr": 3e-3, "batch_size": 16, "dropout": 0.0, "compute": "float32", "head_start": "random", "seed": 1
}  # fmt: skip


def test_thresholds_of_classes_go_everywhere(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task("multi_label", 96, 200)
    # Few steps: probabilities are those of how often a class occurs.
    run = fit(encoder, task, "full", out=tmp_path / "run", thresholds="f1", **FAST)
    rule = Task.from_description(run.delta.task).decision_rule
    assert rule.thresholds is not None
    assert len(rule.thresholds) == 3
    assert header_of(tmp_path / "run")["format"] == WITH_RULES
    predictor = Predictor(tmp_path / "run", encoder)
    assert predictor.task.decision_rule == rule
    for each in predictor.predictions(task.validation):
        assert each.probabilities is not None
        over = zip(each.probabilities.items(), rule.thresholds, strict=True)
        assert each.label == tuple(name for (name, p), least in over if np.float32(p) >= np.float32(least))
    # What is told is of rows that the thresholds were not chosen on: less than the same rows have at them.
    assert run.logits is not None
    truth = label_tensor(task, task.validation)
    flattered = scores(Task.from_description(run.delta.task), run.logits, truth)
    assert run.scores["f1_macro"] < flattered["f1_macro"]
    assert run.scores["loss"] == flattered["loss"]
    interval = run.details["interval"]
    assert interval["low"] < run.scores["f1_macro"] < interval["high"]
    assert any("thresholds of their own" in note for note in run.notes)
    assert "probability of its own" in (tmp_path / "run" / "README.md").read_text()
    assert Recipe.load(tmp_path / "run" / "recipe.toml").settings.thresholds == "f1"
    assert about_task(run.delta)["thresholds"] == list(rule.thresholds)


def test_a_run_that_is_sure_answers(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task("single_label", 96, 160)
    run = fit(encoder, task, "full", out=tmp_path / "run", abstain="30%", **FAST)
    told = run.details["abstention"]
    assert told["asked"] == 0.3
    assert 0 < told["answered"] < 160  # or nothing is tested below
    assert told["wrong"] / told["answered"] <= 0.3
    predictor = Predictor(tmp_path / "run", encoder)
    found = predictor.predictions(task.validation)
    names = [task.classes[label] for label in task.validation.labels]
    answered = [(each.label, name) for each, name in zip(found, names, strict=True) if each.label is not None]
    assert abs(len(answered) - told["answered"]) <= 2  # by rounding
    assert all(each.label is None or each.best_guess is None for each in found)
    # Scores are of all rows, by their best guess.
    assert run.scores["accuracy"] == pytest.approx(
        np.mean([e.guess == n for e, n in zip(found, names, strict=True)]), abs=0.02
    )
    page = report(tmp_path / "run").read_text()
    assert "Error by share answered" in page
    assert "have no answer" in page
    scored = evaluate(tmp_path / "run", task, "validation", encoder)
    assert scored["scores"]["accuracy"] == pytest.approx(run.scores["accuracy"], abs=0.02)
    assert any("have an answer" in note and "of them wrong" in note for note in scored["notes"])
    assert "calibrated (temperature" in (tmp_path / "run" / "README.md").read_text()
    _check_files_and_servers(tmp_path, encoder, task, found)


def _check_files_and_servers(folder: Path, encoder: Encoder, task: Task, found: list) -> None:
    """A file has an empty label and the best guess, and a server null and the best guess."""
    texts = task.validation.texts[0]
    predict_file(
        Predictor(folder / "run", encoder),
        write_csv(folder / "in.csv", [{"text": text} for text in texts]),
        folder / "out.csv",
    )
    with (folder / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted_label"] for row in rows] == [each.label or "" for each in found]
    assert [row["best_guess"] for row in rows] == [each.guess for each in found]
    unsure = next(i for i, each in enumerate(found) if each.label is None)
    pool = Pool(encoder, {"animals": folder / "run"})
    said = pool.predict([("animals", texts[unsure])])[0]
    assert (said.label, said.best_guess, said.task) == (None, found[unsure].best_guess, "animals")
    only = _as_json(said, 0, probabilities=False)
    assert SingleLabel.model_validate(only).label is None
    assert (only["label"], only["best_guess"]) == (None, found[unsure].best_guess)
    assert only["score"] == pytest.approx(max(found[unsure].probabilities.values()), abs=5e-3)


def test_two_classes_have_a_threshold_of_the_positive_one(encoder: Encoder, tmp_path: Path) -> None:
    whole = make_task("single_label", 96, 200)
    # One in three rows has the class: at one half it is hardly ever said.
    splits = {
        name: type(rows)(rows.texts, [int(label == 0) for label in rows.labels]) for name, rows in whole.splits.items()
    }
    task = Task("cats", "single_label", ("other", "cat"), ("text",), "label", "f1", splits, source="cats")
    run = fit(encoder, task, "full", out=tmp_path / "run", thresholds="f1", **FAST)
    described = Delta.load(tmp_path / "run").task
    assert described["threshold"] != 0.5
    assert header_of(tmp_path / "run")["format"] == WITH_RULES
    assert run.logits is not None
    rebuilt = Task.from_description(described)
    likely = probabilities("single_label", run.logits).numpy()
    assert (decided(rebuilt, likely) == (likely[:, 1] >= described["threshold"])).all()
    assert run.scores["f1"] > run.baseline["f1"] or run.baseline["f1"] > 0
    assert any("threshold of 'cat'" in note for note in run.notes)


def test_what_is_asked_too_much_is_refused_before_training(encoder: Encoder) -> None:
    for settings, said in (
        ({"abstain": "3%"}, "needs 76 validation rows"),
        ({"abstain": 1.5}, "above 0% and below 100%"),
        ({"thresholds": "f1"}, "multi_label tasks and for two classes"),
        ({"thresholds": "f2"}, "must be f1"),
        ({"thresholds": "f1", "threshold": 0.3}, "do not go together"),
        ({"thresholds": "f1", "abstain": 0.1}, "do not go together"),
    ):
        with pytest.raises(InputError, match=said):
            fit(encoder, make_task(n_validation=60), "head", epochs=1, **settings)
    with pytest.raises(InputError, match="need 50 validation rows"):
        fit(encoder, make_task("multi_label", n_validation=40), "head", epochs=1, thresholds="f1")


def test_plain_runs_are_files_that_older_versions_read(encoder: Encoder, tmp_path: Path) -> None:
    fit(encoder, make_task(n_validation=60), "head", out=tmp_path / "run", epochs=1)
    described = header_of(tmp_path / "run")
    assert described["format"] == FORMAT == 5
    assert not {"thresholds", "abstain_below", "threshold"} & described["task"].keys()
    assert not {"thresholds", "abstain"} & {*Settings().deciding()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"thresholds": [0.1, 0.2]}, "thresholds has 2"),
        ({"thresholds": [0.1, 0.2, "0.3"]}, "must be a list of numbers"),
        ({"thresholds": 0.5}, "must be a list of numbers"),
        ({"thresholds": [0.1, 0.2, 1.5]}, "must be a list of numbers"),
        ({"abstain_below": 0.5}, "abstain_below is of single_label"),
        ({"abstain_below": -1}, "between 0 and 2"),
        ({"abstain_below": "0.5"}, "between 0 and 2"),
    ],
)
def test_forged_rules_are_refused(changed: dict, said: str, encoder: Encoder, tmp_path: Path) -> None:
    fit(encoder, make_task("multi_label"), "head", out=tmp_path / "run", epochs=1)
    described = header_of(tmp_path / "run")
    described["task"] |= changed
    with pytest.raises(ValueError, match=said):
        check_description(json.loads(json.dumps(described)))
