"""Loading: the same logits as transformers, the same head for a seed, and clear refusals."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import FAMILIES, make_encoder_folder, make_task
from transformers import AutoModelForSequenceClassification

from trimtab.changes.methods import Full, LayerNorms
from trimtab.encoders import encoder as module
from trimtab.encoders.encoder import load
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.errors import InputError
from trimtab.training.fit import fit


@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits_as_transformers(family, encoder_of, tmp_path):
    """A whole classifier, head included, saved by transformers and read by both."""
    encoder, task = encoder_of(family), make_task()
    encoder.with_head(task, seed=3, head="default").save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ours = load(tmp_path).with_head(task, seed=99, head="default").eval()
    inputs = encoder.tokenizer(["the old cat sleeps", "a dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=0, atol=0)


def test_head_depends_on_the_seed_alone(encoder):
    task = make_task()
    first, again, other = (encoder.with_head(task, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {"classifier.weight"}


def test_loading_leaves_the_global_generator_alone(encoder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encoder.with_head(make_task())
    assert torch.equal(torch.rand(3), expected)


def test_class_names_and_kind_are_in_the_configuration(encoder):
    config = encoder.with_head(make_task("multi_label")).config
    assert config.id2label == {0: "cat", 1: "dog", 2: "fish"}
    assert config.problem_type == "multi_label_classification"


def test_linear_head_is_small_and_means_over_tokens(encoder_of):
    encoder, task = encoder_of("roberta"), make_task()
    model = encoder.with_head(task, head="linear").eval()
    head = {n: p.numel() for n, p in model.named_parameters() if not n.startswith("roberta.")}
    assert sum(head.values()) == 3 * 32 + 3
    inputs = encoder.tokenizer(["the old cat sleeps", "a dog"], padding=True, return_tensors="pt")
    alone = encoder.tokenizer(["a dog"], return_tensors="pt")
    with torch.no_grad():
        states = model.base_model(**alone).last_hidden_state.mean(1)
        torch.testing.assert_close(model(**inputs).logits[1:], model.classifier(states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "xlm-roberta"])
def test_a_folder_without_its_tokenizer_is_refused(family, encoder_of, tmp_path):
    """As `model.save_pretrained` leaves it: transformers would make a tokenizer without words of its own."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(encoder_of(family).folder / name, tmp_path)
    with pytest.raises(InputError, match="knows no words|cannot read encoder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("hidden_size", "abc"), ("num_attention_heads", 3), ("hidden_act", "wat"), ("num_hidden_layers", 0)],
)
def test_a_configuration_that_describes_no_model_is_refused(entry, value, encoder, tmp_path):
    folder = shutil.copytree(encoder.folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text()) | {entry: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        fit(load(folder), make_task(), LayerNorms(), epochs=1)


def test_a_limit_below_0_is_none(encoder, monkeypatch):
    """XLNet, whose positions are relative, writes -1."""
    odd = load(encoder.folder)
    monkeypatch.setattr(odd.config, "max_position_embeddings", -1)
    monkeypatch.setattr(module, "most_positions", lambda config: None)
    assert odd.max_length == 60, "the tokenizer's own"


def test_an_encoder_that_cannot_run_padded_texts_is_refused(tmp_path, encoder):
    """GPT-2 has no pad token, and its head asks for one."""
    from transformers import GPT2Config, GPT2Model

    folder = shutil.copytree(encoder.folder, tmp_path / "gpt2")
    torch.manual_seed(0)
    GPT2Model(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2, n_positions=64)).save_pretrained(folder)
    with pytest.raises(InputError, match="cannot predict padded texts"):
        fit(load(folder), make_task(), Full(), epochs=1, head="default")


def test_dropout_rate_can_be_set(encoder):
    model = encoder.with_head(make_task(), dropout=0.0)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.0}


