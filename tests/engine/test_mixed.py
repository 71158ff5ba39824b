"""Mixed batches: every row is answered as by a model of its task alone, and Hugging Face's padded forward says how that is."""

import copy
from typing import Any

import pytest
import torch
from small import CONFIGS
from test_packed import PADDED, enlarged, random_model, random_texts
from torch import Tensor, nn
from transformers import AutoModel

from trimtab.encoders.heads import LinearHead
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine import LowRank, MixedModel, PreparedModel, TaskChange, mixed_rows, packed, prepare
from trimtab.engine.mixed_rows import END
from trimtab.engine.padded import padded_logits

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
PACKED = [family for family in CONFIGS if family not in PADDED]
Values = dict[str, Tensor]


def changed(model: Any, mixed: MixedModel, wanted: Any, seed: int) -> Values:
    """New values of the parameters below the head of which `wanted` says so by name and value."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=draw) * p.detach().std(correction=0).clamp(0.1)
        for name, p in model.named_parameters()
        if mixed.mixes(name) and wanted(name, p)
    }


def in_last_layer(name: str) -> bool:
    return ".2." in name


def norms(name: str, value: Tensor) -> bool:
    return "norm" in name.lower()


def vectors(name: str, value: Tensor) -> bool:
    return value.ndim == 1


def low_rank(model: Any, mixed: MixedModel, seed: int) -> dict[str, LowRank]:
    """An update of rank 2 of every linear map in the layers."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and mixed.mixes(f"{name}.weight"):
            a, b = (
                torch.randn(shape, generator=draw) * 0.1
                for shape in ((2, module.in_features), (module.out_features, 2))
            )
            found[name] = LowRank(a, b, 2.0)
    return found


Change = tuple[Values, Values, dict[str, LowRank]]  # values, positions, low-rank updates


def some(values: Values, share: int) -> tuple[Values, Values]:
    """The values at every `share`-th position, and the positions."""
    at = {name: torch.arange(0, value.numel(), share, dtype=torch.int32) for name, value in values.items()}
    return {name: value.flatten()[at[name].long()] for name, value in values.items()}, at


@torch.no_grad()
def alone(model: Any, values: Values, updates: dict[str, LowRank], positions: Values) -> Any:
    """A copy of the model that has the changes written into it."""
    model = copy.deepcopy(model)
    for name, value in values.items():
        parameter = model.get_parameter(name)
        if name in positions:
            parameter.view(-1)[positions[name].long()] = value
        else:
            parameter.copy_(value)
    for path, update in updates.items():
        model.get_submodule(path).weight += update.scale * update.b @ update.a
    return model


@torch.no_grad()
def logits_of(model: Any, texts: ModelInputs) -> Tensor:
    return padded_logits(model, texts)


@torch.no_grad()
def plainly(prepared: PreparedModel, texts: ModelInputs) -> Tensor:
    return prepared.logits(texts)


def tasks_of(model: Any, mixed: MixedModel) -> list[Change]:
    """Tasks of all kinds."""
    values, at = some(changed(model, mixed, lambda name, p: True, 7), 5)
    of_norms, at_norms = some(changed(model, mixed, norms, 8), 3)
    return [
        (changed(model, mixed, lambda name, p: True, 1), {}, {}),  # full
        (changed(model, mixed, norms, 2), {}, {}),
        (changed(model, mixed, vectors, 3), {}, {}),
        ({}, {}, {}),  # the head alone
        ({}, {}, low_rank(model, mixed, 4)),
        (changed(model, mixed, lambda name, p: in_last_layer(name), 5), {}, {}),
        (changed(model, mixed, lambda name, p: norms(name, p) and in_last_layer(name), 6), {}, {}),
        (values, at, {}),
        (of_norms, at_norms, {}),
    ]


# One text for many tasks, and texts for one.
ITEMS = [(text, task) for text in range(3) for task in range(9)] + [(3, 1), (4, 3), (5, 7), (6, 0), (7, 4)]


def answers(mixed: MixedModel, family: str, tasks: list[TaskChange], head: Values) -> Tensor:
    found, rows = mixed.vectors(random_texts(family), tasks, ITEMS)
    return mixed.logits(found[[rows[item] for item in ITEMS]], head)


