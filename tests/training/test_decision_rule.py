"""A run keeps the threshold of its task: in the delta, the recipe, the card and every answer."""

from pathlib import Path

import pytest
from small import make_task

from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predictor import Predictor
from trimtab.pages.run_page import report
from trimtab.results.recipe import Recipe, Settings
from trimtab.tasks.decision_rule import USUAL, DecisionRule
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import scores
from trimtab.tasks.task import Task
from trimtab.training.fit import fit

ASKED = {"epochs": 1, "threshold": 0.2, "at_least_one": True}


def test_a_run_answers_as_it_was_told(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task("multi_label")
    run = fit(encoder, task, "head", out=tmp_path / "run", **ASKED)
    predictor = Predictor(tmp_path / "run", encoder)
    assert predictor.task.decision_rule == DecisionRule(0.2, True)
    found = predictor.predictions(task.validation)
    for answer in found:
        assert answer.probabilities is not None
        likely = answer.probabilities
        over = tuple(name for name, p in likely.items() if p >= 0.2)
        assert answer.label == (over or (max(likely, key=likely.__getitem__),))
    assert predictor.scored(task.validation)[0] == pytest.approx(run.scores, rel=1e-5)
    scored = evaluate(tmp_path / "run", task, "validation", encoder)
    assert scored["scores"]["f1_macro"] == pytest.approx(run.scores["f1_macro"])
    line = "from a probability of 0.2 on, and the most probable class"
    assert line in (tmp_path / "run" / "README.md").read_text()
    assert any(line in note for note in scored["notes"])
    assert line in report(tmp_path / "run").read_text()
    settings = Recipe.load(tmp_path / "run" / "recipe.toml").settings
    assert (settings.threshold, settings.at_least_one) == (0.2, True)


def test_the_scores_of_a_chosen_one_are_those_at_it(encoder: Encoder, tmp_path: Path) -> None:
    # Far fewer steps than it takes: all probabilities are those of how often a class occurs, below one half.
    run = fit(
        encoder, make_task("multi_label", 96, 200), "layer_norms", out=tmp_path / "run",
        epochs=1, threshold="auto", seed=1, lr=1e-6, head_lr=1e-6,
    )  # fmt: skip
    task = Task.from_description(run.delta.task)
    truth = label_tensor(task, make_task("multi_label", 96, 200).validation)
    assert run.logits is not None
    assert run.scores == scores(task, run.logits, truth)
    at_best = next(entry["scores"] for entry in run.history if entry["step"] == run.details["best_step"])
    assert (task.decision_rule != USUAL) == (run.scores["f1_macro"] > at_best["f1_macro"])
    assert any("threshold" in note for note in run.notes)
    assert Recipe.load(tmp_path / "run" / "recipe.toml").settings.threshold == "auto"


def test_other_kinds_are_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="multi_label"):
        fit(encoder, make_task(), "head", threshold="auto")
    with pytest.raises(InputError, match="multi_label"):
        fit(encoder, make_task("regression"), "head", at_least_one=True)


def test_settings_that_say_nothing_are_those_of_older_versions() -> None:
    assert not {"threshold", "at_least_one"} & {*Settings().deciding()}
    assert Settings(threshold=0.5, at_least_one=True).deciding().items() >= {("threshold", 0.5), ("at_least_one", True)}
