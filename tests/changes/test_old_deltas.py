"""Runs of delta format 3, written before heads started as probes: they load and predict as they did.

tests/fixtures/format3 holds a small BERT, three runs on it, and what their models answered then to a few texts.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import trimtab
from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import load
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine.padded import padded_logits
from trimtab.results.recipe import Recipe

OLD = Path(__file__).parent.parent / "fixtures" / "format3"
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
