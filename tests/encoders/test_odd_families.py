"""Families that differ from BERT where an engine could trip over them; skipped where transformers does not know them."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small import make_encoder_folder, make_task
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from trimtab.changes.methods import LastLayers, LayerNorms
from trimtab.encoders.encoder import Encoder, load
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.inputs import ModelInputs
from trimtab.encoders.parameter_kinds import parts_of
from trimtab.engine import prepare
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.studies.measure_fisher import fisher
from trimtab.tasks.losses import task_loss
from trimtab.tasks.task import Task
from trimtab.training.fit import fit

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")


@pytest.fixture
def odd(encoder_of: Callable[[str], Encoder]) -> Callable[[str], Encoder]:
    def get(family: str) -> Encoder:
        if family not in CONFIG_MAPPING and family != "deberta-conv":
            pytest.skip(f"transformers has no {family}")
        return encoder_of(family)

    return get


def ids_of(*lengths: int) -> ModelInputs:
    return ModelInputs([np.array([2, *(5 + (np.arange(length - 2) + length) % 14), 3]) for length in lengths])


def test_a_text_is_answered_alike_whatever_runs_beside_it(odd: Callable[[str], Encoder]) -> None:
    """XLNet's head reads the last position: of padding, where a longer text stands beside it."""
    model = odd("xlnet").with_head(TWO_CLASSES, seed=0).eval()
    with pytest.warns(UserWarning, match="only texts of one length run together, since padding changes its predictions"):
        prepared = prepare(model, "float32")
    texts = ids_of(12, 4, 9, 4, 30)
    with torch.no_grad():
        together = prepared.logits(texts)
        alone = torch.cat([prepared.logits(texts.take([i])) for i in range(len(texts))])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("family", ["xlnet", "squeezebert"])
def test_information_is_that_of_a_loop_over_texts(family: str, odd: Callable[[str], Encoder]) -> None:
    """SqueezeBERT's LayerNorm is a subclass that permutes; XLNet's texts may not be padded."""
    encoder, task = odd(family), make_task(n_train=6, n_validation=2)
    found = fisher(encoder, task, LayerNorms(), examples=6, head="default", head_start="random")
    model, loss = encoder.with_head(task, seed=0, head="default").eval(), task_loss(task)
    names = list(found.values)
    expected = {name: torch.zeros_like(value) for name, value in found.values.items()}
    for text, label in zip(task.train.texts[0], task.train.labels, strict=True):
        logits = model(**encoder.tokenizer(text, return_tensors="pt")).logits
        gradients = torch.autograd.grad(
            loss.per_row(logits, torch.tensor([label])).sum(), [dict(model.named_parameters())[name] for name in names]
        )
        for name, gradient in zip(names, gradients, strict=True):
            expected[name] += gradient.square() / 6
    for name, value in found.values.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9, msg=name)


@pytest.mark.parametrize("family", ["nomic_bert", "gte", "jina_embeddings_v3"])
def test_rotary_queries_of_another_type_than_the_values(family: str, odd: Callable[[str], Encoder]) -> None:
    task = make_task(n_train=16, n_validation=8)
    runs = [
        fit(
            odd(family), task, LayerNorms(), epochs=1, compute=compute, dropout=0.0, head="default", head_start="random"
        )
        for compute in ("float32", "bfloat16")
    ]
    assert runs[1].scores["loss"] == pytest.approx(runs[0].scores["loss"], abs=0.02)


def test_a_regression_starts_at_the_mean_where_the_head_is_defined_first(odd: Callable[[str], Encoder]) -> None:
    model = odd("jina_embeddings_v3").with_head(about_1000(), seed=0).eval()
    answers = model(input_ids=torch.tensor(np.stack(ids_of(9, 9).ids))).logits
    assert answers.flatten().tolist() == pytest.approx([1002, 1002], abs=20)


def test_a_head_without_a_bias_cannot_hold_a_mean(odd: Callable[[str], Encoder]) -> None:
    encoder = odd("gpt2")
    with pytest.raises(InputError, match="has no bias, which would hold the labels' mean.*--head linear"):
        encoder.with_head(about_1000(), seed=0)
    answers = encoder.with_head(about_1000(), seed=0, head="linear").eval()
    assert "classifier.bias" in dict(answers.named_parameters())
    encoder.with_head(make_task("regression"), seed=0)  # from 0 to 4


