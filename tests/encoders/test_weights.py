"""Models of one encoder read one memory, and nothing that one of them does is seen by another."""

import copy
import gc
import io
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import make_encoder_folder, make_task
from torch import Tensor, nn

from trimtab.changes.contract import Method
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Full, Head, LastLayers, LayerNorms
from trimtab.changes.top import FisherTop, MovedTop, Random
from trimtab.encoders import weights as module
from trimtab.encoders.encoder import Encoder, load
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.weights import is_shared, own, own_all
from trimtab.engine import PreparedModel, prepare
from trimtab.exports.merged import merge
from trimtab.inference.predictor import Predictor, predict
from trimtab.results.recipe import Settings
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

TASK = make_task(n_train=24, n_validation=8)
TEXTS = ["the old cat sleeps", "a red dog", "very blue fish runs"]
HALVES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def own_encoder(tmp_path: Path) -> Callable[..., Encoder]:
    """A function that makes an Encoder of this test alone, in `tmp_path`/encoder."""

    def get(family: str = "bert", **options: Any) -> Encoder:
        return load(make_encoder_folder(family, tmp_path / "encoder", **options))

    return get


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def bodies_share(a: Any, b: Any) -> bool:
    """Whether every parameter of the body is at the same address in both."""
    pairs = list(zip(a.base_model.parameters(), b.base_model.parameters(), strict=True))
    return bool(pairs) and all(one.data_ptr() == other.data_ptr() for one, other in pairs)


@contextmanager
def unchanged(encoder: Encoder) -> Iterator[Any]:
    """A model of `encoder`; behind the block it has the bits that it had before, and so does a new one, read from no file."""
    bystander = encoder.with_head(TASK, seed=5, head="default")
    before, weights = values_of(bystander), encoder._weights
    yield bystander
    assert same(values_of(bystander), before)
    assert encoder._weights is weights, "nobody wrote into them"
    assert same(values_of(encoder.with_head(TASK, seed=5, head="default")), before)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert", "deberta-v2"])
def test_a_second_model_opens_no_weight_file_and_copies_no_matrix(
    family: str, dtype: torch.dtype, own_encoder: Callable[..., Encoder]
) -> None:
    encoder = own_encoder(family, dtype=dtype)
    first = encoder.with_head(TASK, seed=1, head="linear")
    expected = values_of(first)
    (encoder.folder / "model.safetensors").unlink()  # whoever asks for it fails
    second, other = encoder.with_head(TASK, seed=1, head="linear"), encoder.with_head(TASK, head="default")
    assert bodies_share(first, second)
    assert same(values_of(second), expected)
    # The other class may have a pooler beside, and names of its own.
    addresses = {parameter.data_ptr() for parameter in first.base_model.parameters()}
    assert addresses <= {parameter.data_ptr() for parameter in other.parameters()}


def test_deltas_are_attached_merged_and_trained_without_the_file(own_encoder: Callable[..., Encoder]) -> None:
    encoder = own_encoder()
    run = fit(encoder, TASK, LayerNorms(), epochs=1, head="default")
    (encoder.folder / "model.safetensors").unlink()
    one, other, merged = run.delta.attach(encoder), run.delta.attach(encoder), merge(encoder, run)
    assert same(values_of(one), values_of(merged))
    for name, parameter in one.named_parameters():
        beside = other.get_parameter(name).data_ptr()
        assert (parameter.data_ptr() == beside) == (name not in run.delta.values), name
    assert fit(encoder, TASK, LayerNorms(), epochs=1, head="default").scores == run.scores


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "method",
    [Full(), LayerNorms(), Head(), LastLayers(1), Random(count=200), Lora(rank=2), FisherTop(share=0.2, head_steps=2),
     MovedTop(share=0.2, steps=3), MovedTop(count=50, steps=3, within=Full())],
    ids=repr,
)  # fmt: skip
def test_a_fit_changes_no_other_model(method: Method, compute: Any, encoder: Encoder) -> None:
    with unchanged(encoder) as bystander:
        run = fit(encoder, TASK, method, epochs=4, lr=1e-2, compute=compute, head="default", head_start="random")
        tuned = run.delta.attach(encoder)
        merged = merge(encoder, run)
        fit(encoder, TASK, method, epochs=1, compute=compute, start_from=run)
    if not isinstance(method, Head):
        assert not same(values_of(tuned.base_model), values_of(bystander.base_model)), "it did train"
    assert not any(map(is_shared, merged.parameters()))


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_a_cls_head_is_merged_into_memory_of_its_own(kind: str, encoder: Encoder) -> None:
    run = fit(encoder, make_task(kind, 24, 8), LayerNorms(), epochs=1, head="cls", lr=1e-2)
    with unchanged(encoder):
        merged = merge(encoder, run)
        assert not any(map(is_shared, merged.parameters()))
        with torch.no_grad():
            for parameter in merged.parameters():
                parameter.add_(1)


