"""Class weights of one's own: the loss and the linear probe honour them, and what is no weight is refused."""

from pathlib import Path

import pytest
import torch

from trimtab.errors import InputError
from trimtab.results.recipe import Recipe, Settings, settings_from
from trimtab.tasks.losses import TaskLoss, _named_weights
from trimtab.training.linear_probe import _Logistic


def test_named_classes_have_their_weight_and_others_one() -> None:
    assert _named_weights("c=10, a=0.5", ("a", "b", "c")).tolist() == [0.5, 1.0, 10.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fair", "none or balanced"), ("d=2", "no class 'd'"), ("a=0", "above 0"), ("a=-1", "above 0"),
        ("a=nan", "above 0"), ("a=inf", "above 0"), ("a=x", "above 0"), ("a=1,a=2", "twice"),
    ],
)  # fmt: skip
def test_what_is_no_weight_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _named_weights(text, ("a", "b"))


def test_a_dict_is_the_text() -> None:
    assert settings_from({"class_weights": {"fraud": 10, "legit": 1.5}}).class_weights == "fraud=10,legit=1.5"


def test_the_probe_with_a_weight_is_the_probe_of_rows_repeated() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    labels = (x[:, 0] + torch.randn(60, generator=generator, dtype=torch.float64) > 0.5).long()
    strengths = torch.full((2,), 0.1, dtype=torch.float64)
    weighted = _Logistic(x, labels, TaskLoss("single_label", torch.tensor([1.0, 3.0])), 2, True)
    rows = torch.arange(60).repeat_interleave(1 + 2 * labels)
    repeated = _Logistic(x[rows], labels[rows], TaskLoss("single_label"), 2, True)
    torch.testing.assert_close(weighted.solved(strengths)[0], repeated.solved(strengths)[0], atol=1e-4, rtol=1e-3)


def test_the_probe_with_weights_of_three_classes_is_the_probe_of_rows_repeated() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(90, 3, generator=generator, dtype=torch.float64)
    labels = (x + torch.randn(90, 3, generator=generator, dtype=torch.float64)).argmax(1)
    times = torch.tensor([1, 2, 4])
    strengths = torch.full((3,), 0.1, dtype=torch.float64)
    weighted = _Logistic(x, labels, TaskLoss("single_label", times.float()), 3, True)
    rows = torch.arange(90).repeat_interleave(times[labels])
    repeated = _Logistic(x[rows], labels[rows], TaskLoss("single_label"), 3, True)
    # The mean of a loss over more rows is smaller by their ratio, and so is the penalty: the same minimum.
    torch.testing.assert_close(weighted.solved(strengths)[0], repeated.solved(strengths)[0], atol=1e-3, rtol=1e-2)


def test_the_probe_with_weights_of_several_classes_is_that_of_each_class_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(80, 3, generator=generator, dtype=torch.float64)
    labels = (x[:, :2] + torch.randn(80, 2, generator=generator, dtype=torch.float64) > 0.5).float()
    strengths = torch.full((2,), 0.1, dtype=torch.float64)
    found = _Logistic(x, labels, TaskLoss("multi_label", torch.tensor([3.0, 1.0])), 2, True).solved(strengths)[0]
    for c, times in enumerate((3, 1)):
        rows = torch.arange(80).repeat_interleave(1 + (times - 1) * labels[:, c].long())
        alone = _Logistic(x[rows], labels[rows, c : c + 1], TaskLoss("multi_label"), 1, True)
        torch.testing.assert_close(found[c], alone.solved(strengths[:1])[0][0], atol=1e-3, rtol=1e-2)


def test_a_name_with_a_comma_is_quoted() -> None:
    text = settings_from({"class_weights": {"a, b": 3, 'say "c"': 2, "d": 4}}).class_weights
    assert _named_weights(text, ("a, b", 'say "c"', "d", "e")).tolist() == [3.0, 2.0, 4.0, 1.0]
    assert _named_weights('"a, b"=3, d=4', ("a, b", "d")).tolist() == [3.0, 4.0]


def test_a_recipe_keeps_them(tmp_path: Path) -> None:
    recipe = Recipe(task="a.csv", settings=Settings(class_weights='"a, b"=3,d=4'))
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == recipe