def about_1000() -> Task:
    task = make_task("regression")
    rows = dataclasses.replace(task.train, labels=[label + 1000 for label in task.train.labels])
    return dataclasses.replace(task, splits={"train": rows})


def test_every_rate_of_dropout_is_set(odd: Callable[[str], Encoder]) -> None:
    model = odd("gpt2").with_head(TWO_CLASSES, seed=0, dropout=0.0)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.0}


def test_an_encoder_with_a_decoder_is_refused(
    odd: Callable[[str], Encoder], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(InputError, match="is an encoder with a decoder"):
        load(make_encoder_folder("bart", tmp_path_factory.mktemp("bart") / "encoder"))


def kinds(encoder: Encoder) -> dict[str, tuple[int, str]]:
    parts = parts_of(encoder.with_head(TWO_CLASSES, seed=0))
    return {name: (part.layer, part.kind) for name, part in parts.items()}


def test_norms_in_front_of_what_they_normalise(odd: Callable[[str], Encoder]) -> None:
    found = kinds(odd("eurobert"))
    assert found["model.layers.1.input_layernorm.weight"] == (1, "attention_norm")
    assert found["model.layers.1.post_attention_layernorm.weight"] == (1, "output_norm")
    assert found["model.norm.weight"] == (3, "encoder_norm")


def test_norms_behind_what_they_normalise(odd: Callable[[str], Encoder]) -> None:
    """NomicBERT's post_attention_layernorm is attention's, where Llama's is not."""
    model = odd("nomic_bert").with_head(TWO_CLASSES, seed=0)
    counts = {which: LayerNorms(which).attach(model).count for which in ("attention", "output", "all")}
    assert counts == {"attention": 3 * 64, "output": 3 * 64, "all": 7 * 64}  # three layers, and the embeddings' norm


def test_a_list_of_tables_is_no_stack_of_layers(odd: Callable[[str], Encoder]) -> None:
    chosen = LastLayers(1).attach(odd("markuplm").with_head(TWO_CLASSES, seed=0))
    assert all(".encoder.layer.2." in name or ".pooler." in name for name in chosen.backbone.elements)
    assert kinds(odd("markuplm"))["markuplm.encoder.layer.1.attention.self.query.weight"] == (1, "query")


def test_a_norm_that_the_caller_applies_is_applied_once(odd: Callable[[str], Encoder]) -> None:
    """X-MOD's tails look like BERT's, and leave their norm to whoever calls them; at 1 and 0 twice is as good as once."""
    task, logits, gradients = make_task(n_train=8, n_validation=2), [], []
    texts = ids_of(9, 5, 12)
    for packed in (True, False):
        model = odd("xmod").with_head(task, seed=0).eval()
        logits.append(prepare(model, "float32").logits(texts) if packed else padded_logits(model, texts))
        logits[-1].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if "LayerNorm" in name})
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_layers_in_several_lists(odd: Callable[[str], Encoder]) -> None:
    found = kinds(odd("xlm"))
    assert found["transformer.attentions.1.q_lin.weight"] == (1, "query")
    assert found["transformer.attentions.1.out_lin.weight"] == (1, "attention_output")
    assert found["transformer.ffns.1.lin1.weight"] == (1, "intermediate")
    assert found["transformer.ffns.1.lin2.weight"] == (1, "output")
    assert found["transformer.layer_norm1.1.weight"] == (1, "attention_norm")
    assert found["transformer.layer_norm2.1.weight"] == (1, "output_norm")
    chosen = LastLayers(1).attach(odd("xlm").with_head(TWO_CLASSES, seed=0))
    assert all(".2." in name for name in chosen.backbone.elements)


def test_a_convolution_behind_the_first_layer(odd: Callable[[str], Encoder]) -> None:
    found = kinds(odd("deberta-conv"))
    assert {place for name, place in found.items() if ".encoder.conv." in name} == {(0, "other"), (0, "output_norm")}


@pytest.mark.parametrize("family", ["eurobert", "xlm", "deberta-conv", "squeezebert", "nomic_bert", "xmod"])
def test_they_fit(family: str, odd: Callable[[str], Encoder]) -> None:
    task = make_task(n_train=16, n_validation=8)
    run = fit(odd(family), task, LastLayers(1), epochs=1, compute="float32")
    assert np.isfinite(run.scores["loss"])
