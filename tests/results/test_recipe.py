"""Recipes: TOML there and back, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.changes.methods import Full, LayerNorms, Union
from trimtab.errors import InputError
from trimtab.results.recipe import Recipe, Settings
from trimtab.tasks.read import read
from trimtab.tasks.reading import Reading

settings = st.builds(
    Settings, epochs=st.integers(1, 99), lr=st.none() | st.floats(1e-7, 1), dropout=st.none() | st.floats(0, 0.9),
    patience=st.none() | st.integers(1, 9), head=st.sampled_from(["default", "linear"]),
)  # fmt: skip
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(
    st.builds(
        Recipe,
        task=words,
        text=st.lists(words, max_size=2).map(tuple),
        label=st.none() | words,
        settings=settings,
        missing_label=st.lists(words, max_size=2).map(tuple),
        label_separator=st.none() | words,
        header=st.booleans(),
    )
)
def test_toml_there_and_back(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_flags_go_over_the_file():
    recipe = Recipe(task="a.csv", settings=Settings(epochs=5, lr=0.1))
    changed = recipe.changed(task=None, label="stars", epochs=2, lr=None)
    assert (changed.task, changed.label, changed.settings.epochs, changed.settings.lr) == ("a.csv", "stars", 2, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "cannot read recipe"),
        ('tsk = "x"', "did you mean task"),
        ("[settings]\nepoch = 3", "did you mean epochs"),
        ('[settings]\nepochs = "3"', "must be int"),
        ("[settings]\nepochs = true", "must be int"),
        ("settings = 3", "must be a table"),
        ("[settings]\nlr = 0.0", "above 0"),
    ],
)
def test_bad_recipes_are_refused(text, message, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Recipe.load(path)


def test_whole_numbers_pass_for_rates(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("[settings]\nlr = 1")
    assert Recipe.load(path).settings.lr == 1.0


@pytest.mark.parametrize(
    ("n_rows", "epochs"), [(100_000, 5), (960, 5), (800, 6), (640, 8), (3, 8)]
)  # 150 steps of 32 rows, 8 epochs at most
def test_few_rows_are_visited_more_often(n_rows, epochs):
    assert Settings().for_method(LayerNorms(), n_rows, 384).epochs == epochs
    assert Settings(epochs=2).for_method(LayerNorms(), n_rows, 384).epochs == 2


@pytest.mark.parametrize(
    ("n_rows", "times"), [(100_000, 1.0), (2880, 1.0), (1920, 1.5), (960, 3.0), (32, 3.0)]
)  # 450 steps of 32 rows in 5 epochs; three times at most
def test_vectors_go_faster_where_steps_are_few(n_rows, times):
    usual = LayerNorms.defaults
    few = Settings(epochs=5).for_method(LayerNorms(), n_rows, 384)
    assert few.lr == pytest.approx(usual.lr * times)
    assert few.head_lr == pytest.approx(usual.head_lr * min(1, 0.1 * times**2), rel=0.05)
    # Matrices do not, nor what starts from a head that was drawn, nor what the user says.
    assert Settings(epochs=5).for_method(Full(), n_rows, 384).lr == Full.defaults.lr
    assert Settings(epochs=5, head_start="random").for_method(LayerNorms(), n_rows, 384).lr == usual.lr
    assert Settings(epochs=5, lr=0.1).for_method(LayerNorms(), n_rows, 384).lr == 0.1


def test_the_rate_of_matrices_falls_with_the_width():
    assert Settings().for_method(Full(), 9999, 768).lr == Full().defaults.lr / 2
    assert Settings(lr=0.1).for_method(Full(), 9999, 768).lr == 0.1
    assert Settings().for_method(LayerNorms(), 9999, 768).lr == LayerNorms().defaults.lr
    union = Union((Full(), LayerNorms()))
    assert Settings().for_method(union, 9999, 768).lr == Full().defaults.lr / 2


def test_another_method_brings_its_own_rates_and_epochs():
    recipe = Recipe(settings=Settings(lr=3e-3, head_lr=1e-2, epochs=5, batch_size=8))
    same, other = recipe.changed(method=recipe.method, seed=1), recipe.changed(method="full", epochs=2)
    assert (same.settings.lr, same.settings.epochs) == (3e-3, 5)
    assert (other.settings.lr, other.settings.head_lr, other.settings.epochs) == (None, None, 2)
    assert other.settings.batch_size == 8


def test_a_recipe_of_before_reads_as_it_did(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('task = "a.csv"\nskip_bad_rows = true\n')
    assert Recipe.load(path).reading == Reading(skip_bad_rows=True)


def test_one_mark_for_no_label_may_be_written_plainly(tmp_path):
    path = tmp_path / "recipe.toml"
    for written in ("-100", '"-100"', "[-100]", '["-100"]'):
        path.write_text(f"missing_label = {written}")
        assert Recipe.load(path).reading.missing_label == ("-100",)


def test_what_lies_beside_a_recipe_is_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("")
    (tmp_path / "model").mkdir()
    (tmp_path / "helpdesk").mkdir()
    path = tmp_path / "recipe.toml"
    path.write_text('task = "data/a.csv"\nvalidation = "data/b.csv"\nencoder = "model"')
    monkeypatch.chdir(tmp_path / "data")
    recipe = Recipe.load(path)
    assert (recipe.task, recipe.encoder) == (str(tmp_path / "data" / "a.csv"), str(tmp_path / "model"))
    assert recipe.validation == "data/b.csv", "what is not there is left as it is written, for the message"
    path.write_text('task = "helpdesk"\nencoder = "minilm"')
    assert (Recipe.load(path).task, Recipe.load(path).encoder) == ("helpdesk", "minilm")


def test_files_that_a_method_names_are_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "chosen").write_text("")
    (tmp_path / "odd (1)").mkdir()
    (tmp_path / "odd (1)" / "chosen").write_text("")
    text = "biases+selection:file=chosen+random:count=3,within=selection:file=absent"
    placed = text.replace("=chosen", f"={tmp_path / 'chosen'}")
    path = tmp_path / "recipe.toml"
    path.write_text(f'method = "{text}"')
    assert Recipe.load(path).method == placed
    monkeypatch.chdir(tmp_path)
    task = read("helpdesk")
    assert Recipe.of_task(task, method=text).method == placed
    monkeypatch.chdir(tmp_path / "odd (1)")
    assert Recipe.of_task(task, method=text).method == text, "no text of a method can name that folder"


def test_a_run_names_its_data_so_that_it_is_found_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    monkeypatch.chdir(tmp_path)
    task = read("a.csv", validation="a.csv", missing_label="?")
    recipe = Recipe.of_task(task, method="head")
    assert (recipe.task, recipe.validation) == (str(tmp_path / "a.csv"), str(tmp_path / "a.csv"))
    assert (recipe.missing_label, recipe.label) == (("?",), "label")
    assert Recipe.of_task(read("helpdesk"), method="head").task == "helpdesk"
