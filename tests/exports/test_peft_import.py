"""Adapters of peft as runs: there and back, adapters that peft has made itself, and what no run can be."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from deltas import make_delta
from safetensors.torch import load_file, save_file
from small import ANIMALS, FAMILIES, make_task, sentences, write_csv
from transformers import AutoModelForSequenceClassification

import trimtab
from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Unsupported layer type", "ignore:.is_gradient_checkpointing"
)  # peft's own
TEXTS = sentences(12, 99)


def there_and_back(delta: Delta, tmp_path: Path) -> Delta:
    delta.save(tmp_path / "run")
    adapter = trimtab.export(tmp_path / "run", to="peft", out=tmp_path / "adapter")
    return Delta.load(trimtab.import_peft(adapter, tmp_path / "back"))


def made_by_peft(encoder: Encoder, config: Any, folder: Path, *, n_outputs: int = 3) -> torch.Tensor:
    """Saves what peft makes of `config`, moved at random as if trained, and returns its logits for TEXTS."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForSequenceClassification.from_pretrained(encoder.folder, num_labels=n_outputs)
        model = peft.get_peft_model(model, config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return logits_of(model, encoder)


def logits_of(model: Any, encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("method", ["layer_norms", "layer_norms:which=output,what=weight,last=2"])
def test_layer_norms_come_back_bit_by_bit(family, method, encoder_of, tmp_path):
    delta = make_delta(encoder_of(family), make_task("multi_label", pairs=True), method, head="default")
    back = there_and_back(delta, tmp_path)
    assert back.values.keys() == delta.values.keys()
    assert all(torch.equal(back.values[name], value) for name, value in delta.values.items())
    assert (back.task, back.method, back.max_length) == (delta.task, delta.method, delta.max_length)
    assert (back.count_body, back.count_head, back.base) == (delta.count_body, delta.count_head, delta.base)


@pytest.mark.parametrize("method", ["lora:rank=3,alpha=5,targets=all,last=2", "biases", "lora:rank=2+biases", "head"])
def test_other_changes_come_back_too(method, encoder, tmp_path):
    delta = make_delta(encoder, make_task(), method, head="default")
    back = there_and_back(delta, tmp_path)
    assert back.values.keys() == delta.values.keys()
    assert all(torch.equal(back.values[name], value) for name, value in delta.values.items())
    assert (back.additions, back.method) == (delta.additions, delta.method)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["layer_norms", "lora:rank=2", "lora:rank=2,targets=all", "biases", "head"])
def test_every_family_there_and_back(family, method, encoder_of, tmp_path):
    if (family, method) == ("modernbert", "biases"):
        pytest.skip("it has none")
    delta = make_delta(encoder_of(family), make_task(), method, head="default")
    back = there_and_back(delta, tmp_path)
    assert back.values.keys() == delta.values.keys()
    assert all(torch.equal(back.values[name], value) for name, value in delta.values.items())


def lora(**options: Any) -> Any:
    return peft.LoraConfig(
        task_type="SEQ_CLS", **{"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"]} | options
    )


@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize(
    ("family", "config", "method"),
    [
        ("bert", lora(), "lora:rank=4,alpha=6.0"),
        ("bert", lora(use_rslora=True), "lora:rank=4,alpha=12.0"),
        ("bert", lora(layers_to_transform=[1, 2], target_modules=["key"]), "lora:rank=4,alpha=6.0,targets=key,last=2"),
        ("bert", lora(bias="all"), "lora:rank=4,alpha=6.0+biases"),
        ("roberta", lora(target_modules="all-linear"), "lora:rank=4,alpha=6.0,targets=all"),
        ("distilbert", lora(target_modules=["q_lin", "v_lin"]), "lora:rank=4,alpha=6.0"),
        (
            "deberta-v2",
            lora(target_modules=["query_proj"], modules_to_save=["pooler"]),
            "lora:rank=4,alpha=6.0,targets=query",
        ),
        ("bert", peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]), "layer_norms"),
        ("roberta", peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["output.LayerNorm"]), "layer_norms"),
    ],
)
def test_what_peft_has_made_predicts_as_it_does(family, config, method, encoder_of, tmp_path):
    encoder = encoder_of(family)
    expected = made_by_peft(encoder, config, tmp_path / "adapter")
    run = trimtab.import_peft(tmp_path / "adapter", tmp_path / "run", labels=ANIMALS)
    delta = Delta.load(run)
    torch.testing.assert_close(logits_of(delta.attach(encoder), encoder), expected, rtol=1e-5, atol=1e-5)
    assert delta.method == method
    likely = [list(prediction.probabilities.values()) for prediction in trimtab.predict(run, TEXTS)]
    torch.testing.assert_close(torch.tensor(likely), expected.softmax(-1), rtol=0, atol=0.02)  # predict is in bfloat16


def test_a_run_that_was_brought_in_is_evaluated_served_and_exported(encoder, tmp_path):
    made_by_peft(encoder, lora(), tmp_path / "adapter")
    run = trimtab.import_peft(tmp_path / "adapter", tmp_path / "run", labels="cat,dog,fish")
    table = write_csv(tmp_path / "rows.csv", [{"text": t, "label": ANIMALS[i % 3]} for i, t in enumerate(TEXTS)])
    assert trimtab.evaluate(run, table)["rows"] == len(TEXTS)
    pool = trimtab.Pool(encoder, {"animals": run})
    assert pool.predict([("animals", TEXTS[0])])[0].label in ANIMALS
    assert trimtab.export(run, out=tmp_path / "merged").is_dir()


