"""A method applied for a loop of one's own: nothing but what it selects moves, and a delta of it predicts the same."""

import copy

import pytest
import torch
from small import make_encoder_folder, make_task
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

import trimtab
from trimtab.encoders.encoder import load
from trimtab.errors import InputError


def plain_model(encoder, **options):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(encoder.folder, num_labels=3, **options)


def inputs_of(encoder):
    return encoder.tokenizer(["the old cat", "a very blue dog eats", "fish"], padding=True, return_tensors="pt")


def trained(model, encoder, optimizer, steps=4, labels=(0, 1, 2)):
    """Steps of a loop that knows nothing of selections: all parameters are given to the optimizer."""
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(**inputs_of(encoder)).logits, torch.tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def check_moved(model, before, selection):
    """Every selected parameter has moved, and no unselected element has, by a bit."""
    for name, parameter in model.named_parameters():
        at = selection.elements.get(name, [])
        kept = torch.ones(parameter.numel(), dtype=torch.bool)
        if at is None:
            kept[:] = False
        else:
            kept[torch.as_tensor(at, dtype=torch.long)] = False
        now, then = parameter.detach().flatten(), before[name].flatten()
        assert torch.equal(now[kept].view(torch.int32), then[kept].view(torch.int32)), name
        assert kept.all() or not torch.equal(now, then), name


@pytest.mark.parametrize("method", [
    "layer_norms", "biases", "head", "last_layers:k=1", "random:share=0.1", "random:count=40,within=layer_norms",
    "random:count=9,within=biases+layer_norms:what=weight", "lora:rank=2+biases",
])  # fmt: skip
@pytest.mark.parametrize("make", [
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
], ids=["adamw", "sgd"])  # fmt: skip
def test_nothing_else_moves_under_weight_decay(method, make, encoder):
    model = plain_model(encoder)
    selection = trimtab.apply(model, method)
    assert selection.head.count == 3 * 32 + 3
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained(model.eval(), encoder, make(model.parameters()))
    check_moved(model, before, selection)


@pytest.mark.parametrize("method", ["layer_norms", "random:share=0.1", "lora:rank=2", trimtab.Biases()])
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_a_delta_of_it_is_a_run(method, family, encoder_of, tmp_path):
    encoder, task = encoder_of(family), make_task()
    model = plain_model(encoder)
    selection = trimtab.apply(model, method)
    trained(model.eval(), encoder, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5))
    delta = trimtab.Delta.extract(model, selection, encoder, task.description(), method)
    delta.save(tmp_path / "run")
    read = trimtab.Delta.load(tmp_path / "run")
    with torch.no_grad():
        found, expected = read.attach(encoder)(**inputs_of(encoder)).logits, model(**inputs_of(encoder)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert read.max_length == encoder.max_length


def test_a_pooler_that_the_checkpoint_lacked_is_trained_and_kept(tmp_path):
    folder = make_encoder_folder("bert", tmp_path / "masked")
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    selection = trimtab.apply(plain_model(load(folder)), "layer_norms")
    assert {"bert.pooler.dense.weight", "classifier.weight"} <= selection.head.elements.keys()


def test_a_module_of_ones_own_around_an_encoder(encoder):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = AutoModel.from_pretrained(encoder.folder), nn.Linear(32, 2)

    selection = trimtab.apply(Both(), "layer_norms")
    assert {"head.weight", "head.bias"} == selection.head.elements.keys()
    assert all("LayerNorm" in name for name in selection.backbone.elements)


def test_models_of_one_encoder_share_no_change(encoder):
    """Their parameters read one memory until they are written into."""
    model, other = (encoder.with_head(make_task(), head="default") for _ in range(2))
    before = copy.deepcopy(other.state_dict())
    trimtab.apply(model, "random:share=0.1")
    trained(model, encoder, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_what_cannot_be_applied_is_refused(encoder):
    with pytest.raises(InputError, match="fisher_top.* measures on a task .*selection:file=FILE"):
        trimtab.apply(plain_model(encoder), "fisher_top:share=0.1")
    with pytest.raises(InputError, match="BertModel is an encoder without a head"):
        trimtab.apply(AutoModel.from_pretrained(encoder.folder), "layer_norms")
    with pytest.raises(InputError, match=r"is in bfloat16, .*dtype=torch.float32"):
        trimtab.apply(plain_model(encoder, dtype=torch.bfloat16), "layer_norms")
    with pytest.raises(InputError, match="did you mean layer_norms"):
        trimtab.apply(plain_model(encoder), "layer_norm")
