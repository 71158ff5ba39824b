"""What a PreparedModel owns: it is put into a model once, changed there, and taken out again."""

import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from small import CONFIGS
from test_packed import gradients, random_model, random_texts, train_only
from torch import nn

from trimtab.engine import prepare
from trimtab.engine import prepared as module
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")


def put_in(model: Any) -> list[str]:
    """What modules have of ours: forward methods and hooks."""
    return [
        name
        for name, each in model.named_modules()
        if "forward" in vars(each) or each._forward_hooks or each._forward_pre_hooks
    ]


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_a_model_is_prepared_once_at_a_time(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    expected = padded_logits(model, texts)
    with prepare(model, "bfloat16") as prepared:
        assert put_in(model)
        with pytest.raises(RuntimeError, match="is prepared already"):
            prepare(model)
        assert prepared.compute == "bfloat16"
    assert not put_in(model)
    assert torch.equal(padded_logits(model, texts), expected)
    with prepare(model, "float32") as again:
        torch.testing.assert_close(again.logits(texts), expected, rtol=1e-5, atol=1e-5)


def test_another_arithmetic_takes_the_place_of_the_first_and_picked_elements_stay() -> None:
    model, texts, name = random_model(CONFIGS["bert"]()), random_texts(), "bert.encoder.layer.1.output.dense.weight"
    train_only(model, name)
    fresh = {}
    for compute in ("float32", "bfloat16"):
        with prepare(model, compute) as prepared:  # pyright: ignore[reportArgumentType]
            fresh[compute] = prepared.logits(texts).detach()
    prepared = prepare(model, "float32")
    at = torch.tensor([3, 40, 77])
    values = nn.Parameter(model.get_parameter(name).detach().flatten()[at].clone())
    assert prepared.pick(name, at, values)
    assert not prepared.picked(name)  # in float32 the map runs as it is
    assert name in gradients(model, prepared.logits(texts))
    assert values.grad is None
    prepared.use("bfloat16")
    assert prepared.picked(name)
    assert torch.equal(prepared.logits(texts).detach(), fresh["bfloat16"])
    assert name not in gradients(model, prepared.logits(texts))
    assert values.grad is not None
    prepared.unpick(name)
    assert not prepared.picked(name)
    prepared.use("float32")
    assert torch.equal(prepared.logits(texts).detach(), fresh["float32"])


def test_only_weights_are_picked() -> None:
    prepared = prepare(random_model(CONFIGS["bert"]()))
    values = nn.Parameter(torch.zeros(1))
    assert not prepared.pick("bert.encoder.layer.0.output.dense.bias", torch.tensor([0]), values)


def test_threads_answer_alike() -> None:
    model, texts = random_model(CONFIGS["bert"]()).requires_grad_(False), random_texts()
    prepared, found = prepare(model, "bfloat16"), []
    expected = prepared.logits(texts)
    threads = [threading.Thread(target=lambda: found.append(prepared.logits(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(each, expected) for each in found)


@pytest.mark.parametrize("restored", [False, True])
def test_a_model_that_nobody_holds_is_gone(restored: bool) -> None:
    model = random_model(CONFIGS["bert"]())
    prepared = prepare(model, "bfloat16")
    prepared.logits(random_texts()).sum().backward()
    gone = weakref.ref(model), weakref.ref(prepared)
    if restored:
        prepared.restore()
    del model, prepared
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_what_cannot_be_set_up_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(CONFIGS["mpnet"]())
    attention = model.config._attn_implementation

    def refused(model: Any) -> None:
        raise InputError("cannot be trained")

    monkeypatch.setattr(module, "check_training", refused)
    with pytest.raises(InputError, match="cannot be trained"):
        prepare(model)
    assert not put_in(model)
    assert model.config._attn_implementation == attention
