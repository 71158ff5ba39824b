"""One step of training, its noise and its rows; and what a setting changes in them."""

import dataclasses

import numpy as np
import pytest
import torch
from dying import dying_before
from small import make_encoder_folder, make_task
from torch.nn import functional

from trimtab.changes.delta import Delta
from trimtab.changes.methods import Full, Head, LayerNorms
from trimtab.changes.top import Random
from trimtab.encoders.encoder import load
from trimtab.engine import dropout
from trimtab.errors import InputError
from trimtab.inference.evaluate import evaluate
from trimtab.results.recipe import Settings
from trimtab.training import fit as fit_module
from trimtab.training import workbench as module
from trimtab.training.fit import fit
from trimtab.training.optimizer import linear_rate
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench


@pytest.mark.parametrize("change", [{}, {"class_weights": "balanced"}, {"label_smoothing": 0.2}], ids=str)
def test_the_gradient_of_a_step_is_that_of_the_loss_as_set(change, encoder, monkeypatch):
    task = make_task(n_train=24, n_validation=4)
    bench = set_up(encoder, task, Head(), Settings(
        batch_size=24, dropout=0.0, compute="float32", clip=1e9, head="linear", head_start="random", **change))  # fmt: skip
    model, labels = encoder.with_head(task, 0, "linear", dropout=0.0), torch.tensor(task.train.labels)
    # Each class as much say as the others, by hand: the rows over those of the class and the number of classes.
    weights = len(labels) / (3 * torch.bincount(labels)) if "class_weights" in change else torch.ones(3)
    inputs = encoder.tokenizer(task.train.texts[0], padding=True, return_tensors="pt")
    losses = functional.cross_entropy(
        model(**inputs).logits, labels, weights, reduction="none", label_smoothing=change.get("label_smoothing", 0.0)
    )
    losses.mean().backward()
    seen = {}
    monkeypatch.setattr(bench.optimizer._adamw, "step", lambda: seen.update(gradients_of(bench)))
    bench.train_step(0)
    expected = dict(model.named_parameters())
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-4, atol=1e-6)
    assert seen.keys() == bench.selection.elements.keys()


def gradients_of(bench: Workbench) -> dict[str, torch.Tensor]:
    return {name: master.grad.clone() for name, master in bench.optimizer.masters.items()}


def test_epochs_differ_in_their_order_and_steps_in_their_noise(encoder, monkeypatch):
    rows, masks = [], []
    token_groups, drawn = module.token_groups, dropout.DropoutMasks.mask

    def grouped(lengths, some, most_tokens):
        rows.append(np.asarray(some).tolist())
        return token_groups(lengths, some, most_tokens)

    def masked(noise, shape, rate, dtype):
        mask = drawn(noise, shape, rate, dtype)
        if masks:  # and not while the memory is estimated
            masks[-1].append(mask.kept.flatten()[:64].tolist())
        return mask

    monkeypatch.setattr(module, "token_groups", grouped)
    monkeypatch.setattr(dropout.DropoutMasks, "mask", masked)
    task = make_task(n_train=16, n_validation=4)
    for seed in (0, 1):
        bench = set_up(encoder, task, LayerNorms(), Settings(epochs=2, batch_size=8, seed=seed))
        for step in range(4):
            masks.append([])
            bench.train_step(step)
    for start in (0, 4):
        first, second = (sorted(rows[start + part] + rows[start + part + 1]) for part in (0, 2))
        assert first == second == list(range(16))
    assert len({str(each) for each in rows}) == 8
    assert all(masks)
    assert len({str(each[0]) for each in masks}) == 8


