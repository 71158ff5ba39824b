"""Runs as adapters of peft: read in another process they predict what the run predicts; what has no place is refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deltas import make_delta
from safetensors.torch import load_file
from small import make_encoder_folder, make_task, sentences
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

import trimtab
from trimtab.encoders.encoder import load
from trimtab.errors import InputError

pytest.importorskip("peft")
TEXTS = [*sentences(6, 99), " ".join(sentences(5, 98))]
# Of folders: for each, in it, the lines of its card, and then what its model makes of these texts.
ASKED = """
import json, os, sys
from pathlib import Path
found, (texts, folders) = [], json.load(sys.stdin)
for folder in folders:
    os.chdir(folder)
    names = {}
    exec(Path("README.md").read_text().split("```")[1].removeprefix("python"), names)
    inputs = names["tokenizer"](texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with names["torch"].no_grad():
        logits = names["model"](**inputs).logits.tolist()
    found.append([logits, list(names["model"].config.id2label.values())])
print(json.dumps(found))
"""


def read_by_cards(folders: list[Path]) -> list:
    """For each adapter the logits of TEXTS and the classes, by the lines of its card, in a process of its own."""
    asked = json.dumps([TEXTS, [str(folder) for folder in folders]])
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env=os.environ | {"HF_HUB_OFFLINE": "1"}, input=asked, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def logits_of(delta, encoder) -> torch.Tensor:
    inputs = encoder.tokenizer(TEXTS, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with torch.no_grad():
        return delta.attach(encoder)(**inputs).logits


def exported(delta, tmp_path, **options) -> tuple[Path, dict, dict]:
    """The adapter of `delta`, its configuration and its tensors."""
    delta.save(tmp_path / "run")
    folder = trimtab.export(tmp_path / "run", to="peft", out=tmp_path / "adapter", **options)
    return (
        folder,
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )


@pytest.mark.slow
def test_peft_reads_them_in_another_process_by_the_lines_of_the_card(encoder_of, tmp_path):
    methods = {"layer_norms": 1e-6, "layer_norms:last=2": 1e-6, "lora:rank=3,alpha=5": 1e-5, "biases": 1e-5}
    made, task = [], make_task()
    for family in ("bert", "roberta", "distilbert", "deberta-v2"):
        for method, tolerance in methods.items():
            delta = make_delta(encoder_of(family), task, method, head="default")
            folder, _, _ = exported(delta, tmp_path / f"{family}-{len(made)}")
            made.append((folder, logits_of(delta, encoder_of(family)), tolerance))
    for (folder, expected, tolerance), (logits, classes) in zip(made, read_by_cards([m[0] for m in made]), strict=True):
        torch.testing.assert_close(
            torch.tensor(logits), expected, rtol=tolerance, atol=tolerance, msg=lambda m, at=folder: f"{at}: {m}"
        )
        assert classes == list(task.classes)


@pytest.mark.filterwarnings("ignore:Unsupported layer type", "ignore:.is_gradient_checkpointing")  # peft's own
@pytest.mark.parametrize(
    ("family", "kind"), [("bert", "multi_label"), ("deberta-v2", "regression"), ("roberta", "single_label")]
)
def test_the_lines_of_the_card_load_it(family, kind, encoder_of, tmp_path, monkeypatch):
    encoder, names = encoder_of(family), {}
    delta = make_delta(encoder, make_task(kind), "layer_norms", head="default")
    folder, _, _ = exported(delta, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    monkeypatch.chdir(folder)
    card = (folder / "README.md").read_text()
    exec(card.split("```")[1].removeprefix("python").replace('["A text."]', '["the old cat"]'), names)
    inputs = encoder.tokenizer(["the old cat"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], delta.attach(encoder)(**inputs).logits, rtol=1e-6, atol=1e-6)
    assert "merge_and_unload" not in card


@pytest.mark.filterwarnings("ignore:Unsupported layer type", "ignore:.is_gradient_checkpointing")
def test_a_base_with_a_head_of_another_task(tmp_path, monkeypatch):
    folder, names = make_encoder_folder("bert", tmp_path / "base"), {}
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).save_pretrained(folder)
    encoder = load(folder)
    delta = make_delta(encoder, make_task(), "layer_norms", head="default")
    adapter, _, _ = exported(delta, tmp_path)
    monkeypatch.chdir(adapter)
    exec(
        (adapter / "README.md").read_text().split("```")[1].removeprefix("python").replace("A text.", "the cat"), names
    )
    with torch.no_grad():
        expected = delta.attach(encoder)(**encoder.tokenizer(["the cat"], return_tensors="pt")).logits
    torch.testing.assert_close(names["logits"], expected, rtol=1e-6, atol=1e-6)
    back = trimtab.import_peft(adapter, tmp_path / "back")
    assert trimtab.Delta.load(back).values.keys() == delta.values.keys()


@pytest.mark.parametrize(
    "method", ["layer_norms:last=1", "layer_norms:which=attention,what=weight", "lora:targets=all,last=2"]
)
def test_only_the_modules_that_were_touched_are_named_and_each_by_its_whole_name(method, encoder, tmp_path):
    delta = make_delta(encoder, make_task(), method, head="default")
    _, config, tensors = exported(delta, tmp_path)
    body = {name for name in delta.values if name.startswith("bert")}
    paths = {re.sub(r"\.(lora_[AB]\.default\.)?(weight|bias)$", "", name) for name in body}
    assert set(config["target_modules"]) == paths
    model = encoder.with_head(make_task(), head="default")
    assert paths <= {name for name, _ in model.named_modules()}
    inside = {name for name in tensors if "ln_tuning" in name or "lora_" in name}
    assert len(inside) == 2 * len(paths)


@pytest.mark.parametrize("method", ["biases", "biases:which=query+intermediate", "lora:rank=2+biases", "head"])
def test_biases_and_a_head_alone_travel_in_a_lora(method, encoder, tmp_path):
    delta = make_delta(encoder, make_task(), method, head="default")
    _, config, tensors = exported(delta, tmp_path)
    n_biases = sum(name.startswith("bert") and name.endswith("bias") for name in delta.values)
    assert config["peft_type"] == "LORA"
    assert config["bias"] == ("all" if n_biases else "none")
    assert sum("bert." in name and name.endswith(".bias") for name in tensors) == n_biases
    moved = [value for name, value in tensors.items() if "lora_" in name and value.any()]
    assert bool(moved) == ("lora" in method)


def test_every_module_that_is_new_in_the_base_comes_along(encoder_of, tmp_path):
    delta = make_delta(encoder_of("deberta-v2"), make_task(), "layer_norms", head="default")
    _, config, tensors = exported(delta, tmp_path / "deberta")
    assert config["modules_to_save"] == ["pooler", "classifier"]  # peft by itself would leave the pooler behind
    assert {"base_model.model.pooler.dense.weight", "base_model.model.classifier.weight"} <= tensors.keys()
    # A checkpoint of masked words has no pooler.
    folder = make_encoder_folder("bert", tmp_path / "masked")
    config = BertConfig.from_pretrained(folder)
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder)
    delta = make_delta(load(folder), make_task(), "layer_norms", head="default")
    _, config, tensors = exported(delta, tmp_path / "bert")
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]
    assert "base_model.model.bert.pooler.dense.bias" in tensors


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_other_kinds_of_tasks_and_a_linear_head_on_the_first_token(kind, encoder, tmp_path):
    delta = make_delta(encoder, make_task(kind), "layer_norms", head="cls")
    _, config, tensors = exported(delta, tmp_path)
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]  # the pooler hands the state through
    assert tensors["base_model.model.classifier.weight"].shape == (1 if kind == "regression" else 3, 32)


@pytest.mark.parametrize(
    ("method", "options", "why"),
    [
        ("random:count=50", {}, "single elements .* --to merged"),
        ("full", {}, r"\(full\) changes bert.embeddings.position_embeddings.weight.* --to merged"),
        ("last_layers:k=1", {}, "--to merged"),
        ("layer_norms+biases", {}, "LayerNorm.weight .* none for this together: .* --to merged"),
        ("layer_norms", {"head": "linear"}, "mean of the token states.*trimtab serve.*--to onnx.*--head default"),
        ("layer_norms", {"head": "cls", "pairs": "apart"}, "texts of a pair apart.*--to onnx"),
    ],
)
def test_what_has_no_place_is_refused_with_what_works(method, options, why, encoder, tmp_path):
    delta = make_delta(encoder, make_task(pairs="pairs" in options), method, **{"head": "default"} | options)
    with pytest.raises(InputError, match=why):
        exported(delta, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_what_is_said_of_the_base(encoder, tmp_path):
    delta = make_delta(encoder, make_task(), "layer_norms", head="default")
    _, config, _ = exported(delta, tmp_path / "folder")
    assert (config["base_model_name_or_path"], config["revision"]) == (str(encoder.folder.absolute()), None)
    folder, config, _ = exported(delta, tmp_path / "hub", base_name="owner/name@abc")
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "abc")
    assert "base_model: owner/name\n" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="neither a hub id .* nor a folder that exists"):
        exported(delta, tmp_path / "nowhere", base_name="/no/such/folder")


def test_the_command_takes_the_name_of_the_base(command, encoder, tmp_path):
    make_delta(encoder, make_task(), "layer_norms", head="default").save(tmp_path / "run")
    code, _, err = command("export", tmp_path / "run", "--to", "peft", "--base-name", "owner/name")
    assert code == 0, err
    assert (
        json.loads((tmp_path / "run" / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "owner/name"
    )
    code, _, err = command("export", tmp_path / "run", "--base-name", "owner/name")
    assert code == 2
    assert "the form merged has no option base_name" in err
