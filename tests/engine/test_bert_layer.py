"""Layers that run in one step against the same layers module by module."""

from typing import Any

import pytest
import torch
from small import CONFIGS, FAMILIES
from test_packed import gradients, random_model, random_texts, train_only
from torch import Tensor

from trimtab.encoders.parameter_kinds import layers_of
from trimtab.engine import PreparedModel, packed, prepare
from trimtab.engine.bert_layer import fits
from trimtab.engine.padded import padded_logits

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")

WHOLE = ("bert", "roberta", "xlm-roberta", "electra")  # families with BERT's layer


def answer(prepared: PreparedModel, seed: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of random texts with the noise of `seed`, and the gradients of what is trained."""
    torch.manual_seed(seed)
    logits = prepared.logits(random_texts())
    return logits, gradients(prepared.model, logits)


def by_modules(model: Any, compute: Any, monkeypatch: pytest.MonkeyPatch) -> PreparedModel:
    """The model prepared to run module by module."""
    monkeypatch.setattr(packed, "fits", lambda layer: False)
    prepared = prepare(model, compute)
    monkeypatch.undo()
    assert not wholes(prepared)
    return prepared


def wholes(prepared: PreparedModel) -> int:
    """How many layers run in one step."""
    return 0 if prepared._packed is None else len(prepared._packed.wholes)


def steps_of(logits: Tensor) -> list[str]:
    """The names of the nodes that logits were made by."""
    seen, waiting = {}, [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen[node] = node.name()
            waiting += [parent for parent, _ in node.next_functions]
    return list(seen.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_have_such_layers(family: str) -> None:
    model = random_model(CONFIGS[family]())
    layer = model.get_submodule(layers_of(model).path)[0]
    assert fits(layer) == (family in WHOLE)
    assert wholes(prepare(model)) == (3 if family in WHOLE else 0)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "trained",
    [
        "LayerNorm|classifier", "bias|classifier", "layer.2.output.LayerNorm", "layer.0.attention.self.query.bias",
        "layer.0.attention.output.dense.bias", "layer.1.attention.output.LayerNorm.weight", "layer.0.output.dense.bias",
        "layer.1.intermediate.dense.bias", "layer.0.attention.self.value.bias|layer.2.attention.self.key.bias",
    ],
)  # fmt: skip
def test_dropout_and_gradients_are_those_of_the_modules(
    trained: str, compute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(CONFIGS["bert"]()).train()
    train_only(model, trained)
    with by_modules(model, compute, monkeypatch) as prepared:
        expected, expected_gradients = answer(prepared)
    logits, found = answer(prepare(model, compute))
    # One draw of noise in one order, so that every dropped value is the same one.
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(logits, expected, rtol=0, atol=(1e-5 if compute == "float32" else 0.02) * scale)
    assert found.keys() == expected_gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=(1e-5 if compute == "float32" else 0.04) * scale, msg=name
        )
        assert found[name].dtype == torch.float32


def test_a_layer_is_one_step_while_its_matrices_are_frozen() -> None:
    model = random_model(CONFIGS["bert"]())
    train_only(model, "LayerNorm|classifier")
    prepared = prepare(model, "float32")
    names = steps_of(answer(prepared)[0])
    assert names.count("_WholeBackward") == 3
    assert not any("Attention" in name for name in names)
    train_only(model, "LayerNorm|classifier|layer.1.output.dense.weight")
    names = steps_of(answer(prepared)[0])
    assert names.count("_WholeBackward") == 2
    assert names.count("_AttentionBackward") == 1


def test_frozen_layers_are_no_steps_of_the_graph() -> None:
    model = random_model(CONFIGS["bert"]())
    train_only(model, "layer.2.*LayerNorm|classifier")
    assert steps_of(answer(prepare(model, "float32"))[0]).count("_WholeBackward") == 1


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_evaluation_and_training_answer_alike(compute: Any) -> None:
    model = random_model(CONFIGS["bert"]())
    train_only(model, "LayerNorm")
    prepared = prepare(model, compute)
    with torch.no_grad():
        expected = prepared.logits(random_texts())
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        answer(prepared)[0].detach(), expected, rtol=0, atol=(1e-6 if compute == "float32" else 0.02) * scale
    )


def test_parameters_that_are_replaced_are_the_ones_that_are_trained() -> None:
    model = random_model(CONFIGS["bert"]())
    train_only(model, "LayerNorm")
    prepared = prepare(model, "float32")
    norm = model.base_model.encoder.layer[1].output.LayerNorm
    norm.weight = torch.nn.Parameter(norm.weight.detach() * 2)
    logits, found = answer(prepared)
    prepared.restore()
    expected = padded_logits(model, random_texts())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    name = "bert.encoder.layer.1.output.LayerNorm.weight"
    torch.testing.assert_close(found[name], gradients(model, expected)[name], rtol=1e-4, atol=1e-4)


def test_a_layer_with_other_parts_is_left_alone() -> None:
    model = random_model(CONFIGS["bert"]())
    layer = model.base_model.encoder.layer[0]
    layer.attention.self.more = torch.nn.Linear(2, 2)
    assert not fits(layer)
    del layer.attention.self.more
    assert fits(layer)
    layer.intermediate.intermediate_act_fn = torch.nn.ReLU()
    assert not fits(layer)
    expected = padded_logits(model, random_texts())
    prepared = prepare(model, "float32")
    torch.testing.assert_close(answer(prepared)[0], expected, rtol=1e-5, atol=1e-5)
    assert wholes(prepared) == 2
