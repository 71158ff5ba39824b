"""The linear probe against scikit-learn, and what a fit makes of it."""

import dataclasses

import numpy as np
import pytest
import torch
from dying import dying_before
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from small import make_task

from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Full, Head, LayerNorms
from trimtab.results.recipe import Settings
from trimtab.tasks.losses import TaskLoss
from trimtab.training.fit import fit
from trimtab.training.linear_probe import _Logistic, _Ridge, fitted_probe, head_inputs
from trimtab.training.logits import all_logits
from trimtab.training.set_up import set_up


def blobs(n: int, width: int, n_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of unlike scales about means that their classes share in part."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    means = torch.randn(n_classes, width, generator=draw)
    features = means[labels] + 2 * torch.randn(n, width, generator=draw)
    return features * torch.logspace(-2, 1, width) + 3, labels


def standardised(features: torch.Tensor) -> np.ndarray:
    return StandardScaler().fit_transform(features.double().numpy())


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 3.0])
def test_logistic_regression_is_scikit_learns(strength: float) -> None:
    features, labels = blobs(90, 12, 3)
    x = standardised(features)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, labels.numpy())
    weight, bias = _Logistic(torch.from_numpy(x), labels, TaskLoss("single_label"), 3, True).solved(
        torch.full((3,), strength, dtype=torch.float64)
    )
    # Only differences of classes mean something, and theirs is not unique in what all share.
    ours, found = (w - w.mean(0) for w in (weight.numpy(), theirs.coef_))
    np.testing.assert_allclose(ours, found, rtol=1e-2, atol=2e-4)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), rtol=2e-2, atol=2e-3)


def test_several_labels_are_a_regression_each() -> None:
    features, labels = blobs(80, 6, 4)
    x, several = standardised(features), torch.stack([labels < 2, labels % 2 == 0], 1).float()
    strengths = torch.tensor([0.01, 1.0], dtype=torch.float64)
    weight, _ = _Logistic(torch.from_numpy(x), several, TaskLoss("multi_label"), 2, True).solved(strengths)
    for c, strength in enumerate(strengths.tolist()):
        theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, several[:, c].numpy())
        np.testing.assert_allclose(weight[c].numpy(), theirs.coef_[0], rtol=1e-2, atol=2e-4)


def test_ridge_is_scikit_learns() -> None:
    features, labels = blobs(60, 9, 5)
    x, y = standardised(features), labels.float() * 10 + 500
    weight, bias = _Ridge(torch.from_numpy(x), y, TaskLoss("regression"), 1, True).solved(
        torch.tensor([0.2], dtype=torch.float64)
    )
    theirs = Ridge(alpha=5.0).fit(x, y.numpy())
    np.testing.assert_allclose(weight[0].numpy(), theirs.coef_, rtol=1e-4)
    assert float(bias) == pytest.approx(theirs.intercept_, rel=1e-6)


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_features_in_other_units_have_the_same_probe(kind: str) -> None:
    features, labels = blobs(70, 8, 3)
    labels = labels if kind == "single_label" else labels.float()
    n_outputs = 3 if kind == "single_label" else 1
    moved = features * torch.logspace(3, -3, 8) - 7
    one, other = (fitted_probe(x, labels, TaskLoss(kind), n_outputs) for x in (features, moved))
    found = moved.double() @ other.weight.double().T + other.bias
    torch.testing.assert_close(found, features.double() @ one.weight.double().T + one.bias, rtol=1e-2, atol=1e-2)
    assert one.strengths == other.strengths


@given(st.integers(4, 24), st.integers(2, 40), st.integers(0, 99))
@given_settings(max_examples=25, deadline=None)
def test_fewer_rows_than_features_lose_nothing(n: int, width: int, seed: int) -> None:
    """Added features that are constant change nothing, though there then are more features than rows."""
    features, labels = blobs(n, width, 2, seed)
    wide = torch.cat([features, torch.full((n, 50), 4.0)], 1)
    one, other = (fitted_probe(x, labels, TaskLoss("single_label"), 2) for x in (features, wide))
    assert not other.weight[:, width:].any()
    answers = [x.double() @ p.weight.double().T + p.bias for x, p in ((features, one), (wide, other))]
    torch.testing.assert_close(answers[0].softmax(1), answers[1].softmax(1), rtol=0, atol=2e-2)


