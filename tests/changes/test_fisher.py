"""Fisher information, against a loop of one backward pass per text and label."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import AT, SEED, examples_of_kind, measured, model_of
from safetensors.torch import save_file
from small import CONFIGS
from torch import Tensor
from torch.nn import functional

from trimtab.changes.fisher import ESTIMATORS, Fisher, Meter, cost_note, factors, mean_of, stability_of
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Biases, Full, Head, LayerNorms
from trimtab.changes.selection import Selection
from trimtab.changes.top import Random
from trimtab.encoders.parameter_kinds import Part, parts_of
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.training.batches import Examples


def losses_by_label(
    logits: Tensor, label: Tensor, kind: str, estimator: str, draw: Tensor
) -> list[tuple[float, Tensor]]:
    """(probability, loss) of each label that the estimator asks for, for one text with logits (C,)."""
    if kind == "regression":
        if estimator == "empirical":
            return [(1.0, (logits[0] - label) ** 2)]
        fixed = logits[0].detach()
        # the gradient of (f - y)^2 by f is 2 noise; the expectation of its square is that at noise = 1 / sqrt 2
        noise = draw * 0.5**0.5 if estimator == "sampled" else torch.tensor(0.5**0.5)
        return [(1.0, (logits[0] - (fixed - noise)) ** 2)]
    if kind == "single_label":
        answers = [(1.0, label)] if estimator == "empirical" else [(1.0, draw)]
        if estimator == "exact":
            p = logits.detach().softmax(0)
            answers = [(float(p[c]), torch.tensor(c)) for c in range(len(p))]
        return [(p, functional.cross_entropy(logits, y)) for p, y in answers]
    answers = [(1.0, label)] if estimator == "empirical" else [(1.0, draw)]
    if estimator == "exact":
        p = torch.sigmoid(logits.detach())
        answers = []
        for code in range(2 ** len(p)):
            y = torch.tensor([float(code >> i & 1) for i in range(len(p))])
            answers.append((float(torch.where(y == 1, p, 1 - p).prod()), y))
    return [(p, functional.binary_cross_entropy_with_logits(logits, y)) for p, y in answers]


def draws_for(logits: Tensor, kind: str) -> Tensor:
    """The labels that `factors` draws for the two batches of `measured`."""
    generator, drawn = torch.Generator().manual_seed(SEED), []
    for part in (logits[:AT], logits[AT:]):
        if kind == "regression":
            drawn.append(torch.randn(1, len(part), 1, generator=generator)[0, :, 0])
        elif kind == "single_label":
            drawn.append(torch.multinomial(part.double().softmax(1), 1, generator=generator)[:, 0])
        else:
            drawn.append(torch.bernoulli(torch.sigmoid(part), generator=generator))
    return torch.cat(drawn)


def loop(model: Any, within: Selection, examples: Examples, kind: str, estimator: str) -> dict[str, Tensor]:
    """The definition, read aloud: for each text and label, its own gradient, squared, weighted and averaged."""
    parameters = {name: p for name, p in model.named_parameters() if name in within.elements}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert examples.labels is not None
    with torch.no_grad():
        draws = draws_for(padded_logits(model, examples.take(range(len(examples))).inputs), kind)
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    for i in range(len(examples)):
        logits = padded_logits(model, examples.take([i]).inputs)[0]
        for p, loss in losses_by_label(logits, examples.labels[i], kind, estimator, draws[i]):
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += p * gradient.double() ** 2
    return {name: (total / len(examples)).float() for name, total in sums.items()}


def assert_equal(found: Fisher, expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.values.keys() == expected.keys()
    scale = max(float(value.max()) for value in expected.values())
    for name, value in expected.items():
        assert found.values[name].dtype == torch.float32
        torch.testing.assert_close(
            found.values[name], value, rtol=tolerance, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("pairs", [False, True])
def test_all_weights_of_bert(kind: str, estimator: str, pairs: bool, encoder: Any) -> None:
    model, examples = model_of(encoder, kind), examples_of_kind(encoder, kind, pairs=pairs)
    everything = Full().attach(model)
    expected = loop(model, everything, examples, kind, estimator)
    assert_equal(measured(model, everything, examples, kind, estimator), expected, 3e-5)


@pytest.mark.filterwarnings("ignore:.* cannot run on padding-free batches")
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("method", [LayerNorms(), Full()])
def test_every_family(family: str, method: Any, encoder_of: Any) -> None:
    encoder = encoder_of(family)
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    within = method.attach(model)
    expected = loop(model, within, examples, "single_label", "exact")
    assert_equal(measured(model, within, examples, "single_label", "exact"), expected, 1e-4)


@pytest.mark.filterwarnings("ignore:.* cannot run on padding-free batches")
def test_a_table_of_all_texts_can_be_measured_alone(encoder_of: Any) -> None:
    """No hook sees which text used DeBERTa's relative positions, so each text has a backward pass of its own."""
    encoder = encoder_of("deberta-v2")
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    within = Selection.where(parts_of(model), lambda name, part: "rel_embeddings" in name)
    assert within.count
    expected = loop(model, within, examples, "single_label", "exact")
    assert_equal(measured(model, within, examples, "single_label", "exact"), expected, 1e-4)


