"""Judging a run by its own task, read again: the same rows, or a refusal."""

from pathlib import Path

import pytest
from small import ANIMALS, first_animal, sentences, write_csv

from trimtab.changes.methods import Head
from trimtab.errors import InputError
from trimtab.tasks.read import read
from trimtab.training.fit import fit
from trimtab.training.recipe import Recipe
from trimtab.training.repeat import fit_recipe
from trimtab.training.use import evaluate


def rows(count: int, seed: int = 3) -> list[dict]:
    return [{"text": text, "label": ANIMALS[first_animal(text)]} for text in sentences(count, seed)]


@pytest.fixture
def table(tmp_path) -> Path:
    return write_csv(tmp_path / "animals.csv", rows(60))


@pytest.mark.parametrize(("share", "seed", "n_held"), [(0.1, 0, 6), (0.3, 5, 18)])
def test_the_same_rows_are_held_out_again(share, seed, n_held, table, encoder, tmp_path):
    run = fit(encoder, read(table, validation_share=share, seed=seed), Head(), epochs=1, out=tmp_path / "run")
    found = evaluate(tmp_path / "run", encoder=encoder)
    assert (found["split"], found["rows"]) == ("validation", n_held)
    assert found["scores"]["loss"] == pytest.approx(run.scores["loss"], abs=1e-3)
    recipe = Recipe.load(tmp_path / "run" / "recipe.toml")
    assert (recipe.validation_share, recipe.split_seed) == (share, seed)
    assert fit_recipe(recipe, tmp_path / "again").scores == run.scores


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (rows(60) + [{"text": "a small bird", "label": "bird"}] * 9, "other classes"),
        ([row | {"label": row["label"].replace("cat", "lion")} for row in rows(60)], "other classes"),
        (rows(60) + rows(30, seed=9), "some of which it may have been trained on"),
    ],
    ids=["a class more", "a class renamed", "rows more"],
)
def test_data_that_changed_since_is_not_scored(changed, message, table, encoder, tmp_path):
    fit(encoder, read(table), Head(), epochs=1, out=tmp_path / "run")
    write_csv(table, changed)
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "run", encoder=encoder)
    evaluated = write_csv(tmp_path / "others.csv", rows(20, seed=11))
    assert evaluate(tmp_path / "run", str(evaluated), encoder=encoder)["rows"] == 20