def test_labels_and_kind_come_from_the_base_or_the_user(encoder, tmp_path):
    made_by_peft(encoder, lora(), tmp_path / "three")
    with pytest.raises(InputError, match=r"has 3 outputs, and the base names 2: .*--labels"):
        trimtab.import_peft(tmp_path / "three", tmp_path / "run")
    with pytest.raises(InputError, match=r"has 3 outputs, and --labels names 2"):
        trimtab.import_peft(tmp_path / "three", tmp_path / "run", labels="a,b")
    made_by_peft(encoder, lora(), tmp_path / "two", n_outputs=2)
    assert Delta.load(trimtab.import_peft(tmp_path / "two", tmp_path / "r2")).task["classes"] == ["LABEL_0", "LABEL_1"]
    made_by_peft(encoder, lora(), tmp_path / "one", n_outputs=1)
    run = trimtab.import_peft(tmp_path / "one", tmp_path / "r1", text="a,b", max_length=20)
    delta = Delta.load(run)
    assert (delta.task["kind"], delta.task["classes"], delta.max_length) == ("regression", [], 20)
    assert isinstance(trimtab.predict(run, [("the cat", "a dog")])[0].value, float)
    delta = Delta.load(trimtab.import_peft(tmp_path / "two", tmp_path / "r3", labels="a,b", kind="multi_label"))
    assert (delta.task["kind"], delta.task["classes"]) == ("multi_label", ["a", "b"])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"use_dora": True}, "use_dora=True: DoRA"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern=.*several ranks"),
        ({"alpha_pattern": {"query": 2}}, "alpha_pattern=.*several scales"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"a_feature_of_2030": {"x": 1}}, "a_feature_of_2030="),
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"task_type": "CAUSAL_LM"}, "made for 'CAUSAL_LM'"),
        ({"r": "many"}, "r='many'"),
        ({"base_model_name_or_path": None}, "does not say what it was made for"),
        ({"base_model_name_or_path": "./gone"}, "no encoder folder './gone'.*--encoder"),
        ({"r": 3}, "peft cannot read|does not fit"),
    ],
)
def test_what_no_run_can_be_is_refused_by_name(changed, why, encoder, tmp_path):
    made_by_peft(encoder, lora(), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(InputError, match=why):
        trimtab.import_peft(tmp_path / "adapter", tmp_path / "run", labels=ANIMALS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        (
            "deberta-v2",
            {"target_modules": ["query_proj"]},
            "lacks pooler.dense.bias, pooler.dense.weight.*modules_to_save",
        ),
        ("bert", {"modules_to_save": ["word_embeddings"]}, "word_embeddings.weight whole .*beyond the head"),
        ("bert", {"target_modules": ["layer.0.attention.self.query"]}, "1 linear maps of kind query"),
        ("bert", {"target_modules": ["pooler.dense"]}, "updates bert.pooler.dense.*maps of the layers alone"),
    ],
)
def test_what_the_tensors_do_not_fit_is_refused(family, options, why, encoder_of, tmp_path):
    made_by_peft(encoder_of(family), lora(**options), tmp_path / "adapter")
    with pytest.raises(InputError, match=why):
        trimtab.import_peft(tmp_path / "adapter", tmp_path / "run", labels=ANIMALS)


def test_pickled_damaged_and_foreign_files_are_refused(encoder_of, encoder, tmp_path):
    adapter, run = tmp_path / "adapter", tmp_path / "run"
    with pytest.raises(InputError, match="no adapter of peft in .*adapter_config.json is missing"):
        trimtab.import_peft(tmp_path, run)
    made_by_peft(encoder, lora(), adapter)
    with pytest.raises(InputError, match="updates bert.encoder.* which this encoder has not: it is of another one"):
        trimtab.import_peft(adapter, run, encoder_of("distilbert"), labels=ANIMALS)
    with pytest.raises(InputError, match="exists"):
        trimtab.import_peft(adapter, adapter, labels=ANIMALS)
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    torch.save(tensors, adapter / "adapter_model.bin")
    for forged in ({"trimtab": "[1]"}, {"trimtab": json.dumps({"names": [], "task": {}, "base_sha256": "x"})}):
        save_file(tensors, path, forged)
        with pytest.raises(InputError, match="damaged"):
            trimtab.import_peft(adapter, run, labels=ANIMALS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        trimtab.import_peft(adapter, run, labels=ANIMALS)
    path.unlink()
    with pytest.raises(InputError, match="pickled .*can run code"):
        trimtab.import_peft(adapter, run, labels=ANIMALS)


def test_an_exported_adapter_knows_its_weights(encoder, encoder_of, tmp_path):
    make_delta(encoder, make_task(), "layer_norms", head="default").save(tmp_path / "run")
    adapter = trimtab.export(tmp_path / "run", to="peft", out=tmp_path / "adapter")
    with pytest.raises(InputError, match="was made for weights"):
        trimtab.import_peft(adapter, tmp_path / "back", encoder_of("roberta"))


def test_the_command_brings_it_in(command, encoder, tmp_path):
    made_by_peft(encoder, lora(), tmp_path / "adapter")
    code, out, err = command(
        "import", tmp_path / "adapter", "--out", tmp_path / "run", "--labels", "cat,dog,fish", "--encoder", encoder.folder,
        "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["method"] == "lora:rank=4,alpha=6.0"
    code, out, err = command("predict", tmp_path / "run", "--text", "the cat")
    assert code == 0, err
    assert command("import", tmp_path / "adapter", "--out", tmp_path / "run")[0] == 2
