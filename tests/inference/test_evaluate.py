"""Judging a run by its own task, read again: the same rows, or a refusal."""

import csv
import dataclasses
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi
from small import ANIMALS, first_animal, sentences, write_csv

from trimtab.changes.methods import Head
from trimtab.errors import InputError
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predict_file import predict_file
from trimtab.inference.predictor import Predictor, predict
from trimtab.results.recipe import Recipe
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.fit import fit
from trimtab.training.fit_recipe import fit_recipe


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


def test_label_columns_whose_names_hold_commas_are_found_again(encoder, tmp_path):
    table = [
        {"text": text, "rude, very": number % 2, "urgent": number % 3 // 2}
        for number, text in enumerate(sentences(60, 3))
    ]
    path = write_csv(tmp_path / "several.csv", table)
    run = fit(encoder, read(path, label=["rude, very", "urgent"]), Head(), epochs=1, out=tmp_path / "run")
    found = evaluate(tmp_path / "run", encoder=encoder)
    assert found["scores"]["loss"] == pytest.approx(run.scores["loss"], abs=1e-3)


def test_a_hub_data_set_with_a_dot_in_its_name_is_read_again(encoder, tmp_path, monkeypatch):
    def load_dataset(*_):
        split = datasets.Dataset.from_list(rows(30))
        return datasets.DatasetDict({"train": split, "validation": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: None)
    fit(encoder, read("someone/reviews-v1.5"), Head(), epochs=1, out=tmp_path / "run")
    assert evaluate(tmp_path / "run", encoder=encoder)["rows"] == 30


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


def test_rows_that_were_trained_on_are_counted(table, encoder, tmp_path):
    def seen(*source: str) -> list[str]:
        notes = evaluate(tmp_path / "run", *source, encoder=encoder)["notes"]
        return [note for note in notes if "in the run's own training split too" in note]

    fit(encoder, read(table), Head(), epochs=1, out=tmp_path / "run")
    assert not seen()  # the rows held out
    (note,) = seen(str(table))
    assert "54 of 60 rows" in note
    others = write_csv(tmp_path / "others.csv", [{"text": f"number {i}", "label": "cat"} for i in range(20)])
    assert not seen(str(others))
    write_csv(table, rows(60) + rows(30, seed=9))  # what the run was trained on is not known any more
    assert not seen(str(table))


def test_a_run_on_a_table_in_memory_is_scored_on_what_is_given(encoder, tmp_path):
    run = fit(encoder, read(rows(60)), Head(), epochs=1, out=tmp_path / "run")
    with pytest.raises(InputError, match="own data was a table in memory: name the file, or give the table"):
        evaluate(run, encoder=encoder)
    assert "Trained on a table in memory with" in (tmp_path / "run" / "README.md").read_text()
    found = evaluate(run, rows(20, seed=11), encoder=encoder)
    of_file = evaluate(run, str(write_csv(tmp_path / "others.csv", rows(20, seed=11))), encoder=encoder)
    assert found["scores"] == of_file["scores"]


def test_the_runs_own_data_are_found_by_its_recipe_from_another_folder(table, encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(encoder, read(table.name, validation=table.name), Head(), epochs=1, out="run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = evaluate("../run", encoder=encoder)
    assert found["rows"] == 60
    assert found["scores"]["loss"] == pytest.approx(run.scores["loss"], abs=1e-3)


@pytest.mark.parametrize("blank", ["", " \n", "\u200b", "\x00\ufeff"])
def test_a_text_of_which_nothing_can_be_seen_has_no_prediction(blank, table, encoder, tmp_path):
    run = fit(encoder, read(table), Head(), epochs=1, out=tmp_path / "run")
    with pytest.raises(InputError, match="text 2 is empty"):
        predict(run, ["a cat", blank], encoder)


def test_a_task_that_was_described_before_readings_were_noted_is_read_as_then(table):
    task = read(table, skip_bad_rows=True)
    older = {name: value for name, value in task.description().items() if name not in NEW_FIELDS}
    assert Task.from_description(older).reading == task.reading
    new = read(table, missing_label="cat", label_separator=",", encoding="latin-1", validation=table)
    assert Task.from_description(new.description()).reading == new.reading
    assert set(new.description()) >= NEW_FIELDS


NEW_FIELDS = {"missing_label", "label_separator", "encoding", "header", "validation"}


SIGN = "\u00a4"  # a sign that can be seen, and of which the tokenizer below leaves nothing


@pytest.fixture
def dropping(encoder):
    """The encoder with a tokenizer that drops such signs."""
    from copy import deepcopy

    from tokenizers import normalizers

    tokenizer = deepcopy(encoder.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(SIGN, "")
    return dataclasses.replace(encoder, tokenizer=tokenizer)


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_an_empty_text(dropping, tmp_path):
    path = write_csv(tmp_path / "t.csv", [*rows(60), {"text": SIGN, "label": "cat"}])
    with pytest.raises(InputError, match="1 row of which the tokenizer leaves nothing, as of an empty text"):
        fit(dropping, read(path, validation=path), Head(), epochs=1)
    task = read(path, validation=path, skip_bad_rows=True)
    run = fit(dropping, task, Head(), epochs=1, out=tmp_path / "run")
    assert len(run.logits) == 60
    assert any("left out of train: 1 row of which" in line for line in run.details["survey"])
    predictor = Predictor(run, dropping)
    with pytest.raises(InputError, match="text 2 is empty: the encoder's tokenizer leaves nothing of it"):
        predict(predictor, ["a cat", SIGN])
    texts = write_csv(tmp_path / "texts.csv", [{"text": "a cat"}, {"text": SIGN}, {"text": "zebra dog"}])
    counts = predict_file(predictor, texts, tmp_path / "out.csv")
    assert (counts.rows, counts.unanswered, counts.tokens, counts.unknown) == (3, 1, 4, 1)
    assert "texts.csv: 1 of 4 tokens (25.0%), in 1 of 3 rows, are unknown to the encoder" in counts.odd(60)
    with (tmp_path / "out.csv").open() as file:
        assert [row["not_predicted"] for row in csv.DictReader(file)] == ["", "empty text", ""]
