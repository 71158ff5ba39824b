"""Deltas: saved and read back whole, refused where they do not belong, merged to the same logits."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from small import FAMILIES, make_task

from trimtab.changes import delta as delta_module
from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import TENSORS, Delta
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Biases, Full, Head, LastLayers, LayerNorms, Union
from trimtab.changes.top import Random
from trimtab.encoders.encoder import load
from trimtab.errors import InputError

METHODS = (
    Full(), Head(), LastLayers(1), Biases(), LayerNorms(), Random(count=300), Lora(rank=2), Union((LayerNorms(), Lora(rank=2))),
    LayerNorms(last=2), Biases(last=1), Lora(rank=2, last=2), Union((LayerNorms(last=1), Lora(rank=2, last=2))),
)  # fmt: skip


def changed_model(encoder, method, head="default"):
    """A model whose selected elements were moved by random amounts, its selection and its delta."""
    task = make_task()
    model = encoder.with_head(task, seed=4, head=head)
    torch.manual_seed(0)
    selection, additions = add_and_select(method, model)
    selection = selection | Head().attach(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            at = selection.elements.get(name, [])
            where = slice(None) if at is None else torch.as_tensor(at, dtype=torch.long)
            parameter.view(-1)[where] += 0.3 * torch.randn_like(parameter.view(-1)[where])
    delta = Delta.extract(
        model, selection, encoder, task.description(), method, additions=additions, head=head, max_length=40
    )
    return model.eval(), selection, delta


def logits_of(model, encoder):
    inputs = encoder.tokenizer(["the old cat sleeps", "a very blue dog eats"], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_saved_applied_and_merged_give_the_same_logits(method, encoder, tmp_path):
    model, selection, delta = changed_model(encoder, method)
    delta.save(tmp_path)
    again = Delta.load(tmp_path)
    for name, at in selection.elements.items():
        assert at is None if name not in again.positions else np.array_equal(again.positions[name], at)
    assert again.values.keys() == selection.elements.keys()
    assert (again.count_body, again.count_head) == (selection.backbone.count, selection.head.count)
    expected = logits_of(model, encoder)
    torch.testing.assert_close(logits_of(again.attach(encoder), encoder), expected, rtol=0, atol=0)
    merged = again.merged(encoder)
    torch.testing.assert_close(logits_of(merged, encoder), expected, rtol=1e-5, atol=1e-5)
    assert not any("lora" in name or "base_layer" in name for name in merged.state_dict())


def test_a_delta_says_which_layers_lora_was_added_to_where_it_is_not_to_all(encoder, tmp_path):
    for method, last in ((Lora(rank=2), {}), (Lora(rank=2, last=2), {"last": 2})):
        changed_model(encoder, method)[2].save(tmp_path)
        (addition,) = Delta.load(tmp_path).additions
        # Without a limit to the byte as before there was one.
        assert addition.options == {"rank": 2, "alpha": 16.0, "dropout": 0.0, "targets": "default"} | last


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["default", "linear"])
def test_no_head_is_lost_in_any_family(family, head, encoder_of, tmp_path):
    encoder = encoder_of(family)
    model, _, delta = changed_model(encoder, LayerNorms(), head)
    delta.save(tmp_path)
    found = logits_of(Delta.load(tmp_path).attach(encoder), encoder)
    torch.testing.assert_close(found, logits_of(model, encoder), rtol=0, atol=0)


def test_size_follows_the_selection(encoder, tmp_path):
    sizes = {}
    for count in (100, 1000):
        changed_model(encoder, Random(count=count))[2].save(tmp_path / str(count))
        sizes[count] = (tmp_path / str(count) / TENSORS).stat().st_size
    per_element = (sizes[1000] - sizes[100]) / 900
    assert per_element < 16  # 8 bytes for value and position, the rest for the names of more parameters


@pytest.mark.parametrize(
    ("name", "value"), [("truncation_side", "left"), ("model_input_names", ["input_ids", "attention_mask"])]
)
def test_a_tokenizer_that_cuts_or_marks_otherwise_is_refused(name, value, encoder, tmp_path):
    delta = changed_model(encoder, LayerNorms())[2]
    folder = shutil.copytree(encoder.folder, tmp_path / "copy")
    delta.attach(load(folder))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(InputError, match="another tokenizer"):
        delta.attach(load(folder))


def test_another_encoder_is_refused(encoder_of):
    delta = changed_model(encoder_of("bert"), LayerNorms())[2]
    with pytest.raises(InputError, match="give the encoder it was trained on"):
        delta.attach(encoder_of("roberta"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"', "hidden_act='gelu' in its configuration"),
        ("config.json", '"transformers_version": "', '"transformers_version": "0.', None),
        ("tokenizer.json", '"old"', '"new"', "another tokenizer"),
    ],
)
def test_an_encoder_that_answers_otherwise_is_refused(file, old, new, message, encoder, tmp_path):
    delta = changed_model(encoder, LayerNorms())[2]
    delta.save(tmp_path / "delta")
    shutil.copytree(encoder.folder, tmp_path / "encoder")
    text = (encoder.folder / file).read_text()
    assert old in text
    (tmp_path / "encoder" / file).write_text(text.replace(old, new))
    changed, again = load(tmp_path / "encoder"), Delta.load(tmp_path / "delta")
    if message is None:
        again.attach(changed)
    else:
        with pytest.raises(InputError, match=message):
            again.attach(changed)


def test_a_description_that_was_changed_is_refused(encoder, tmp_path):
    changed_model(encoder, LayerNorms())[2].save(tmp_path)
    path = tmp_path / TENSORS
    path.write_bytes(path.read_bytes().replace(b'\\"cat\\"', b'\\"cot\\"'))
    with pytest.raises(InputError, match="does not match its checksum"):
        Delta.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3] + bytes(3 * [data[-1] ^ 255]),
        lambda data: b"",
        lambda data: b"not a delta at all",
    ],
    ids=["cut", "flipped", "empty", "other"],
)
def test_damaged_files_are_refused(damage, encoder, tmp_path):
    changed_model(encoder, LayerNorms())[2].save(tmp_path)
    path = tmp_path / TENSORS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        Delta.load(tmp_path)


def test_a_delta_of_another_format_says_so(encoder, tmp_path, monkeypatch):
    delta = changed_model(encoder, LayerNorms())[2]
    monkeypatch.setattr(delta_module, "FORMAT", 2)
    delta.save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="has delta format 2; this version reads 3, 4, 5"):
        Delta.load(tmp_path)


@pytest.mark.parametrize("method", [LayerNorms(), Random(count=50)], ids=repr)
def test_a_delta_holds_copies(method, encoder):
    model, _, delta = changed_model(encoder, method)
    before = {name: value.clone() for name, value in delta.values.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in delta.values.items())


def test_what_does_not_fit_changes_nothing(encoder):
    """The last of the values is of another size: none may be written before that is seen."""
    _, _, delta = changed_model(encoder, LayerNorms())
    model = encoder.with_head(make_task(), seed=9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    last = list(delta.values)[-1]
    wrong = {name: torch.zeros(3, 5) if name == last else value for name, value in delta.values.items()}
    with pytest.raises(InputError, match=f"{last}.*does not fit"):
        dataclasses.replace(delta, values=wrong).write_into(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_folder_without_a_delta_is_refused(tmp_path):
    with pytest.raises(InputError, match="no delta in"):
        Delta.load(tmp_path)


def test_the_readable_copy_says_what_the_file_says(encoder, tmp_path):
    changed_model(encoder, Lora(rank=2))[2].save(tmp_path)
    readable = json.loads((tmp_path / "delta.json").read_text())
    assert readable["method"] == "lora:rank=2"
    assert readable["task"]["classes"] == ["cat", "dog", "fish"]
    assert readable["base"]["sha256"] == encoder.sha256