def test_the_strength_is_that_of_held_out_rows() -> None:
    """Noise wants the strongest penalty, a clean rule a weak one; and the loss that is told is that of unseen rows."""
    draw = torch.Generator().manual_seed(1)
    x, labels = torch.randn(200, 20, generator=draw), torch.randint(0, 2, (200,), generator=draw)
    noise = fitted_probe(x, labels, TaskLoss("single_label"), 2)
    clean = fitted_probe(x, (x[:, 0] > 0).long(), TaskLoss("single_label"), 2)
    assert noise.strengths[0] < 1e-2 < clean.strengths[0]
    assert noise.loss == pytest.approx(np.log(2), abs=0.02)
    assert clean.loss < 0.2


def test_class_weights_and_smoothing_are_those_of_training() -> None:
    """A rare class that weighs as much as the other is answered as often."""
    features, labels = blobs(120, 5, 6)
    labels = (labels == 0).long()
    weights = len(labels) / (2 * torch.bincount(labels))
    plain, weighted = (fitted_probe(features, labels, TaskLoss("single_label", w), 2) for w in (None, weights))
    answered = [(features @ p.weight.T + p.bias).argmax(1).sum() for p in (plain, weighted)]
    assert answered[0] < answered[1]
    smooth = fitted_probe(features, labels, TaskLoss("single_label", None, 0.5), 2)
    assert (features @ smooth.weight.T + smooth.bias).softmax(1).max() < 0.9


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0, 1], [0], [1, 1, 1]])
def test_classes_that_folds_or_rows_lack(labels: list[int]) -> None:
    probe = fitted_probe(torch.randn(len(labels), 7), torch.tensor(labels), TaskLoss("single_label"), 3)
    assert torch.isfinite(probe.weight).all()
    assert torch.isfinite(probe.bias).all()


def test_a_map_without_bias_has_none() -> None:
    features, labels = blobs(50, 4, 2)
    probe = fitted_probe(features, labels, TaskLoss("single_label"), 2, centred=False)
    assert not probe.bias.any()
    assert ((features @ probe.weight.T).argmax(1) == labels).float().mean() > 0.6


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("head", ["default", "linear", "cls"])
def test_the_head_alone_is_the_probe_of_its_inputs(kind: str, head: str, encoder) -> None:
    task = make_task(kind, n_train=60)
    run = fit(encoder, task, Head(), head=head, compute="float32")
    bench = set_up(encoder, task, Head(), Settings(head=head, compute="float32"))
    features = head_inputs(bench.prepared, bench.train.inputs, 4096)
    assert features is not None
    assert bench.train.labels is not None
    probe = fitted_probe(features, bench.train.labels, bench.loss, task.n_outputs)
    torch.testing.assert_close(run.delta.values["classifier.weight"], probe.weight, rtol=1e-3, atol=1e-4)
    assert run.details["steps"] == 1
    assert run.delta.count_body == 0
    if head != "default":  # a pooler that was drawn tells these texts hardly apart
        assert run.scores["loss"] < run.baseline["loss"]


def test_its_baseline_is_one_answer_for_all(encoder) -> None:
    task = make_task(n_train=60)
    run = fit(encoder, task, Head())
    most = np.bincount(task.train.labels).argmax()
    assert run.baseline["accuracy"] == pytest.approx(np.mean(np.array(task.validation.labels) == most))


