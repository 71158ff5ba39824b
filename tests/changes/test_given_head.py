"""Information given the head, against gradients by autograd and regressions that leave each text out in turn."""

from typing import Any

import numpy as np
import pytest
import torch
from measuring import SEED, measured, model_of, tokens_of
from small import CONFIGS

from trimtab.changes.fisher import Meter, factors, mean_of
from trimtab.changes.fisher_top import FisherTop
from trimtab.changes.given_head import residuals
from trimtab.changes.methods import Biases, Full, LayerNorms
from trimtab.changes.notation import method_text, parse_method
from trimtab.encoders.inputs import ModelInputs
from trimtab.encoders.parameter_kinds import parts_of
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.tasks.batches import Tokens

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def gradients(model: Any, tokens: Tokens, kind: str, estimator: str) -> dict[str, torch.Tensor]:
    """name -> (N, ...), float64: of each text and factor, by one backward pass of Hugging Face's padded forward."""
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    for i in range(len(tokens)):
        logits = padded_logits(model, ModelInputs(*tokens.take([i]).texts()))
        assert tokens.labels is not None
        for factor in factors(logits.detach(), tokens.labels[i : i + 1], kind, estimator):
            found = torch.autograd.grad(logits, list(parameters.values()), factor, retain_graph=True, allow_unused=True)
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
                rows[name].append((torch.zeros_like(parameter) if gradient is None else gradient).double())
    return {name: torch.stack(each) for name, each in rows.items()}


def left_out(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums of squares (E,) of `residuals`, word by word: for each ridge and row, a regression on all other rows."""
    mean = (features**2).sum() / len(features)
    least = (rows**2).sum(0)
    for ridge in RIDGES:
        found = np.empty_like(rows)
        for i in range(len(rows)):
            others = np.arange(len(rows)) != i
            h = features[others]
            weights = np.linalg.solve(h.T @ h + ridge * mean * np.eye(h.shape[1]), h.T @ rows[others])
            found[i] = rows[i] - features[i] @ weights
        least = np.minimum(least, (found**2).sum(0))
    return least


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("estimator", ["empirical", "exact"])
@pytest.mark.parametrize("head", ["default", "linear"])
def test_it_is_what_regressions_leave(kind: str, estimator: str, head: str, encoder: Any) -> None:
    model, tokens = model_of(encoder, kind, head), tokens_of(encoder, kind)
    within = (LayerNorms().attach(model) | Biases().attach(model)).body
    rows = gradients(model, tokens, kind, estimator)
    heads = [name for name, part in parts_of(model).items() if part.is_head]
    features = torch.cat([rows[name].flatten(1) for name in heads], 1).numpy()
    wanted = torch.cat([rows[name].flatten(1) for name in within.elements], 1).numpy()
    expected = left_out(features, wanted) / len(tokens)
    found = measured(model, within, tokens, kind, estimator, "head")
    values = torch.cat([found.values[name].flatten() for name in within.elements]).double().numpy()
    np.testing.assert_allclose(values, expected, rtol=2e-3, atol=1e-6 * expected.max())
    plain = measured(model, within, tokens, kind, estimator)
    assert sum(v.sum() for v in found.values.values()) < sum(v.sum() for v in plain.values.values())


@pytest.mark.filterwarnings("ignore:.* cannot run on padding-free batches")
@pytest.mark.parametrize("family", [family for family in CONFIGS if family != "deberta-v2"])
def test_every_family(family: str, encoder_of: Any) -> None:
    encoder = encoder_of(family)
    model, tokens = model_of(encoder, "single_label"), tokens_of(encoder, "single_label", 10)
    within = LayerNorms().attach(model).body
    rows = {name: each.flatten(1) for name, each in gradients(model, tokens, "single_label", "empirical").items()}
    features = torch.cat([rows[name] for name, part in parts_of(model).items() if part.is_head], 1)
    found = measured(model, within, tokens, "single_label", given="head")
    expected = {name: residuals(rows[name], features @ features.T).square().sum(0) / 10 for name in within.elements}
    scale = max(float(each.max()) for each in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found.values[name].double(), value, rtol=1e-2, atol=1e-4 * scale)


def test_what_the_head_does_too_is_nothing(encoder: Any) -> None:
    """A shift of the last norm moves all answers of a linear head by one number, as its own bias does."""
    model, tokens = model_of(encoder, "single_label", "linear"), tokens_of(encoder, "single_label", 60)
    within = LayerNorms().attach(model).body
    name = [name for name in within.elements if name.endswith("bias")][-1]
    plain, given = (measured(model, within, tokens, "single_label", "exact", each) for each in ("nothing", "head"))
    inner = next(name for name in within.elements if "layer.0" in name)
    left, left_inside = (float(given.values[n].sum() / plain.values[n].sum()) for n in (name, inner))
    assert left < 1e-3
    assert left < 0.1 * left_inside


def test_elements_of_matrices_are_refused(encoder: Any) -> None:
    model = model_of(encoder, "single_label")
    with pytest.raises(InputError, match="norms and biases"):
        Meter(model, Full().attach(model).body, "single_label", "empirical", SEED, "head")
    with pytest.raises(InputError, match="given must be one of"):
        Meter(model, LayerNorms().attach(model).body, "single_label", "empirical", SEED, "body")


@pytest.mark.filterwarnings("ignore:.* cannot run on padding-free batches")
def test_norms_that_no_text_has_to_itself_are_refused(encoder_of: Any) -> None:
    encoder = encoder_of("deberta-v2")
    model, tokens = model_of(encoder, "single_label"), tokens_of(encoder, "single_label")
    with pytest.raises(InputError, match="no text has to itself"):
        measured(model, LayerNorms().attach(model).body, tokens, "single_label", given="head")
    others = measured(model, LayerNorms(which="output").attach(model).body, tokens, "single_label", given="head")
    assert all(value.sum() > 0 for value in others.values.values())


def test_measurements_with_and_without_a_head_have_no_mean(encoder: Any) -> None:
    model, tokens = model_of(encoder, "single_label"), tokens_of(encoder, "single_label")
    within = LayerNorms().attach(model).body
    plain, given = (measured(model, within, tokens, "single_label", given=each) for each in ("nothing", "head"))
    plain.notes["given"], given.notes["given"] = "nothing", "head"  # type: ignore[index]
    with pytest.raises(InputError, match="given the head and some are not"):
        mean_of([plain, given])


def test_the_option_is_a_part_of_the_method() -> None:
    method = FisherTop(share=0.1, given="head")
    assert method_text(method) == "fisher_top:share=0.1,given=head"
    assert parse_method("fisher_top:share=0.1,given=head") == method


def test_more_gradients_than_a_kernel_holds_are_refused(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = model_of(encoder, "single_label"), tokens_of(encoder, "single_label")
    within = LayerNorms().attach(model).body
    monkeypatch.setattr("trimtab.changes.given_head._MOST_ROWS", 14)
    assert measured(model, within, tokens, "single_label", given="head").values
    with pytest.raises(InputError, match="at most 14 gradients"):
        measured(model, within, tokens, "single_label", "exact", "head")
