"""Runs of delta formats 3 and 4: they load and predict as they did.

tests/fixtures/format3 holds a small BERT, three runs on it of before heads started as probes, and what their models answered to
a few texts then; format4 four runs on the same BERT, three of them by methods whose options are gone.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import trimtab
from trimtab.changes.contract import Addition
from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import load
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.results.recipe import Recipe
from trimtab.training.fit_recipe import fit_recipe

FORMATS = Path(__file__).parent.parent / "fixtures"
OLD, FORMAT4 = FORMATS / "format3", FORMATS / "format4"
EXPECTED = json.loads((OLD / "expected.json").read_text())
HEADS = {"norms": "default", "compact": "linear", "lora": "default"}


@pytest.mark.parametrize("name", HEADS)
def test_it_answers_as_it_did(name: str) -> None:
    encoder, delta = load(OLD / "encoder"), Delta.load(OLD / name)
    assert (delta.head, delta.pairs) == (HEADS[name], "together")
    model = delta.attach(encoder)
    inputs = encoder.tokenizer(EXPECTED["texts"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs).logits
    torch.testing.assert_close(found, torch.tensor(EXPECTED[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_predictions_are_of_the_same_model(name: str) -> None:
    encoder = load(OLD / "encoder")
    answers = trimtab.predict(OLD / name, EXPECTED["texts"], encoder)
    for answer, logits in zip(answers, EXPECTED[name], strict=True):
        if name == "lora":
            assert answer.value == pytest.approx(logits[0], abs=0.02)
        else:
            probabilities = torch.tensor(logits)
            probabilities = probabilities.softmax(0) if name == "norms" else probabilities.sigmoid()
            assert answer.probabilities is not None
            assert list(answer.probabilities.values()) == pytest.approx(probabilities.tolist(), abs=0.01)


@pytest.mark.parametrize("name", HEADS)
def test_its_recipe_keeps_its_head(name: str) -> None:
    settings = Recipe.load(OLD / name / "recipe.toml").settings
    assert settings.head == HEADS[name]


def test_it_is_written_anew_in_the_format_of_today(tmp_path: Path) -> None:
    shutil.copytree(OLD / "norms", tmp_path / "run")
    old = Delta.load(tmp_path / "run")
    old.save(tmp_path / "run")
    new = Delta.load(tmp_path / "run")
    assert all(torch.equal(new.values[name], value) for name, value in old.values.items())
    encoder = load(OLD / "encoder")
    ids = [torch.tensor(encoder.tokenizer(text)["input_ids"]).numpy() for text in EXPECTED["texts"]]
    torch.testing.assert_close(
        padded_logits(new.attach(encoder), ModelInputs(ids)), padded_logits(old.attach(encoder), ModelInputs(ids))
    )


EXPECTED4 = json.loads((FORMAT4 / "expected.json").read_text())
METHODS4 = {
    "lora": "layer_norms+lora:rank=2,alpha=4.0,targets=query",
    "grouped": "fisher_top:share=0.2,granularity=vector,per=layer,within=(layer_norms+biases)",
    "gain": "moved_top:count=20,steps=3,by=gain",
    "given": "fisher_top:count=12,given=head",
}


@pytest.mark.parametrize("name", METHODS4)
def test_a_run_of_format_4_answers_as_it_did(name: str, tmp_path: Path) -> None:
    encoder, delta = load(OLD / "encoder"), Delta.load(FORMAT4 / name)
    assert delta.method == METHODS4[name]
    lora = [Addition("lora", {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "query"})]
    assert list(delta.additions) == (lora if name == "lora" else [])
    inputs = encoder.tokenizer(EXPECTED4["texts"], padding=True, return_tensors="pt")
    delta.save(tmp_path)  # in the format of today
    for each in (delta, Delta.load(tmp_path)):
        with torch.no_grad():
            found = each.attach(encoder)(**inputs).logits
        torch.testing.assert_close(found, torch.tensor(EXPECTED4[name]), rtol=1e-5, atol=1e-6)
    again = Delta.load(tmp_path)
    assert again.sha256 == delta.sha256
    assert all(torch.equal(again.values[name], value) for name, value in delta.values.items())


@pytest.mark.parametrize("name", METHODS4)
def test_a_run_of_format_4_predicts_and_merges_whatever_its_method(name: str, tmp_path: Path) -> None:
    encoder, texts = load(OLD / "encoder"), EXPECTED4["texts"]
    answers = trimtab.predict(FORMAT4 / name, texts, encoder)
    for answer, logits in zip(answers, EXPECTED4[name], strict=True):
        if answer.probabilities is None:
            assert answer.value == pytest.approx(logits[0], abs=0.02)
        else:
            row = torch.tensor(logits)
            likely = row.sigmoid() if name == "grouped" else row.softmax(0)
            assert list(answer.probabilities.values()) == pytest.approx(likely.tolist(), abs=0.01)
    with torch.no_grad():
        inputs = encoder.tokenizer(texts, padding=True, return_tensors="pt")
        merged = trimtab.merge(encoder, FORMAT4 / name)(**inputs).logits
    torch.testing.assert_close(merged, torch.tensor(EXPECTED4[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS4)
def test_a_recipe_of_format_4_is_read(name: str) -> None:
    assert Recipe.load(FORMAT4 / name / "recipe.toml").method == METHODS4[name]


def test_a_method_whose_options_are_gone_is_refused_where_its_recipe_is_run(tmp_path: Path) -> None:
    recipe = Recipe.load(FORMAT4 / "gain" / "recipe.toml")
    with pytest.raises(InputError, match="moved_top:by=gain was removed"):
        fit_recipe(recipe, tmp_path / "run")


def test_a_delta_that_adds_what_nobody_knows_says_so() -> None:
    delta = dataclasses.replace(Delta.load(FORMAT4 / "lora"), additions=(Addition("lorra", {}),))
    with pytest.raises(InputError, match="adds 'lorra' to the encoder, which this version does not know"):
        delta.attach(load(OLD / "encoder"))