@pytest.mark.parametrize(
    ("kind", "head"), [("single_label", "default"), ("multi_label", "linear"), ("regression", "cls")]
)
def test_the_baseline_needs_no_pass_and_is_that_of_one(kind, head, encoder, monkeypatch) -> None:
    bench = set_up(encoder, make_task(kind, n_train=40), Head(), Settings(head=head).for_method(Head(), 40, 32))
    by_a_pass = all_logits(bench.prepared, bench.validation.inputs, bench.memory.tokens)
    with monkeypatch.context() as patched:
        patched.setattr("trimtab.training.workbench.all_logits", lambda *args: pytest.fail("a pass was made"))
        _, logits = bench.validate()
    torch.testing.assert_close(logits, by_a_pass, rtol=0, atol=1e-6)
    bench.train_step(0)
    assert not torch.equal(bench.validate()[1], logits)  # the head has been solved for, and a pass is made


def test_the_seed_of_the_run_is_in_no_probe(encoder) -> None:
    task = make_task(n_train=40)
    runs = [fit(encoder, task, Head(), seed=seed, head="linear") for seed in (0, 1)]
    assert torch.equal(*(run.delta.values["classifier.weight"] for run in runs))


@pytest.mark.parametrize("method", [LayerNorms(), Lora(rank=2)], ids=repr)
def test_training_begins_at_the_probe_and_keeps_it_where_nothing_is_better(method, encoder) -> None:
    task = make_task(n_train=60)
    probe = fit(encoder, task, Head(), head="linear", compute="float32")
    by_loss = dataclasses.replace(task, metric="loss")
    run = fit(encoder, by_loss, method, head="linear", lr=3.0, epochs=2, batch_size=16, compute="float32")
    assert run.baseline["loss"] == pytest.approx(probe.scores["loss"], abs=1e-4)
    assert run.details["best_step"] == 0, "a rate that wrecks the encoder"
    assert run.scores["loss"] == pytest.approx(run.baseline["loss"], abs=1e-6)
    torch.testing.assert_close(
        run.delta.values["classifier.weight"], probe.delta.values["classifier.weight"], rtol=1e-4, atol=1e-5
    )


def test_a_drawn_head_is_one_option_away(encoder) -> None:
    task = make_task(n_train=30)
    bench = set_up(encoder, task, LayerNorms(), Settings(head="linear", head_start="random", seed=2))
    drawn = encoder.with_head(task, seed=2, head="linear").classifier.weight
    assert torch.equal(bench.model.classifier.weight, drawn)
    assert bench.optimizer.head_lr == LayerNorms.defaults.head_lr
    begun = set_up(encoder, task, Full(), Settings(head="linear", seed=2))
    assert begun.optimizer.head_lr == pytest.approx(Full.defaults.head_lr / 10)


def test_the_rate_of_the_last_map_goes_with_what_its_features_reach(encoder) -> None:
    task = make_task("regression", n_train=40)
    bench = set_up(encoder, task, LayerNorms(), Settings(head="linear"))
    assert bench.start is not None
    factors = {group["factor"] for group in bench.optimizer._adamw.param_groups}
    assert any(f == pytest.approx(task.standard_deviation * 100 / bench.start.reach) for f in factors)


def test_a_solved_head_can_be_killed_and_begun_again(encoder, tmp_path) -> None:
    task = make_task(n_train=30)
    whole = fit(encoder, task, Head(), head="linear")
    with dying_before(0):
        fit(encoder, task, Head(), head="linear", out=tmp_path)
    resumed = fit(encoder, task, Head(), head="linear", out=tmp_path, resume=True)
    assert torch.equal(resumed.delta.values["classifier.weight"], whole.delta.values["classifier.weight"])
    assert Delta.load(tmp_path).notes["head"] == resumed.details["head"]


@pytest.mark.parametrize(("epochs", "expected"), [(3, [0, 4, 8, 12]), (10, [0, 8, 16, 24, 32, 40])])
def test_a_short_run_of_many_epochs_has_five_validations(epochs, expected, encoder) -> None:
    run = fit(encoder, make_task(n_train=32, n_validation=8), LayerNorms(), epochs=epochs, batch_size=8)
    assert [entry["step"] for entry in run.history] == expected
