"""A pass that stops in front of a layer, and one that begins there: together they must be the whole pass."""

from typing import Any

import pytest
import torch
from small import CONFIGS, FAMILIES
from test_packed import LENGTHS, PADDED, enlarged, gradients, random_model, random_texts, train_only
from transformers import AutoModel

from trimtab.encoders.heads import LinearHead
from trimtab.encoders.parameter_kinds import layers_of
from trimtab.engine import prepare

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")


def depths(model: Any) -> list[int]:
    """The depths to try: a layer that is used repeatedly has no inside."""
    layers = layers_of(model)
    return [layers.count] if layers.shared else list(range(1, layers.count + 1))


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("head", ["default", "linear"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PADDED])
def test_both_parts_of_a_pass_are_the_whole_pass(family: str, head: str, compute: Any) -> None:
    model: Any = random_model(CONFIGS[family]())
    if head == "linear":
        model = enlarged(LinearHead(AutoModel.from_config(CONFIGS[family]()), "body", 3))
    texts = random_texts(family)
    model.requires_grad_(False)
    prepared = prepare(model, compute)
    assert prepared.packed
    expected = prepared.logits(texts)
    for depth in depths(model):
        states = prepared.states(texts, depth)
        pooled = depth == layers_of(model).count
        assert states.shape[0] == (len(LENGTHS) if pooled else sum(LENGTHS))
        assert not states.requires_grad
        assert torch.equal(prepared.logits_from(states, LENGTHS, depth), expected), depth


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_gradients_above_the_split(compute: Any) -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    train_only(model, "layer.[12].*LayerNorm|classifier")
    prepared = prepare(model, compute)
    expected = gradients(model, prepared.logits(texts))
    found = gradients(model, prepared.logits_from(prepared.states(texts, 1), LENGTHS, 1))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_nothing_below_the_split_is_run() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    prepared = prepare(model, "float32")
    states = prepared.states(texts, 2)
    ran: list[int] = []
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.attention.register_forward_hook(lambda *_, number=number: ran.append(number))
    prepared.logits_from(states, LENGTHS, 2)
    assert ran == [2]


def test_padded_families_cannot_be_split() -> None:
    prepared = prepare(random_model(CONFIGS["deberta-v2"]()))
    assert not prepared.packed
    with pytest.raises(ValueError, match="runs padded"):
        prepared.states(random_texts(), 1)


def test_there_is_no_layer_behind_the_last() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    prepared = prepare(model, "float32")
    with pytest.raises(ValueError, match="has no layer 7"):
        prepared.states(texts, 7)
