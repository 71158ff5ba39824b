"""Where a task comes from, as one value: from it the same task is read, by whichever way it went."""

import dataclasses
import json
from pathlib import Path

import pytest

from trimtab.errors import InputError
from trimtab.results.recipe import Recipe
from trimtab.tasks.read import read, read_again
from trimtab.tasks.reading import Origin, Reading
from trimtab.tasks.task import Task

ODD = {
    "text": "column_2", "label": "column_1", "kind": "single_label", "metric": "f1", "skip_bad_rows": True,
    "missing_label": "?", "encoding": "latin-1", "header": False, "positive": "dog",
}  # fmt: skip


@pytest.fixture
def table(tmp_path) -> Path:
    """Rows that say nothing of themselves: no header, another encoding, a mark for no label, a row without a text."""
    rows = [f"{'dog' if i % 3 else 'cat'};caf\u00e9 {i}" for i in range(40)]
    path = tmp_path / "odd.csv"
    path.write_bytes("\n".join([*rows, "?;nothing", "cat; "]).encode("latin-1"))
    return path


@pytest.mark.parametrize("validation", ["share", "file"])
def test_a_task_is_read_again_from_its_origin_its_description_and_its_recipe(table, tmp_path, validation):
    (tmp_path / "beside.csv").write_bytes(table.read_bytes())
    how = {"validation": tmp_path / "beside.csv"} if validation == "file" else {"validation_share": 0.25, "seed": 3}
    task = read(table, **ODD, **how)
    described = Task.from_description(json.loads(json.dumps(task.description())))
    Recipe.of_task(task).save(tmp_path / "recipe.toml")
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert described.origin == task.origin
    for origin in (task.origin, described.origin, recipe):
        again = read_again(origin)
        assert again == task
        assert [rows.sha256() for rows in again.splits.values()] == [rows.sha256() for rows in task.splits.values()]


def test_a_recipe_is_an_origin_with_what_is_done():
    names = {field.name for field in dataclasses.fields(Origin)}
    assert names == {field.name for field in dataclasses.fields(Recipe)} & names
    recipe = Recipe(task="a.csv", missing_label="?", validation="", encoding="latin-1")
    assert recipe.reading == Reading(missing_label=("?",), encoding="latin-1")
    assert (recipe.missing_label, recipe.validation) == (("?",), None)
    with pytest.raises(InputError, match="unknown encoding 'latin-11'"):
        Recipe(encoding="latin-11")


def test_what_an_older_file_does_not_say_is_as_it_was_then(table):
    task = read(table, **ODD)
    older = {
        k: v
        for k, v in task.description().items()
        if k not in ("missing_label", "encoding", "header", "positive", "twins")
    }
    # Its held-out rows were drawn one by one, and must be the same ones again.
    assert Task.from_description(older).origin.reading == Reading(skip_bad_rows=True, twins="apart")
    assert task.origin.reading.twins == "together"


def test_a_column_is_found_by_its_very_name(tmp_path):
    rows = [{" body ": f"text {i}", "a,b": i % 2} for i in range(20)]
    path = tmp_path / "spaces.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = read(path, text=" body ", label="a,b")
    assert (task.text_columns, task.label_column) == ((" body ",), "a,b")
    assert read_again(task.origin).train.sha256() == task.train.sha256()