def test_another_seed_draws_another_control(encoder):
    task = make_task(n_train=16, n_validation=4)
    chosen = [set_up(encoder, task, Random(count=50), Settings(seed=seed)).selection for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(("settings", "steps"), [({"eval_steps": 4}, [0, 4, 8, 9]), ({}, [0, 3, 6, 9])])
def test_when_it_validates(settings, steps, encoder):
    run = fit(
        encoder, make_task(n_train=24, n_validation=8), Head(), epochs=3, batch_size=8, head_start="random", **settings
    )
    assert [entry["step"] for entry in run.history] == steps


def test_history_tells_the_mean_loss_of_the_rows_since_and_the_rate(encoder, monkeypatch):
    told, train_step = [], fit_module.Workbench.train_step

    def noted(bench, step):
        told.append(train_step(bench, step))
        return told[-1]

    monkeypatch.setattr(fit_module.Workbench, "train_step", noted)
    task = make_task(n_train=20, n_validation=8)
    run = fit(encoder, task, LayerNorms(), epochs=2, batch_size=8, lr=0.01, warmup=0.2)
    for epoch, entry in enumerate(run.history[1:]):
        of_epoch = told[3 * epoch : 3 * epoch + 3]
        assert entry["train_loss"] == pytest.approx(sum(loss for loss, _ in of_epoch) / 20)
        assert entry["lr"] == pytest.approx(0.01 * linear_rate(entry["step"] - 1, 6, 0.2))
        assert entry["epoch"] == epoch + 1


def test_what_a_run_reports_of_time_and_length(encoder, tmp_path):
    task = make_task(n_train=24, n_validation=8)
    long = dataclasses.replace(task.train, texts=([text + " the cat" * 9 for text in task.train.texts[0]],))
    task = dataclasses.replace(task, splits={"train": long, "validation": task.validation})
    run = fit(encoder, task, Head(), epochs=2, batch_size=8, max_length=14, out=tmp_path)
    assert run.details["truncation"]["train"]["rows_cut"] == 24
    assert run.details["truncation"]["validation"]["rows_cut"] == 0
    assert 0 < run.seconds == run.details["seconds"]
    assert run.examples_per_second > 0
    assert [entry["seconds"] for entry in run.history] == sorted(entry["seconds"] for entry in run.history)
    assert any("24 rows" in line for line in run.details["survey"])


def test_seconds_of_earlier_sittings_count(encoder, tmp_path, monkeypatch):
    task = make_task(n_train=16, n_validation=4)
    with dying_before(3, KeyboardInterrupt):
        fit(encoder, task, Head(), epochs=2, batch_size=8, out=tmp_path, head_start="random")
    load_checkpoint = fit_module.load_checkpoint

    def an_hour_ago(folder, identity):
        state, tensors = load_checkpoint(folder, identity)
        state.seconds = 3600.0
        return state, tensors

    monkeypatch.setattr(fit_module, "load_checkpoint", an_hour_ago)
    assert (
        fit(encoder, task, Head(), epochs=2, batch_size=8, out=tmp_path, resume=True, head_start="random").seconds
        > 3600
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_half_precision_encoder_is_trained_in_float32(dtype, tmp_path):
    """Near 1 bfloat16 steps by 0.008, so that a norm's weight would never move."""
    encoder = load(make_encoder_folder("bert", tmp_path / "half", dtype=dtype))
    bench = set_up(encoder, make_task(n_train=16, n_validation=4), LayerNorms(), Settings(lr=1e-4, epochs=4))
    assert {p.dtype for p in bench.model.parameters()} == {torch.float32}
    before = bench.optimizer.values()
    for step in range(4):
        bench.train_step(step)
    moved = torch.cat(
        [
            (value != before[name]).flatten()
            for name, value in bench.optimizer.values().items()
            if bench.selection.parts[name].kind.endswith("norm")
        ]
    )
    assert moved.float().mean() > 0.9


def test_a_delta_that_answers_otherwise_is_not_kept(encoder, tmp_path, monkeypatch):
    save = Delta.save

    def damaged(delta, folder):
        name = next(name for name in delta.values if "LayerNorm.weight" in name)
        save(dataclasses.replace(delta, values=dict(delta.values) | {name: delta.values[name] * 1.5}), folder)

    monkeypatch.setattr(Delta, "save", damaged)
    with pytest.raises(OSError, match="does not reproduce the trained model"):
        fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1, out=tmp_path)
    assert not (tmp_path / "delta.safetensors").exists()


def test_what_chooses_nothing_is_refused(encoder):
    class Nothing:
        def attach(self, model, batches=(), loss=None):
            return Head().attach(model).backbone

    with pytest.raises(InputError, match="chose nothing to train"):
        fit(encoder, make_task(n_train=16, n_validation=4), Nothing(), epochs=1)


@pytest.mark.parametrize("method", [3, LayerNorms])
def test_what_is_no_method_is_refused_first(method, encoder):
    with pytest.raises(InputError, match=r"is no method: give one such as trimtab\.LayerNorms\(\)"):
        fit(encoder, make_task(n_train=16, n_validation=4), method, epochs=1)


def test_a_run_in_the_folder_one_stands_in_has_its_name(encoder, tmp_path, monkeypatch):
    (tmp_path / "animals").mkdir()
    monkeypatch.chdir(tmp_path / "animals")
    assert fit(encoder, make_task(n_train=16, n_validation=4), Full(), epochs=1, out=".").name == "animals"
    assert evaluate(".", make_task(n_train=16, n_validation=4), "validation", encoder)["rows"] == 4