def test_heads_are_each_models_own(own_encoder: Callable[..., Encoder], tmp_path: Path) -> None:
    """That of a checkpoint too: it is put in order, scaled and drawn anew in place."""
    encoder = own_encoder()
    classes = ("fish", "dog", "cat")
    encoder.with_head(replace(TASK, classes=classes), head="default").save_pretrained(tmp_path / "classifier")
    encoder.tokenizer.save_pretrained(tmp_path / "classifier")
    classifier = load(tmp_path / "classifier")
    kept = classifier.with_head(TASK, head="default", start="checkpoint")
    before = values_of(kept)
    assert kept.head_kept
    assert "in another order" in kept.head_note
    classifier.with_head(TASK, head="default", start="random")
    again = classifier.with_head(TASK, head="default", start="checkpoint")
    assert same(values_of(again), before)
    assert bodies_share(again, kept)
    assert again.classifier.weight.data_ptr() != kept.classifier.weight.data_ptr()


@pytest.mark.slow
def test_full_fits_and_predictions_in_threads_come_to_the_bits_they_have_alone(encoder: Encoder) -> None:
    def fitted(seed: int) -> Any:
        return fit(encoder, TASK, Full(), epochs=2, batch_size=8, seed=seed, compute="float32")

    alone = [fitted(seed) for seed in (0, 1)]
    predictor = Predictor(fit(encoder, TASK, LayerNorms(), epochs=1), encoder)
    expected = [row.probabilities for row in predict(predictor, TEXTS)]
    found: dict[int, Any] = {}
    with unchanged(encoder):
        threads = [threading.Thread(target=lambda s=s: found.update({s: fitted(s)})) for s in (0, 1)]
        for thread in threads:
            thread.start()
        answers = [[row.probabilities for row in predict(predictor, TEXTS)]]
        while any(thread.is_alive() for thread in threads):
            answers.append([row.probabilities for row in predict(predictor, TEXTS)])
        answers.append([row.probabilities for row in predict(predictor, TEXTS)])
    assert all(each == expected for each in answers)
    for seed in (0, 1):
        assert same(dict(found[seed].delta.values), dict(alone[seed].delta.values))


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, 0.1), lambda p: torch.optim.AdamW(p, fused=True), lambda p: torch.optim.Adam(p, foreach=True)],
    ids=["sgd", "fused", "foreach"],
)  # fmt: skip
def test_an_optimizer_of_the_user_owns_what_it_steps_on(make: Callable[[Any], Any], encoder: Encoder) -> None:
    with unchanged(encoder):
        model = encoder.with_head(TASK, head="default")
        before = values_of(model)
        optimizer = make(model.parameters())
        for _ in range(2):
            model(**encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.square().sum().backward()
            optimizer.step()
        changed = {name for name, value in values_of(model).items() if not torch.equal(value, before[name])}
        assert len(changed) > 30
        assert not any(map(is_shared, model.parameters()))


@pytest.mark.parametrize("lives_on", [True, False])
def test_who_writes_without_owning_spoils_no_later_model(lives_on: bool, own_encoder: Callable[..., Encoder]) -> None:
    encoder = own_encoder()
    expected = values_of(encoder.with_head(TASK, seed=2))
    model = encoder.with_head(TASK, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3)
    if not lives_on:
        del model
    assert same(values_of(encoder.with_head(TASK, seed=2)), expected)
    assert set_up(encoder, TASK, LayerNorms(), Settings(head="default")).memory.total > 0
    if lives_on:
        assert all(bool((parameter == 3).all()) for parameter in model.parameters()), "it keeps what was written"


def test_owning_changes_no_value_and_is_done_once(encoder: Encoder) -> None:
    model = encoder.with_head(TASK, head="default")
    parameter = model.base_model.embeddings.word_embeddings.weight
    assert is_shared(parameter)
    before, address = parameter.detach().clone(), parameter.data_ptr()
    own(parameter)
    assert torch.equal(parameter, before)
    assert parameter.data_ptr() != address
    address = parameter.data_ptr()
    own(parameter)
    own(torch.zeros(3))
    assert parameter.data_ptr() == address
    assert not is_shared(model.classifier.weight)


def test_a_step_of_one_model_is_no_change_of_another_for_autograd(encoder: Encoder) -> None:
    inputs = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    one, other = (encoder.with_head(TASK, head="default") for _ in range(2))
    loss = one(**inputs).logits.sum()
    own_all(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    loss.backward()  # raises where it counts what it has saved as changed
    assert all(parameter._version == 0 for parameter in one.base_model.parameters())


def test_copies_and_pickles_have_memory_of_their_own(encoder: Encoder) -> None:
    with unchanged(encoder):
        model = encoder.with_head(TASK, head="default")
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
            assert same(values_of(twin), values_of(model))
            assert not any(map(is_shared, twin.parameters()))
            own_all(twin)
            with torch.no_grad():
                twin.base_model.embeddings.word_embeddings.weight.zero_()


def test_an_encoder_travels_without_its_weights(encoder: Encoder) -> None:
    model, empty = encoder.with_head(TASK, seed=1), replace(encoder)
    assert len(pickle.dumps(encoder)) < 1.1 * len(pickle.dumps(empty)) + 1000
    for twin in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert same(values_of(twin.with_head(TASK, seed=1)), values_of(model))
    predictor = Predictor(fit(encoder, TASK, LayerNorms(), epochs=1), encoder)
    twin = pickle.loads(pickle.dumps(predictor))
    assert [row.probabilities for row in predict(twin, TEXTS)] == [
        row.probabilities for row in predict(predictor, TEXTS)
    ]


def test_buffers_are_each_models_own(own_encoder: Callable[..., Encoder], tmp_path: Path) -> None:
    """Older checkpoints hold the numbers of positions."""
    from safetensors.torch import load_file, save_file

    encoder = own_encoder()
    path = encoder.folder / "model.safetensors"
    shutil.copytree(encoder.folder, tmp_path / "old")
    save_file(load_file(path) | {"embeddings.position_ids": torch.arange(64)[None]}, tmp_path / "old" / path.name)
    old = load(tmp_path / "old")
    one, other = old.with_head(TASK), old.with_head(TASK)
    addresses = {buffer.data_ptr() for buffer in one.buffers()}
    assert addresses
    assert not addresses & {buffer.data_ptr() for buffer in other.buffers()}


def packed_answers(prepared: PreparedModel) -> Tensor:
    with torch.no_grad():
        return prepared.logits(prepared.probe)


def test_bfloat16_copies_of_frozen_weights_are_shared_as_long_as_they_are_used(
    own_encoder: Callable[..., Encoder],
) -> None:
    encoder = own_encoder()
    one, other = (encoder.with_head(TASK, seed=1, head="default").requires_grad_(False).eval() for _ in range(2))
    first, second = prepare(one, "bfloat16"), prepare(other, "bfloat16")
    expected = packed_answers(first)
    assert torch.equal(packed_answers(second), expected)
    n_copies = len(encoder._weights.copies)
    assert n_copies > 0
    third = encoder.with_head(TASK, seed=1, head="default").requires_grad_(False).eval()
    prepared = prepare(third, "bfloat16")
    # Owned, and so with copies of its own, made of what is written.
    own_all(third)
    with torch.no_grad():
        third.base_model.encoder.layer[1].output.dense.weight.mul_(1.5)
    assert not torch.equal(packed_answers(prepared), expected)
    assert torch.equal(packed_answers(first), expected)
    assert len(encoder._weights.copies) == n_copies
    del one, other, third, first, second, prepared
    gc.collect()  # a prepared model is held by its own forward methods
    assert len(encoder._weights.copies) == 0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_an_estimate_counts_weights_that_are_there_already_once(
    dtype: torch.dtype, own_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.training import set_up as setting_up

    monkeypatch.setattr(setting_up, "resident_bytes", lambda: 10**9)
    encoder = own_encoder(dtype=dtype)
    first, second = (set_up(encoder, TASK, LayerNorms(), Settings(head="default")).memory for _ in range(2))
    kept = sum(p.nbytes for p in encoder.with_head(TWO_CLASSES, head="default").base_model.parameters())
    assert first.process - second.process == (0 if dtype == torch.float32 else kept)
    assert second.weights == first.weights


def test_pages_are_forgotten_under_no_model(
    own_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = own_encoder()
    assert encoder.give_back() == 0, "not read yet"
    model = encoder.with_head(TASK, head="default")
    forgotten: list[int] = []
    monkeypatch.setattr(module, "forget_pages", lambda address, n_bytes: forgotten.append(address))
    assert encoder.give_back() == 0
    assert not forgotten
    addresses = {parameter.data_ptr() for parameter in model.base_model.parameters()}
    other = encoder.with_head(TASK, head="default")
    own_all(other)
    assert not forgotten, "the first one reads them"
    own_all(model)
    assert {*forgotten} == addresses
    encoder.give_back()
    assert len(forgotten) == 2 * len(addresses)