@pytest.mark.parametrize("head", ["default", "linear"])
@pytest.mark.parametrize("change", [{"num_hidden_layers": 9}, {"vocab_size": 999}], ids=["layers", "words"])
def test_weights_that_do_not_fill_the_configuration_are_refused(change, head, encoder, tmp_path):
    folder = shutil.copytree(encoder.folder, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="do not fit its config.json"):
        load(folder).with_head(TWO_CLASSES, head=head)


def test_unknown_head_is_refused(encoder):
    with pytest.raises(InputError, match="known heads: auto, default, linear, cls"):
        encoder.with_head(make_task(), head="big")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights only"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonsense"}'), "cannot read encoder"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "cannot load encoder"),
    ],
)
def test_bad_folders_are_refused(damage, message, tmp_path):
    folder = make_encoder_folder("bert", tmp_path / "encoder")
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(folder).with_head(make_task())


def test_remote_code_is_never_run(tmp_path):
    folder = make_encoder_folder("bert", tmp_path / "encoder")
    (folder / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}')
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(InputError, match="cannot read encoder"):
        load(folder)


def test_missing_folder_is_refused_without_asking_the_hub(tmp_path):
    with pytest.raises(InputError, match="no encoder folder"):
        load(tmp_path / "nowhere")


def test_hash_follows_the_weights(tmp_path, encoder):
    folder = tmp_path / "copy"
    shutil.copytree(encoder.folder, folder)
    assert load(folder).sha256 == encoder.sha256
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).sha256 != encoder.sha256


def test_max_length_leaves_room_for_padding_positions(encoder_of):
    assert encoder_of("bert").max_length == 60
    assert (
        encoder_of("roberta").max_length == 60
    )  # 64 positions less padding_idx + 1 = 1 is more than the tokenizer's 60


def test_a_hub_encoder_keeps_its_commit(encoder, tmp_path, monkeypatch):
    """The hub's own download is replaced by a local snapshot, laid out as the hub's cache does."""
    import huggingface_hub

    snapshot = tmp_path / "snapshots" / "0123abc"
    shutil.copytree(encoder.folder, snapshot)
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = load("someone/small-bert", revision="main")
    assert (found.revision, found.sha256) == ("0123abc", encoder.sha256)
    assert (asked["name"], asked["revision"]) == ("someone/small-bert", "main")
    again = load("someone/small-bert@v1.0")
    assert (again.name, again.revision) == ("someone/small-bert", "0123abc")
    assert (asked["name"], asked["revision"]) == ("someone/small-bert", "v1.0")
    assert "bpe.codes" in asked["allow_patterns"]  # without it PhoBERT and BERTweet have no tokenizer
    assert not any(pattern.endswith((".bin", ".py", ".pt")) or pattern == "*" for pattern in asked["allow_patterns"])


def test_a_hub_that_does_not_answer_is_said_plainly(monkeypatch):
    import huggingface_hub

    def download(name, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match="cannot get encoder 'someone/bert' at revision 'v2' from the hub.*no route"):
        load("someone/bert", revision="v2")


def test_the_embedded_encoder_is_checked(encoder, monkeypatch):
    """Other weights in the package's folder are refused."""
    from trimtab.encoders import places as module

    monkeypatch.setattr(module, "_embedded_minilm", lambda: encoder.folder)
    with pytest.raises(InputError, match="not the published ones"):
        load("minilm")


def test_shards_are_read_and_a_missing_one_is_refused(encoder, tmp_path):
    model = encoder.with_head(make_task()).base_model
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    encoder.tokenizer.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    inputs = encoder.tokenizer(["the old cat"], return_tensors="pt")
    with torch.no_grad():
        expected = encoder.with_head(make_task(), seed=1).eval()(**inputs).logits
        torch.testing.assert_close(load(tmp_path).with_head(make_task(), seed=1).eval()(**inputs).logits, expected)
    shards[0].unlink()
    with pytest.raises(InputError, match="no weights"):
        load(tmp_path)