@pytest.mark.parametrize("family", PACKED)
def test_rows_are_answered_as_by_models_of_their_tasks(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    prepared = prepare(copy.deepcopy(model), compute="float32")
    mixed = prepared.mixed
    assert mixed is not None
    plain = tasks_of(model, mixed)
    assert len(plain[1][0]) > 1
    expected = [logits_of(alone(model, values, updates, at), texts) for values, at, updates in plain]
    found = answers(mixed, family, [mixed.change(*task) for task in plain], {})
    wanted = torch.stack([expected[task][text] for text, task in ITEMS])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    # And the model itself answers as before.
    torch.testing.assert_close(plainly(prepared, texts), logits_of(model, texts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_linear_heads_are_answered_alike(family: str, pooling: str) -> None:
    torch.manual_seed(0)
    body = AutoModel.from_config(CONFIGS[family]())
    model = enlarged(LinearHead(body, body.base_model_prefix, 3, pooling))
    mixed = prepare(copy.deepcopy(model), compute="float32").mixed
    assert mixed is not None
    plain, head = tasks_of(model, mixed), {f"classifier.{name}": p for name, p in model.classifier.named_parameters()}
    found = answers(mixed, family, [mixed.change(*task) for task in plain], head)
    expected = [logits_of(alone(model, v, updates, at), random_texts(family)) for v, at, updates in plain]
    wanted = torch.stack([expected[task][text] for text, task in ITEMS])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_in_bfloat16_rows_agree_up_to_its_rounding(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    mixed = prepare(copy.deepcopy(model), compute="bfloat16").mixed
    assert mixed is not None
    plain = tasks_of(model, mixed)
    found = answers(mixed, family, [mixed.change(*task) for task in plain], {})
    for number, (text, task) in enumerate(ITEMS):
        values, at, updates = plain[task]
        expected = plainly(prepare(alone(model, values, updates, at), compute="bfloat16"), texts)[text]
        torch.testing.assert_close(found[number], expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_norms_of_a_mixed_batch_come_to_the_same_bits_as_in_a_batch_of_one_task(compute: Any) -> None:
    model = random_model(CONFIGS["bert"]())
    mixed = prepare(copy.deepcopy(model), compute=compute).mixed
    assert mixed is not None
    texts = random_texts().take([1, 5, 6, 3, 4])  # of 40, 33, 28, 50 and 2 tokens: filled up to the same number
    tasks = [mixed.change(changed(model, mixed, norms, seed), {}, {}) for seed in range(5)]
    found, rows = mixed.vectors(texts, tasks, [(i, i) for i in range(5)])
    for number, task in enumerate(tasks):
        single, own = mixed.vectors(texts, [task], [(i, 0) for i in range(5)])
        assert torch.equal(found[rows[number, number]], single[own[number, 0]])


def test_a_text_is_one_row_up_to_the_module_that_a_task_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(CONFIGS["bert"]())
    mixed = prepare(copy.deepcopy(model), compute="float32").mixed
    assert mixed is not None
    last = [
        mixed.change(changed(model, mixed, lambda n, p: norms(n, p) and in_last_layer(n), seed), {}, {})
        for seed in range(4)
    ]
    seen: list[int] = []
    products = [group for whole in mixed._packed.wholes for group in whole.maps]
    for maps in products:

        def watched(x: Tensor, *, gelu: bool = False, own: Any = maps.product) -> Tensor:
            seen.append(len(x))
            return own(x, gelu=gelu)

        monkeypatch.setattr(maps, "product", watched)
    mixed.vectors(random_texts().take([1]), last, [(0, task) for task in range(4)])
    # Three layers of four products; of the last one only the first token goes on, which is four rows from its norm on.
    assert seen == [40] * 9 + [1, 4, 4]
    assert [mixed.first_layer(task) for task in (last[0], mixed.change({}, {}, {}))] == [2, 3]


def test_a_task_starts_where_its_first_module_does_its_work() -> None:
    mixed = prepare(random_model(CONFIGS["bert"]()), compute="float32").mixed
    assert mixed is not None
    layer = "bert.encoder.layer.1"
    names = {
        "bert.embeddings.LayerNorm.weight": 0, f"{layer}.attention.self.value.bias": 7,
        f"{layer}.attention.output.LayerNorm.bias": 9, f"{layer}.output.LayerNorm.weight": 12,
    }  # fmt: skip
    values = {name: torch.zeros_like(mixed.model.get_parameter(name)) for name in names}
    assert {name: mixed.change({name: values[name]}, {}, {}).start for name in names} == names
    assert mixed.change(values, {}, {}).start == 0
    assert mixed.change({}, {}, {}).start == END


def test_the_heads_parameters_are_above() -> None:
    mixed = prepare(random_model(CONFIGS["bert"]()), compute="float32").mixed
    assert mixed is not None
    above = {name for name, _ in mixed.model.named_parameters() if mixed.is_above(name)}
    assert above == {f"{path}.{role}" for path in ("bert.pooler.dense", "classifier") for role in ("weight", "bias")}


@pytest.mark.parametrize("family", PADDED)
def test_a_padded_model_has_no_mixed_batches_and_takes_values_for_a_while(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    prepared = prepare(copy.deepcopy(model), compute="float32")
    assert prepared.mixed is None
    draw = torch.Generator().manual_seed(1)
    values = {n: p.detach() + torch.randn(p.shape, generator=draw) for n, p in model.named_parameters() if p.ndim == 1}
    found = prepared.logits_with(values, texts)
    torch.testing.assert_close(found, logits_of(alone(model, values, {}, {}), texts), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(plainly(prepared, texts), logits_of(model, texts), rtol=1e-4, atol=1e-4)


def test_values_stand_in_for_matrices_in_bfloat16_too() -> None:
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    prepared = prepare(copy.deepcopy(model), compute="bfloat16")
    for seed in (1, 2, 3):  # one behind the other, so that a copy of the last one's would be found
        draw = torch.Generator().manual_seed(seed)
        values = {n: p.detach() * (1 + 0.2 * torch.randn(p.shape, generator=draw)) for n, p in model.named_parameters()}
        expected = plainly(prepare(alone(model, values, {}, {}), compute="bfloat16"), texts)
        assert torch.equal(prepared.logits_with(values, texts), expected)


def test_without_the_cpus_kernel_rows_find_their_vectors_by_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: by modules, and each norm in one step for all rows."""
    model, texts = random_model(CONFIGS["bert"]()), random_texts()
    by_index: list[int] = []

    def index(x: Tensor, residual: Any, runs: Any, values: Any, eps: float) -> Tensor:
        by_index.append(len(runs))
        return mixed_rows._normed_by_index(x, residual, runs, values, eps)

    def normed(self: Any, x: Tensor, path: str, norm: nn.LayerNorm, residual: Any = None) -> Tensor:
        runs = self.runs([path], len(x))
        return index(x, residual, runs, mixed_rows._norm_values(runs, path, norm), norm.eps)

    monkeypatch.setattr(mixed_rows.MixedRows, "normed", normed)
    monkeypatch.setattr(packed, "fits", lambda layer: False)
    mixed = prepare(copy.deepcopy(model), compute="float32").mixed
    assert mixed is not None
    plain = tasks_of(model, mixed)
    expected = [logits_of(alone(model, values, updates, at), texts) for values, at, updates in plain]
    found = answers(mixed, "bert", [mixed.change(*task) for task in plain], {})
    wanted = torch.stack([expected[task][text] for text, task in ITEMS])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert max(by_index) > 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_on_a_gpu_rows_are_answered_as_on_a_cpu(family: str) -> None:
    model, texts = random_model(CONFIGS[family]()), random_texts(family)
    mixed = prepare(copy.deepcopy(model).cuda(), compute="float32").mixed
    assert mixed is not None
    on_cpu = prepare(copy.deepcopy(model), compute="float32").mixed
    assert on_cpu is not None
    plain = tasks_of(model, on_cpu)

    def moved(values: Any) -> Any:
        if isinstance(values, LowRank):
            return LowRank(values.a.cuda(), values.b.cuda(), values.scale)
        return {k: moved(v) for k, v in values.items()} if isinstance(values, dict) else values.cuda()

    found = answers(mixed, family, [mixed.change(*map(moved, task)) for task in plain], {})
    expected = [logits_of(alone(model, values, updates, at), texts) for values, at, updates in plain]
    wanted = torch.stack([expected[task][text] for text, task in ITEMS])
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
