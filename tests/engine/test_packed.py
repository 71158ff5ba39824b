"""Packed batches against Hugging Face's padded forward: logits and gradients, on every family."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import CONFIGS, FAMILIES, make_encoder_folder, make_task
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, CamembertConfig, ModernBertConfig, RobertaConfig

from trimtab.encoders.encoder import load
from trimtab.encoders.heads import TWO_CLASSES, HeadShape, LinearHead, agree
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine import padded, prepare
from trimtab.engine.layout import Layout
from trimtab.engine.packed import PackedModel, pack
from trimtab.engine.padded import padded_logits

PADDED = ("mpnet", "deberta-v2", "roformer")  # families that never ask transformers' registry for attention
LENGTHS = (5, 40, 17, 50, 2, 33, 28, 1)
WITH_TYPES = ("bert", "electra", "albert", "roformer")

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")


def random_model(config: Any) -> Any:
    """A model of three classes with weights large enough that a wrong attention shows."""
    torch.manual_seed(0)
    config.num_labels = 3
    return enlarged(AutoModelForSequenceClassification.from_config(config))


def enlarged(model: Any) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0, std=0.15)
    return model.eval()


def random_texts(family: str = "bert") -> ModelInputs:
    """Token ids of texts of LENGTHS, and segment ids where the family has them."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(4, 19, size=n).astype(np.int32) for n in LENGTHS]
    types = [(np.arange(n) > n // 2).astype(np.int32) for n in LENGTHS]
    return ModelInputs(ids, types if family in WITH_TYPES else None)


def gradients(model: Any, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    flat = [torch.cat([grads[name].flatten() for name in sorted(grads)]) for grads in (a, b)]
    return float(torch.cosine_similarity(flat[0], flat[1], 0))


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=2e-6 * scale, msg=lambda m, n=name: f"{n}: {m}")


def train_only(model: Any, pattern: str) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.search(pattern, name) is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_padded_forward(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    expected = padded_logits(model, texts)
    expected_gradients = gradients(model, expected)
    prepared = prepare(model, compute="float32")
    logits = prepared.logits(texts)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, logits), expected_gradients)
    assert prepared.packed == (family not in PADDED)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_that_a_text_holds_is_a_token(family: str) -> None:
    """As a tokenizer makes it of the word <pad>; the RoBERTa family does not count it in its positions."""
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    padding = model.config.pad_token_id or 0
    ids = [row.copy() for row in texts.ids]
    ids[0][1], ids[-1][-1] = padding, padding
    longest = max(ids, key=len)
    longest[[2, 4, 5]] = padding
    texts = ModelInputs(ids, texts.type_ids)
    expected = padded_logits(model, texts)
    prepared = prepare(model, compute="float32")
    torch.testing.assert_close(prepared.logits(texts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    expected = padded_logits(model, texts)
    expected_gradients = gradients(model, expected)
    prepared = prepare(model, compute="bfloat16")
    logits = prepared.logits(texts)
    assert logits.dtype == torch.float32
    assert 0 < (logits - expected).abs().max() < 0.03 * expected.abs().max()  # 3 layers at 8 bits of mantissa
    assert cosine(gradients(model, logits), expected_gradients) > 0.998


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_filler_text_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    prepared = prepare(model, compute="bfloat16")
    texts = texts.take(range(1, len(texts)))
    batch = pack(model, texts)
    rounded = prepared._packed.rounded(batch)
    assert len(rounded) == len(batch) + 1
    assert rounded.input_ids.shape[1] % 8 == 0
    logits = prepared.logits(texts)
    found = gradients(model, logits)
    monkeypatch.setattr(PackedModel, "rounded", lambda model, batch: batch)
    expected = prepared.logits(texts)
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02 * float(expected.detach().abs().max()))
    assert cosine(found, gradients(model, expected)) > 0.999


@pytest.mark.parametrize("tokens", [8, 16, 40, 256, 2048])
def test_round_numbers_of_tokens_stay(tokens: int) -> None:
    model = random_model(CONFIGS["bert"]())
    prepared = prepare(model, compute="bfloat16")
    batch = pack(model, ModelInputs([np.arange(5, 13)] * (tokens // 8)))
    assert prepared._packed.rounded(batch) is batch


@pytest.mark.parametrize("trained", ["LayerNorm|classifier", "bias|classifier", "layer.2|classifier", "classifier"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_gradients_of_a_selection(trained: str, compute: Any) -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    train_only(model, trained)
    expected = gradients(model, padded_logits(model, texts))
    prepared = prepare(model, compute=compute)
    found = gradients(model, prepared.logits(texts))
    assert found.keys() == expected.keys()
    if compute == "float32":
        assert_same_gradients(found, expected)
    assert cosine(found, expected) > 0.998
    assert all(grad.dtype == torch.float32 for grad in found.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_picked_gradients_are_those_of_dense_ones(family: str) -> None:
    """Of a few elements of every matrix, the position table with padding and ALBERT's shared layers among them."""
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    matrices = [name for name, p in model.named_parameters() if p.ndim == 2 and "classifier" not in name]
    train_only(model, "|".join(f"^{re.escape(name)}$" for name in matrices))
    prepared = prepare(model, compute="bfloat16")
    dense = gradients(model, prepared.logits(texts))
    found, expected = {}, {}
    for name, gradient in dense.items():
        at = torch.randperm(gradient.numel())[: gradient.numel() // 100].sort().values
        values = nn.Parameter(torch.zeros(len(at)))
        if prepared.pick(name, at, values):
            found[name], expected[name] = values, gradient.flatten()[at]
    rest = gradients(model, prepared.logits(texts))
    picked = {name: values.grad for name, values in found.items() if values.grad is not None}
    assert len(picked) >= 8
    assert not picked.keys() & rest.keys()  # no dense gradient beside a picked one
    assert picked.keys() | rest.keys() == dense.keys()
    assert cosine(picked, {name: expected[name] for name in picked}) > 0.998


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "deberta-v2"])
def test_lora_adapters(family: str, compute: Any) -> None:
    peft = pytest.importorskip("peft")
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    adapted = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and re.search("q|value", name)]
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=adapted, lora_dropout=0.0)
    model = enlarged(peft.inject_adapter_in_model(config, model))
    train_only(model, "lora_|classifier")
    expected_logits = padded_logits(model, texts)
    expected = gradients(model, expected_logits)
    prepared = prepare(model, compute=compute)
    logits = prepared.logits(texts)
    found = gradients(model, logits)
    if compute == "float32":
        torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
        assert_same_gradients(found, expected)
    assert found.keys() == expected.keys()
    assert any("lora_A" in name for name in found)
    assert (logits - expected_logits).abs().max() < 0.03 * expected_logits.abs().max()
    assert cosine(found, expected) > 0.998


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_windows_and_pooling(pooling: str) -> None:
    sizes = {"num_hidden_layers": 4, "global_attn_every_n_layers": 3, "classifier_pooling": pooling}
    config = ModernBertConfig(**(CONFIGS["modernbert"]().to_dict() | sizes | {"layer_types": None}))
    assert max(LENGTHS) > 2 * config.local_attention  # the window matters
    assert "sliding_attention" in config.layer_types
    model, texts = random_model(config), random_texts("modernbert")
    prepared = prepare(model, compute="float32")
    expected = padded_logits(model, texts)
    torch.testing.assert_close(prepared.logits(texts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_compact_head_takes_the_mean_of_each_text(family: str) -> None:
    torch.manual_seed(0)
    model = enlarged(LinearHead(AutoModel.from_config(CONFIGS[family]()), "body", 3))
    texts = random_texts(family)
    expected = padded_logits(model, texts)
    prepared = prepare(model, compute="float32")
    torch.testing.assert_close(prepared.logits(texts), expected, rtol=1e-5, atol=1e-5)
    assert prepared.packed == (family not in PADDED)


@pytest.mark.parametrize("config", [RobertaConfig, CamembertConfig])
def test_positions_start_behind_padding(config: Any) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    model = random_model(config(**sizes, vocab_size=30, max_position_embeddings=60, pad_token_id=1))
    batch = pack(model, ModelInputs([np.array([5, 6, 7]), np.array([8, 9])]))
    assert batch.position_ids.tolist() == [[2, 3, 4, 2, 3]]


def test_a_packed_batch_lays_texts_in_a_row() -> None:
    model = random_model(CONFIGS["bert"]())
    ids, types = [np.array([5, 6, 7], np.int32), np.array([8, 9], np.int32)], [np.array([0, 0, 1]), np.array([0, 1])]
    batch = pack(model, ModelInputs(ids, types))
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 0, 1, 0, 1]]
    assert (batch.starts.tolist(), batch.lengths.tolist(), len(batch)) == ([0, 3], [3, 2], 2)


def test_means_of_segments() -> None:
    hidden = torch.arange(10.0).view(5, 2)
    means = Layout([0, 3], [3, 2]).means(hidden)
    torch.testing.assert_close(means, torch.stack([hidden[:3].mean(0), hidden[3:].mean(0)]))


def test_a_family_that_cannot_run_packed_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padded, "_warned", set())
    with pytest.warns(UserWarning, match="MPNetForSequenceClassification cannot run on padding-free batches"):
        prepare(random_model(CONFIGS["mpnet"]()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(random_model(CONFIGS["mpnet"]()))


def test_restoring_leaves_nothing_behind() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected, attention = padded_logits(model, texts), model.config._attn_implementation
    prepared = prepare(model, compute="bfloat16")
    prepared.logits(texts).sum().backward()
    prepared.restore()
    assert torch.equal(padded_logits(model, texts), expected)
    assert model.config._attn_implementation == attention
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_prepared_model_still_runs_padded(family: str, compute: Any) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    expected = padded_logits(model, texts)
    prepare(model, compute=compute)
    error = (padded_logits(model, texts) - expected).abs().max()
    assert error < (1e-5 if compute == "float32" else 0.03 * expected.abs().max())


def test_changed_weights_are_seen() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    prepared = prepare(model, compute="bfloat16")
    before = prepared.logits(texts).detach()
    with torch.no_grad():
        for parameter in model.base_model.encoder.parameters():
            parameter.mul_(1.5)
    after = prepared.logits(texts).detach()
    prepared.restore()
    expected = padded_logits(model, texts)
    assert (after - before).abs().max() > 0.1
    assert (after - expected).abs().max() < 0.03 * expected.abs().max()


def test_frozen_layers_keep_no_graph() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    train_only(model, "classifier")
    prepared = prepare(model, compute="bfloat16")
    seen = []
    model.base_model.encoder.register_forward_hook(lambda m, i, output: seen.append(output[0].requires_grad))
    assert prepared.logits(texts).requires_grad
    assert seen == [False]


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_dropout_repeats_under_a_seed_and_turns_off(compute: Any) -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    model.train()
    prepared = prepare(model, compute=compute)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(prepared.logits(texts).detach())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    for layer in model.base_model.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    without = prepared.logits(texts).detach()
    model.eval()
    torch.testing.assert_close(without, prepared.logits(texts).detach())


def test_evaluation_leaves_the_generator_alone() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    before = torch.get_rng_state()
    prepared = prepare(model, compute="float32")
    prepared.logits(texts)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_has_the_gradient_of_its_own_draw() -> None:
    model, texts = random_model(CONFIGS["bert"]()).double(), random_texts()
    model.train()
    prepared = prepare(model, compute="float32")
    bias = model.base_model.encoder.layer[0].attention.self.value.bias

    def loss(step: float) -> Tensor:
        torch.manual_seed(3)
        with torch.no_grad():
            bias[0] += step
        return prepared.logits(texts).double().square().sum()

    found = torch.autograd.grad(loss(0.0), bias)[0][0]
    change = loss(1e-3) - loss(-2e-3)
    torch.testing.assert_close(found, (change / 2e-3).detach(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1.0), (0.0, 1e-4), (2000.0, 5.0), (0.0, 1000.0)])
def test_wrong_answers_are_seen_in_whatever_unit_they_are(
    centre: float, spread: float, encoder_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of("bert")
    shape = HeadShape("regression", (), centre, spread)
    for broken in (False, True):
        model = encoder.with_head(shape, 0)
        if broken:  # positions count on from text to text, as a family would that ignores them
            embeddings = model.base_model.embeddings
            own = embeddings.forward
            monkeypatch.setattr(
                embeddings, "forward", lambda own=own, **inputs: own(**(inputs | {"position_ids": None}))
            )
        with prepare(model) as prepared:
            assert prepared.packed is not broken


def test_a_trial_that_fails_leaves_no_hook(encoder_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder_of("bert").with_head(TWO_CLASSES, 0)
    monkeypatch.setattr(PackedModel, "run", lambda *args, **options: (_ for _ in ()).throw(ValueError("no such input")))
    prepared = prepare(model)
    assert not prepared.packed
    prepared.restore()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_answers_agree_by_the_spread_of_the_labels(encoder_of: Any) -> None:
    classes = encoder_of("bert").with_head(TWO_CLASSES, 0)
    logits = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    assert agree(classes, logits + 1e-6, logits, 1e-5, 1e-5)
    assert not agree(classes, logits + 1e-4, logits, 1e-5, 1e-5)
    years = encoder_of("bert").with_head(HeadShape("regression", (), 2000.0, 1e-2), 0)
    answers = torch.tensor([[2000.001], [2000.004]])
    assert agree(years, answers * (1 + 1e-7), answers, 1e-5, 1e-5)  # the rounding of float32
    assert not agree(years, answers + 1e-2, answers, 1e-5, 1e-5)


@pytest.mark.parametrize("head", ["default", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_texts_that_leak_into_each_other_are_noticed_behind_a_small_head(head: str, seed: int, tmp_path: Path) -> None:
    """MobileBERT joins the embeddings of neighbouring tokens, which in a packed row belong to other texts."""
    from transformers import MobileBertConfig

    folder = make_encoder_folder("bert", tmp_path)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 19,
    }
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    config = MobileBertConfig(**sizes, max_position_embeddings=64, intra_bottleneck_size=16, embedding_size=32)
    AutoModel.from_config(config).save_pretrained(folder)
    model = load(folder).with_head(make_task(), seed, head).eval()
    texts = ModelInputs([np.array([2, 5 + i, 9, 3]) for i in range(2)])
    prepared = prepare(model, compute="float32")
    with torch.no_grad():
        alone = prepared.logits(texts.take([1]))
        together = prepared.logits(texts)[1:]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)
