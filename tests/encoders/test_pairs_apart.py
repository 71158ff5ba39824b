"""Two texts a row: packed, padded, from cached states and by hand, one answer."""

import dataclasses

import numpy as np
import pytest
import torch
from small import FAMILIES, examples_of, make_encoder_folder, make_task, sentences

import trimtab
from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Biases, Full, LastLayers, LayerNorms
from trimtab.changes.top import FisherTop, MovedTop
from trimtab.encoders.encoder import load
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.inputs import ModelInputs
from trimtab.encoders.parameter_kinds import layers_of
from trimtab.encoders.token_cache import tokenized
from trimtab.encoders.tokenizing import tokenize
from trimtab.engine import prepare
from trimtab.engine import prepared as prepared_module
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.studies.measure_fisher import fisher
from trimtab.training.fit import fit

TASK = make_task(n_train=40, n_validation=20, pairs=True)
IGNORED = "ignore:.*cannot run on padding-free batches"


def by_hand(model, encoder, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Each text through Hugging Face's own body by itself, and the formula of the head."""
    rows = []
    for pair in pairs:
        vectors = []
        for text in pair:
            inputs = encoder.tokenizer(text, return_tensors="pt")
            states = model.base_model(**inputs).last_hidden_state[0]
            vector = states.mean(0) if model.pooling == "mean" else states[0]
            vectors.append(vector / vector.norm() * len(vector) ** 0.5)
        u, v = vectors
        rows.append(torch.cat([u, v, (u - v).abs(), u * v]))
    return model.classifier(torch.stack(rows))


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("head", ["linear", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_are_the_formula(family, head, encoder_of) -> None:
    encoder = encoder_of(family)
    model = encoder.with_head(TWO_CLASSES, head=head, pairs="apart").eval()
    model.classifier.weight.data.normal_()
    pairs = list(zip(sentences(5, 1), sentences(5, 2), strict=True))
    with torch.no_grad():
        expected = by_hand(model, encoder, pairs)
        texts = ModelInputs(
            [np.array(encoder.tokenizer(text)["input_ids"], np.int32) for pair in pairs for text in pair]
        )
        torch.testing.assert_close(padded_logits(model, texts), expected, rtol=1e-4, atol=1e-4)
        prepared = prepare(model, "float32")
        torch.testing.assert_close(prepared.logits(texts), expected, rtol=1e-4, atol=1e-4)
        if prepared.packed:
            count = layers_of(model).count
            for depth in {1, count}:
                states = prepared.states(texts, depth)
                lengths = [1] * len(texts) if depth == count else texts.lengths
                found = prepared.logits_from(states, lengths, depth)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_of_a_pair_apart_are_those_of_its_texts(encoder) -> None:
    inputs = tokenize(TASK.train.texts, encoder.tokenizer, 8, apart=True)
    batch = inputs.take([3, 1])
    expected = [
        encoder.tokenizer(column[row], truncation=True, max_length=8)["input_ids"]
        for row in (3, 1)
        for column in TASK.train.texts
    ]
    assert [each.tolist() for each in batch.ids] == expected
    assert batch.type_ids is not None
    assert [len(each) for each in batch.type_ids] == [len(each) for each in expected]
    cut = sum(len(encoder.tokenizer(text)["input_ids"]) > 8 for column in TASK.train.texts for text in column)
    assert inputs.truncation.rows_cut == cut
    assert inputs.truncation.rows == 2 * len(TASK.train)


def test_they_have_a_file_of_their_own_in_the_cache(encoder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    for apart in (True, False, True):
        tokens = tokenized(TASK.train.texts, encoder.tokenizer, 20, 1 << 20, apart=apart)
        expected = tokenize(TASK.train.texts, encoder.tokenizer, 20, apart=apart)
        assert all(np.array_equal(a, b) for a, b in zip(tokens.ids, expected.ids, strict=True))
        assert (tokens.firsts is None) == (not apart)
        if apart:
            assert np.array_equal(tokens.firsts, expected.firsts)
    assert len(list((tmp_path / "tokens").iterdir())) == 2


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_fisher_information_is_of_rows_and_not_of_texts(family, encoder_of) -> None:
    """Against autograd, a row at a time: the gradient of a row is the sum over its two texts, squared once."""
    encoder = encoder_of(family)
    info = fisher(
        encoder, TASK, Full(), examples=12, head="linear", pairs="apart", head_start="random", compute="float32"
    )
    model = encoder.with_head(TASK, 0, "linear", pairs="apart").eval()
    examples = examples_of(encoder, TASK, apart=True)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in info.rows.tolist():
        batch = examples.take([row])
        loss = torch.nn.functional.cross_entropy(padded_logits(model, batch.inputs), batch.labels)
        for name, gradient in zip(
            sums, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True), strict=True
        ):
            if gradient is not None:
                sums[name] += gradient**2 / 12
    largest = max(float(each.max()) for each in sums.values())
    for name, value in info.values.items():
        torch.testing.assert_close(value, sums[name], rtol=2e-3, atol=1e-5 * largest)


METHODS = [
    LayerNorms(), Biases(), Lora(rank=2), LastLayers(1), FisherTop(count=50), MovedTop(count=50, steps=3), trimtab.Head(),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_method_trains_saves_and_predicts(method, encoder, tmp_path) -> None:
    run = fit(
        encoder, TASK, method, pairs="apart", epochs=2, batch_size=8, compute="float32", out=tmp_path, max_length=16
    )
    delta = Delta.load(tmp_path)
    assert (delta.pairs, delta.head) == ("apart", "linear")
    pairs = [(row["text_a"], row["text_b"]) for row in TASK.validation]
    answers = trimtab.predict(tmp_path, pairs, encoder)
    assert run.logits is not None
    assert [answer.label for answer in answers] == [TASK.classes[i] for i in run.logits.argmax(1).tolist()]
    scored = trimtab.evaluate(tmp_path, TASK, "validation", encoder)
    assert scored["scores"]["accuracy"] == pytest.approx(run.scores["accuracy"], abs=0.051)


def test_which_form_a_fit_has_is_said_and_kept(encoder) -> None:
    run = fit(encoder, TASK, trimtab.Head())
    assert run.delta.pairs in ("together", "apart")
    assert "cross-validated loss" in run.details["head"]
    assert "pairs apart" in run.details["head"]
    assert run.details["settings"]["pairs"] == run.delta.pairs


def test_two_texts_that_are_alike_are_found_apart(encoder) -> None:
    """Whether both texts are the same is in their distance, whatever they say."""
    first = sentences(120, 3)
    second = [text if i % 2 else other for i, (text, other) in enumerate(zip(first, sentences(120, 4), strict=True))]
    rows = trimtab.tasks.task.Rows((first, second), [i % 2 for i in range(120)])
    task = dataclasses.replace(
        TASK, classes=("no", "yes"), splits={"train": rows.take(range(80)), "validation": rows.take(range(80, 120))}
    )
    run = fit(encoder, task, trimtab.Head(), pairs="apart")
    assert run.scores["accuracy"] > 0.95


def test_what_cannot_be_read_apart_is_refused(encoder) -> None:
    with pytest.raises(InputError, match="needs two text columns"):
        fit(encoder, make_task(n_train=20, n_validation=8), LayerNorms(), pairs="apart")
    with pytest.raises(InputError, match="needs a head of our own"):
        fit(encoder, TASK, LayerNorms(), pairs="apart", head="default")
    with pytest.raises(InputError, match="pairs=twice must be one of"):
        fit(encoder, TASK, LayerNorms(), pairs="twice")


@pytest.mark.filterwarnings("ignore:.*only texts of one length run together")
def test_an_encoder_whose_answers_depend_on_padding_reads_pairs_together(encoder_of, monkeypatch) -> None:
    encoder = encoder_of("mpnet")
    monkeypatch.setattr(prepared_module, "padding_matters", lambda model, together: True)
    with pytest.raises(InputError, match="depend on padding"):
        fit(encoder, TASK, trimtab.Head(), pairs="apart")
    assert fit(encoder, TASK, trimtab.Head()).delta.pairs == "together"


@pytest.mark.filterwarnings(IGNORED)
def test_texts_of_an_encoder_that_looks_back_only(tmp_path) -> None:
    """XLNet's own head reads the last position; the mean of what it makes of a text is that of the text alone."""
    encoder = load(make_encoder_folder("xlnet", tmp_path))
    assert fit(encoder, TASK, trimtab.Head(), pairs="apart").delta.pairs == "apart"