def test_compact_head_and_biases(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label", "linear"), examples_of_kind(encoder, "single_label")
    within = Biases().attach(model)
    expected = loop(model, within, examples, "single_label", "empirical")
    assert_equal(measured(model, within, examples, "single_label", "empirical"), expected, 3e-5)


def test_bfloat16_ranks_alike(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    within = LayerNorms().attach(model)
    exact, fast = (
        measured(model, within, examples, "single_label", "exact", compute=compute)
        for compute in ("float32", "bfloat16")
    )
    exact, fast = (torch.cat([value.flatten() for value in each.values.values()]) for each in (exact, fast))
    assert 0 < float((fast - exact).abs().max() / exact.max()) < 0.05


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_exact_factors_are_a_root_of_the_softmax_fisher(n_classes: int) -> None:
    logits = 3 * torch.randn(20, n_classes)
    p = logits.double().softmax(1)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    roots = factors(logits, None, "single_label", "exact").double()
    assert len(roots) == n_classes - 1
    torch.testing.assert_close(torch.einsum("kbc,kbd->bcd", roots, roots), expected, rtol=1e-5, atol=1e-6)


def test_certain_answers_have_no_information() -> None:
    roots = factors(torch.tensor([[200.0, -200.0, -200.0]]), None, "single_label", "exact")
    assert torch.equal(roots, torch.zeros_like(roots))


def test_sampled_comes_to_exact() -> None:
    logits, generator = torch.randn(4, 3), torch.Generator().manual_seed(0)
    drawn = torch.stack([factors(logits, None, "single_label", "sampled", generator)[0] for _ in range(4000)])
    exact = factors(logits, None, "single_label", "exact")
    torch.testing.assert_close((drawn**2).mean(0), (exact**2).sum(0), rtol=0.1, atol=0.02)


def fisher_of(values: dict[str, list[float]], model: Any) -> Fisher:
    parts = parts_of(model)
    tensors = {name: torch.tensor(value) for name, value in values.items()}
    return Fisher(tensors, Selection(parts, dict.fromkeys(values)), "empirical", np.arange(3), 0.5, {"task": "t"})


def two_vectors() -> Any:
    model = torch.nn.Module()
    model.a, model.b = torch.nn.LayerNorm(3), torch.nn.LayerNorm(2)
    return model


def test_top_elements() -> None:
    model = two_vectors()
    info = fisher_of({"a.weight": [1.0, 9.0, 3.0], "b.bias": [4.0, 5.0]}, model)
    assert {n: at.tolist() for n, at in info.top(count=2).elements.items()} == {"a.weight": [1], "b.bias": [1]}
    assert info.top(share=0.2).count == 1
    for bad in (0.0, 1.5, -1.0):
        with pytest.raises(InputError, match="share"):
            info.top(share=bad)


def test_sums_by_kind_and_layer(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    info = measured(model, Full().attach(model), examples, "single_label", "empirical")
    kinds = info.by("kind")
    assert sum(entry["share"] for entry in kinds.values()) == pytest.approx(1)
    assert kinds["head"]["share"] == 0
    total = sum(float(value.double().sum()) for value in info.values.values())
    assert sum(entry["sum"] for entry in info.by("layer").values()) == pytest.approx(total)
    assert kinds["query"]["mean"] == pytest.approx(kinds["query"]["sum"] / kinds["query"]["elements"])


def test_saved_and_read_again(encoder: Any, tmp_path: Path) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    info = measured(model, Random(count=50).attach(model), examples, "single_label", "empirical")
    info.save(tmp_path / "info.safetensors")
    again = Fisher.load(tmp_path / "info.safetensors")
    assert again.within == info.within
    assert all(torch.equal(again.values[name], value) for name, value in info.values.items())
    assert (again.estimator, again.stability, again.rows.tolist()) == ("empirical", info.stability, info.rows.tolist())
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no file of Fisher information"):
        Fisher.load(tmp_path / "other")
    assert again.top(count=7) == info.top(count=7)
    assert not (info.top(count=7) - info.within)


def test_millions_of_positions_are_saved(tmp_path: Path) -> None:
    count = 12_000_000  # as text in the header of the file, more than the 100 MB that it may have
    parts = {"w": Part(0, "query", "weight", 2 * count)}
    within = Selection(parts, {"w": np.arange(10**7 - 1, 10**7 - 1 + count)})
    Fisher({"w": torch.zeros(2 * count)}, within, "exact", np.arange(3), 1.0).save(tmp_path / "info")
    assert Fisher.load(tmp_path / "info").within == within


GOOD = {
    "format": 2, "estimator": "exact", "stability": 0.5, "notes": {}, "whole": ["b"],
    "parts": {"a": [0, "query", "weight", 4], "b": [1, "head", "bias", 2]},
}  # fmt: skip
TENSORS = {
    "values/a": torch.zeros(2, 2), "positions/a": torch.tensor([0, 3]), "values/b": torch.zeros(2), "rows": torch.tensor([5]),
}  # fmt: skip


def test_a_file_by_hand_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "info", {"fisher": json.dumps(GOOD)})
    assert Fisher.load(tmp_path / "info").within.count == 4


@pytest.mark.parametrize(
    "described",
    [
        "[]", "7", "null", "{", "{}",
        *(json.dumps(GOOD | change) for change in (
            {"format": 1}, {"format": 3}, {"estimator": "true"}, {"estimator": []}, {"stability": None}, {"notes": 3},
            {"whole": 3}, {"whole": []}, {"whole": ["b", "c"]}, {"whole": [["b"]]},
            {"parts": []}, {"parts": {"a": [0, "query", "weight", 4]}},
            {"parts": GOOD["parts"] | {"a": [0, "query", "weight", 5]}}, {"parts": GOOD["parts"] | {"a": [0, "query"]}},
            {"parts": GOOD["parts"] | {"a": [0, "query", "weight", float("inf")]}}, {"parts": GOOD["parts"] | {"a": 3}},
        )),
    ],
)  # fmt: skip
def test_odd_descriptions_are_refused(described: str, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "odd", {"fisher": described})
    with pytest.raises(InputError, match="no file of Fisher information"):
        Fisher.load(tmp_path / "odd")


@pytest.mark.parametrize(
    "tensors",
    [
        {"values/a": torch.zeros(3)}, {"values/a": torch.zeros(4, dtype=torch.bfloat16)}, {"values/z": torch.zeros(3)},
        {"positions/a": torch.tensor([4])}, {"positions/a": torch.tensor([-1])}, {"positions/a": torch.tensor([0.5])},
        {"positions/a": torch.zeros(2, dtype=torch.bfloat16)}, {"positions/b": torch.tensor([0])},
        {"rows": torch.zeros(2)}, {"rows": torch.tensor(3)}, {"rows": None}, {"values/a": None}, {"positions/a": None},
    ],
)  # fmt: skip
def test_odd_tensors_are_refused(tensors: dict[str, Tensor | None], tmp_path: Path) -> None:
    kept = {name: tensor for name, tensor in (TENSORS | tensors).items() if tensor is not None}
    save_file(kept, tmp_path / "odd", {"fisher": json.dumps(GOOD)})
    with pytest.raises(InputError, match="no file of Fisher information"):
        Fisher.load(tmp_path / "odd")


def test_an_older_file_is_told_what_to_do(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old", {"fisher": json.dumps(GOOD | {"format": 1})})
    with pytest.raises(InputError, match="format 1, and this version reads 2: measure again"):
        Fisher.load(tmp_path / "old")


def test_elements_without_information_say_nothing_of_stability() -> None:
    draw = np.random.default_rng(0)
    halves = torch.zeros(2, 3000)
    halves[:, :1000] = torch.from_numpy(draw.random((2, 1000)))  # of which no half knows anything of the other
    halves[0, 1000] = 5.0  # known to one half: not left out
    within = Selection({"w": Part(0, "query", "weight", 3000)}, {"w": None})
    assert abs(stability_of(within, {"w": halves})) < 0.1
    assert np.isnan(stability_of(within, {"w": halves * 0}))
    from scipy.stats import spearmanr

    known = halves[:, :1001].numpy()
    assert stability_of(within, {"w": halves}) == pytest.approx(spearmanr(*known).statistic)  # type: ignore[union-attr]


def test_the_mean_of_tasks_gives_each_one_vote() -> None:
    model = two_vectors()
    one = fisher_of({"a.weight": [1.0, 0.0, 0.0]}, model)
    loud = fisher_of({"a.weight": [0.0, 700.0, 300.0]}, model)
    assert mean_of([one, loud]).values["a.weight"].tolist() == pytest.approx([0.5, 0.35, 0.15])
    with pytest.raises(InputError, match="different parameters"):
        mean_of([one, fisher_of({"b.bias": [1.0, 1.0]}, model)])


def test_a_model_is_left_as_it_was(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label").train(), examples_of_kind(encoder, "single_label")
    model.classifier.weight.requires_grad_(False)
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    measured(model, LayerNorms().attach(model), examples, "single_label", "empirical")
    assert model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.requires_grad == before[name][1]
        assert parameter.grad is None


def test_not_a_number_is_said(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        measured(model, LayerNorms().attach(model), examples, "single_label", "empirical")


def test_labels_are_needed_by_one_estimator(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    bare = Examples(examples.inputs, None)
    within = LayerNorms().attach(model)
    assert measured(model, within, bare, "single_label", "exact").values
    with pytest.raises(InputError, match="needs labels"):
        measured(model, within, bare, "single_label", "empirical")
    with pytest.raises(InputError, match="estimator must be one of"):
        Meter(model, within, "single_label", "true", 0)


def test_lora_can_be_measured_too(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    within = Lora(rank=2).attach(model)
    expected = loop(model, within, examples, "single_label", "empirical")
    assert any(float(value.max()) > 0 for value in expected.values())
    assert_equal(measured(model, within, examples, "single_label", "empirical"), expected, 1e-4)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_every_element_of_the_layers_is_told_apart_by_text(compute: Any, encoder: Any) -> None:
    model = model_of(encoder, "single_label")
    meter = Meter(model, Full().attach(model), "single_label", "empirical", 0)
    with meter.measuring(compute):
        assert not meter._seen.per_example.rest  # or it would cost a backward pass for every text


def test_nothing_to_measure_is_refused(encoder: Any) -> None:
    model = model_of(encoder, "single_label")
    with pytest.raises(InputError, match="nothing to measure"):
        Meter(model, Head().attach(model).backbone, "single_label", "empirical", 0)


def test_measurements_of_an_older_version_given_the_head_are_told_apart(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    plain, older = (measured(model, LayerNorms().attach(model), examples, "single_label") for _ in range(2))
    older.notes["given"] = "head"  # type: ignore[index]
    assert (plain.measure, older.measure) == ("empirical", "empirical, given the head")
    with pytest.raises(InputError, match="given the head and some are not"):
        mean_of([plain, older])


def test_what_exact_costs_with_many_classes_is_said():
    (note,) = cost_note("exact", "single_label", 403, 1024)
    assert "403 backward passes for each of 1,024 rows, where sampled takes one" in note
    quiet = [("exact", "single_label", 6), ("sampled", "single_label", 403), ("exact", "regression", 0)]
    assert all(cost_note(*each, 1024) == [] for each in quiet)
