"""Runs that start from another run: its values, its classes by name, its head, and what is said and recorded."""

import dataclasses
import tomllib

import pytest
import torch
from dying import dying_before
from small import ANIMALS, make_task

from trimtab.errors import InputError
from trimtab.inference.predictor import predict
from trimtab.tasks.read import read
from trimtab.tasks.task import Rows
from trimtab.training.fit import fit

SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 5e-3, "compute": "float32"}
METHODS = ("layer_norms", "lora:rank=2", "head", "random:count=50", "fisher_top:count=50,examples=8", "full")


def small(kind="single_label"):
    return make_task(kind, n_train=24, n_validation=12)


def larger(kind="single_label"):
    return make_task(kind, n_train=40, n_validation=16)


def with_classes(task, classes):
    """The task with its classes in another order, or with fewer or more: rows of classes that are gone are left out."""
    splits = {}
    for name, rows in task.splits.items():
        kept = [i for i, label in enumerate(rows.labels) if task.classes[label] in classes]
        labels = [classes.index(task.classes[rows.labels[i]]) for i in kept]
        splits[name] = dataclasses.replace(rows.take(kept), labels=labels)
    return dataclasses.replace(task, classes=classes, splits=splits)


def answers(run, task):
    """What a model of `run` gives the validation rows of `task`: probabilities by class, or values."""
    found = predict(run, list(task.validation.texts[0]))
    return [each.value if task.kind == "regression" else each.probabilities for each in found]


