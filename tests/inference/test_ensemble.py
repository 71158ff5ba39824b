"""Several runs as one: the mean of their probabilities, and what cannot be averaged."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import make_encoder_folder, make_task, write_csv

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.inference.ensemble import averaged, task_of
from trimtab.inference.predictor import Predictor, predict
from trimtab.tasks.decision_rule import DecisionRule
from trimtab.tasks.metrics import probabilities
from trimtab.training.fit import fit

KINDS = ["single_label", "multi_label", "regression"]
FAST = {"epochs": 1, "head_lr": 0.05, "head_start": "random"}


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_averaged(kind: str) -> None:
    members = [torch.randn(7, 3, generator=torch.Generator().manual_seed(i)) * 20 for i in range(4)]
    expected = torch.stack([probabilities(kind, each.double()) for each in members]).mean(0)
    assert torch.allclose(probabilities(kind, averaged(kind, members)), expected.float(), atol=1e-6)
    assert torch.isfinite(averaged(kind, [each * 40 for each in members])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_of_runs(kind: str, encoder: Encoder, tmp_path: Path) -> None:
    task = make_task(kind)
    runs = [fit(encoder, task, "full", seed=seed, out=tmp_path / str(seed), **FAST) for seed in range(3)]
    folders, texts = [tmp_path / str(seed) for seed in range(3)], task.validation.texts[0][:9]
    alone = [Predictor(folder, encoder).predictions(task.validation) for folder in folders]
    together = Predictor(folders, encoder)
    found = together.predictions(task.validation)
    for i, each in enumerate(found):
        if kind == "regression":
            assert each.value == pytest.approx(np.mean([one[i].value for one in alone]), abs=1e-4)
        else:
            assert each.probabilities is not None
            means = {name: np.mean([one[i].probabilities[name] for one in alone]) for name in task.classes}
            assert each.probabilities == pytest.approx(means, abs=1e-4)
    assert predict([run.delta for run in runs], texts, encoder) == predict(together, texts)
    assert pickle.loads(pickle.dumps(together)).predictions(task.validation) == found
    assert together.scored(task.validation)[0].keys() == runs[0].scores.keys()
    one = Predictor([folders[0]], encoder)
    assert one.predictions(task.validation) == alone[0]


def test_each_reads_as_many_tokens_as_it_did(encoder: Encoder) -> None:
    task = make_task()
    runs = [fit(encoder, task, "full", seed=seed, max_length=length, **FAST) for seed, length in ((0, 4), (1, 40))]
    own = [Predictor(run, encoder).logits(task.validation) for run in runs]
    assert torch.allclose(Predictor(runs, encoder).logits(task.validation), averaged("single_label", own), atol=1e-5)


def test_rules_are_averaged_and_no_promise_is_made_for_others() -> None:
    task = make_task("multi_label")
    rules = [DecisionRule(0.5, False, (0.2, 0.4, 0.6)), DecisionRule(0.3)]
    found = task_of([replace(task, decision_rule=rule) for rule in rules]).decision_rule
    assert found.thresholds == pytest.approx((0.25, 0.35, 0.45))
    unsure = [DecisionRule(abstain_below=below) for below in (0.7, 0.9, None)]
    tasks = [replace(make_task(), decision_rule=rule) for rule in unsure]
    assert task_of(tasks[:2]).decision_rule.abstain_below == pytest.approx(0.8)
    assert task_of(tasks).decision_rule.abstain_below is None
    assert task_of(tasks[:1]) is tasks[0]


def test_what_is_not_of_one_task_and_encoder_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    first = fit(encoder, make_task(), "head", epochs=1).delta
    others = {
        "classes": fit(encoder, replace(make_task(), classes=("x", "y", "z")), "head", epochs=1).delta,
        "kind": fit(encoder, make_task("multi_label"), "head", epochs=1).delta,
        "number of texts": fit(encoder, make_task(pairs=True), "head", epochs=1, pairs="together").delta,
    }
    for what, other in others.items():
        with pytest.raises(InputError, match=f"run 2 and run 1 differ in their {what}"):
            Predictor([first, other], encoder)
    elsewhere = load(make_encoder_folder("bert", tmp_path / "other", seed=5))
    with pytest.raises(InputError, match="an ensemble has one encoder"):
        Predictor([first, fit(elsewhere, make_task(), "head", epochs=1).delta], encoder)
    with pytest.raises(InputError, match="no runs"):
        Predictor([])


def test_the_commands(command, encoder: Encoder, tmp_path: Path) -> None:
    task = make_task()
    rows = [
        {"text": text, "label": task.classes[label]}
        for rows in (task.train, task.validation)
        for text, label in zip(rows.texts[0], rows.labels, strict=True)
    ]
    table = write_csv(tmp_path / "animals.csv", rows)
    asked = ("fit", encoder.folder, table, "--method", "head", "--epochs", 1, "--ensemble", 2, "--seed", 3)
    code, out, err = command(*asked, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    folders = [tmp_path / "run-seed3", tmp_path / "run-seed4"]
    assert found["runs"] == [str(folder) for folder in folders]
    assert found["mean"] == pytest.approx(np.mean(found["each"]))
    assert "standard deviation" in err
    assert "together" in err
    assert all((folder / "report.html").exists() for folder in folders)
    code, out, err = command("predict", *folders, "--text", "a cat runs", "--encoder", encoder.folder)
    assert code == 0, err
    both = [Predictor(folder, encoder).delta for folder in folders]
    assert json.loads(out)["probabilities"] == pytest.approx(
        predict(both, ["a cat runs"], encoder)[0].probabilities, abs=1e-4
    )
    # Finished ones stay as they are.
    before = [Delta.load(folder).sha256 for folder in folders]
    code, _, err = command(*asked, "--out", tmp_path / "run", "--resume")
    assert code == 0, err
    assert [Delta.load(folder).sha256 for folder in folders] == before
    assert command(*asked, "--out", tmp_path / "run")[0] == 2
    code, _, err = command("predict", folders[0], "http://127.0.0.1:1/x", "--text", "a")
    assert (code, "is a URL" in err) == (2, True)