@pytest.mark.parametrize("method", METHODS)
def test_training_begins_at_its_values_and_trains_its_elements(method, encoder):
    first = fit(encoder, small(), method, **SETTINGS)
    task = larger()
    second = fit(encoder, task, method, start_from=first, **SETTINGS)
    right = [
        max(p, key=p.get) == task.classes[y] for p, y in zip(answers(first, task), task.validation.labels, strict=True)
    ]
    assert second.baseline["accuracy"] == pytest.approx(sum(right) / len(right))
    assert second.selection.same_elements(first.selection)
    assert second.details["start"] == "the run it starts from"
    assert second.scores["accuracy"] >= second.baseline["accuracy"]


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_the_scale_of_numbers_and_classes_of_several_are_kept(kind, encoder):
    task, other = small(kind), larger(kind)
    if kind == "regression":  # other rows have another mean and spread, which must not move the answers
        shifted = [label * 1000 + 500 for label in other.train.labels]
        rows = dataclasses.replace(other.train, labels=shifted)
        other = dataclasses.replace(other, splits={"train": rows, "validation": other.validation})
    first = fit(encoder, task, "layer_norms", **SETTINGS)
    second = fit(encoder, other, "layer_norms", start_from=first.delta, **SETTINGS | {"lr": 1e-12, "head_lr": 1e-12})
    for mine, theirs in zip(answers(first, other), answers(second, other), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_classes_are_matched_by_name(encoder):
    first = fit(encoder, small(), "layer_norms", **SETTINGS)
    task = with_classes(larger(), ("fish", "cat", "dog"))
    still = SETTINGS | {"lr": 1e-12, "head_lr": 1e-12}
    second = fit(encoder, task, "layer_norms", start_from=first, **still)
    for mine, theirs in zip(answers(first, task), answers(second, task), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_a_new_class_gets_a_row_and_the_others_keep_theirs(encoder, capfd):
    first = fit(encoder, with_classes(small(), ("cat", "dog")), "layer_norms", **SETTINGS)
    still = SETTINGS | {"lr": 1e-12, "head_lr": 1e-12}
    second = fit(encoder, larger(), "layer_norms", start_from=first, progress=True, **still)
    name = next(name for name in first.delta.values if name.endswith("classifier.weight"))
    before, after = first.delta.values[name], second.delta.values[name]
    assert torch.allclose(after[:2], before, atol=1e-6)
    assert not torch.allclose(after[2], before.mean(0), atol=1e-3)  # but what a probe has found
    assert "get new rows of the head: 'fish'" in capfd.readouterr().err
    drawn = fit(encoder, larger(), "layer_norms", start_from=first, head_start="random", **still)
    assert torch.allclose(drawn.delta.values[name][2], before.mean(0), atol=1e-5)


def test_a_class_without_rows_is_dropped_and_said(encoder, capfd):
    first = fit(encoder, small(), "layer_norms", **SETTINGS)
    second = fit(encoder, with_classes(larger(), ("dog", "fish")), start_from=first, progress=True, **SETTINGS)
    assert second.delta.task["classes"] == ["dog", "fish"]
    assert "which are dropped: 'cat'" in capfd.readouterr().err


def test_the_probe_of_the_head_alone_is_compared_with_the_run(encoder):
    first = fit(encoder, larger(), "head", **SETTINGS)
    again = fit(encoder, larger(), "head", start_from=first, **SETTINGS)
    assert again.details["steps"] == 1
    assert again.baseline == pytest.approx(first.scores)


def test_of_old_and_new_values_the_better_are_kept(encoder):
    first = fit(encoder, larger(), "layer_norms", **SETTINGS)
    spoilt = fit(encoder, larger(), start_from=first, **SETTINGS | {"lr": 10.0, "head_lr": 10.0})
    assert spoilt.details["best_step"] == 0
    assert all(torch.equal(spoilt.delta.values[name], value) for name, value in first.delta.values.items())
    assert any("No step is better than the run it starts from" in note for note in spoilt.notes)


def test_the_method_and_the_head_are_those_of_the_run(encoder):
    first = fit(encoder, small(), "biases", head="cls", **SETTINGS)
    second = fit(encoder, larger(), start_from=first, **SETTINGS)
    assert (second.delta.method, second.delta.head) == ("biases", "cls")


def test_what_does_not_fit_is_refused_in_words(encoder, encoder_of):
    first = fit(encoder, small(), "layer_norms", **SETTINGS)
    refused = [
        ((encoder, larger(), "biases"), {}, r"trained by layer_norms, and not by biases"),
        ((encoder_of("roberta"), larger(), None), {}, "this delta belongs to"),
        ((encoder, larger("multi_label"), None), {}, "is of a single_label task, and task 'animals' is multi_label"),
        ((encoder, make_task(pairs=True), None), {}, r"reads 1 text\(s\) per row"),
        ((encoder, dataclasses.replace(larger(), classes=("a", "b", "c")), None), {}, "has none of them but 'a', 'b', 'c'"),
        ((encoder, larger(), None), {"head": "cls" if first.delta.head != "cls" else "linear"}, "which a run that starts"),
    ]  # fmt: skip
    for given, more, message in refused:
        with pytest.raises(InputError, match=message):
            fit(*given, start_from=first, **SETTINGS | more)
    with pytest.raises(InputError, match="is no run"):
        fit(encoder, larger(), start_from=7, **SETTINGS)
    with pytest.raises(InputError, match="no delta in"):
        fit(encoder, larger(), start_from="nowhere", **SETTINGS)


def test_recipe_and_record_name_it_and_a_killed_run_resumes_to_the_same_bits(encoder, tmp_path):
    first = fit(encoder, small(), "random:count=50", out=tmp_path / "first", **SETTINGS)
    whole = fit(encoder, larger(), start_from=tmp_path / "first", out=tmp_path / "whole", **SETTINGS)
    recipe = tomllib.loads((tmp_path / "whole/recipe.toml").read_text())
    assert recipe["start_from"] == str(tmp_path / "first")
    assert whole.details["start_from"] == {"folder": str(tmp_path / "first"), "sha256": first.delta.sha256}
    with dying_before(6):
        fit(encoder, larger(), start_from=first, out=tmp_path / "killed", **SETTINGS)
    resumed = fit(encoder, larger(), start_from=first, out=tmp_path / "killed", resume=True, **SETTINGS)
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())
    with dying_before(6):
        fit(encoder, larger(), start_from=first, out=tmp_path / "other", **SETTINGS)
    with pytest.raises(InputError, match="resume with the same recipe"):
        fit(encoder, larger(), start_from=whole, out=tmp_path / "other", resume=True, **SETTINGS)


def written(path, rows):
    """The rows as a CSV file."""
    lines = [f"{text},{ANIMALS[label]}" for text, label in zip(rows.texts[0], rows.labels, strict=True)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def test_validation_rows_that_it_was_trained_on_are_counted(encoder, tmp_path, capfd):
    task = larger()
    old = read(written(tmp_path / "old.csv", task.train.take(range(24))))
    first = fit(encoder, old, out=tmp_path / "first", **SETTINGS)
    rows = Rows((old.train.texts[0][:3] + task.train.texts[0][30:],), old.train.labels[:3] + task.train.labels[30:])
    bigger = dataclasses.replace(task, splits={"train": task.train, "validation": rows})
    fit(encoder, bigger, start_from=tmp_path / "first", progress=True, **SETTINGS)
    assert "validation: 3 of 13 rows have a text that the run it starts from was trained on" in capfd.readouterr().err
    fit(encoder, old, start_from=first, progress=True, **SETTINGS)
    assert "was trained on" not in capfd.readouterr().err
    (tmp_path / "old.csv").unlink()
    fit(encoder, bigger, start_from=tmp_path / "first", progress=True, **SETTINGS)
    assert "is not known: its own rows are not at hand" in capfd.readouterr().err
