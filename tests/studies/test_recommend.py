"""Recommendations: budgets that hold, trials that leave validation alone, a proposal that fit takes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import make_task

import trimtab
from trimtab.changes.fisher import Fisher
from trimtab.changes.lora import Lora
from trimtab.changes.method_text import method_text
from trimtab.changes.methods import Biases, Full, Head, LastLayers, LayerNorms
from trimtab.changes.selection import Selection
from trimtab.changes.top import MovedTop, Random
from trimtab.encoders.parameter_kinds import Part
from trimtab.errors import InputError
from trimtab.results.comparison import Cell, Comparison, Summary, summarised
from trimtab.results.recipe import Recipe
from trimtab.results.statistics import Difference
from trimtab.studies import recommend as module
from trimtab.studies.candidates import Budget, Candidate, candidates
from trimtab.studies.compare import compare
from trimtab.studies.recommend import recommend, trial_task, where_information_is
from trimtab.studies.serving_cost import ServingCost


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


@pytest.mark.parametrize(
    ("text", "elements", "n_bytes"),
    [
        ("5000", 5000, None), ("5,000", 5000, None), ("5_000", 5000, None), ("0.05%", 50, None), ("100 %", 100_000, None),
        ("20KB", None, 20_000), ("20 kib", None, 20_480), ("1.5MB", None, 1_500_000), ("800 bytes", None, 800),
    ],
)  # fmt: skip
def test_a_budget_is_elements_a_share_or_bytes(text: str, elements: int | None, n_bytes: int | None) -> None:
    assert Budget.parse(text, 100_000) == Budget(elements, n_bytes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "many",
        "-5",
        "0",
        "0%",
        "100.1%",
        "0.0001%",
        "5 apples",
        "20ib",
        "nan",
        "0,05%",
        "0,025%",
        "1,500%",
        "0,020MB",
        "1,5MB",
        "1,00,0",
        "10,00",
        "20.000",
        "5.5",
        "1.5 bytes",
    ],
)
def test_a_budget_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="budget"):
        Budget.parse(text, 100_000)


@pytest.mark.parametrize(
    "text",
    ["40", "2%", "12KB", *(pytest.param(each, marks=pytest.mark.slow) for each in ("300", "100%", "4KB", "100KB"))],
)
def test_candidates_are_within_the_budget_and_sized_as_they_are_saved(encoder: Any, text: str, tmp_path: Any) -> None:
    task = make_task(n_train=16, n_validation=8)
    budget = Budget.parse(text, 10_000)
    found = candidates(encoder, task, budget)
    names = [method_text(each.method) for each in found]
    assert names[0] == "head"
    assert len(set(names)) == len(names) > 1
    for each in found:
        assert budget.holds(each)
        run = trimtab.fit(encoder, task, each.method, epochs=1, batch_size=16)
        assert run.delta.count_body == each.elements
        saved = run.delta.save(tmp_path / method_text(each.method)).stat().st_size
        assert saved <= each.n_bytes + 500
        measured = isinstance(each.method, trimtab.Top)
        # What a measurement chooses may lie in fewer parameters, whose names are saved.
        assert measured or saved == pytest.approx(each.n_bytes, abs=1500, rel=0.1)


def test_of_each_kind_the_largest_that_fits(encoder: Any) -> None:
    task = make_task()
    norms = trimtab.fit(encoder, task, trimtab.LayerNorms(), epochs=1).delta.count_body
    exact = [method_text(each.method) for each in candidates(encoder, task, Budget(elements=norms))]
    assert "layer_norms" in exact
    below = [method_text(each.method) for each in candidates(encoder, task, Budget(elements=norms - 1))]
    assert "layer_norms" not in below
    assert f"fisher_top:count={norms - 1}" in below
    assert f"moved_top:count={norms - 1}" in below
    assert f"moved_top:count={norms - 1},within=(layer_norms+biases)" in below
    # Of L layers with 2 L + 1 norms, the biases alone are more elements than the norms behind attention (or output).
    half = [method_text(each.method) for each in candidates(encoder, task, Budget(elements=norms // 2))]
    assert "layer_norms:what=bias" in half


def test_a_budget_below_the_head_is_refused(encoder: Any) -> None:
    with pytest.raises(InputError, match=r"smaller than the head alone, whose delta takes .*--head linear"):
        candidates(encoder, make_task(), Budget(n_bytes=500))


def test_candidates_are_sized_with_the_head_that_is_asked_for(encoder: Any) -> None:
    """This checkpoint brings no head, which "checkpoint" refuses as a fit does."""
    with pytest.raises(InputError, match="head"):
        candidates(encoder, make_task(), Budget(elements=10**6), "default", "checkpoint")


def test_trials_are_cut_from_the_training_rows(encoder: Any) -> None:
    task = make_task(n_train=90, n_validation=8)
    trial = trial_task(task, rows=40)
    texts = [set(trial.splits[split].texts[0]) for split in ("train", "validation")]
    assert len(trial.train) == 40
    assert len(trial.validation) == 20
    assert set(trial.splits) == {"train", "validation"}
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] <= set(task.train.texts[0])


def test_the_proposal_is_the_best_trial_and_fit_takes_it(encoder: Any, tmp_path: Any) -> None:
    task = make_task(n_train=60, n_validation=8)
    found = recommend(encoder, task, "300", rows=40, seeds=2, out=tmp_path, epochs=2, batch_size=8)
    assert method_text(found.method) == max(found.final.overall, key=lambda s: s.mean).method
    assert found.final.reference == method_text(found.method)
    assert found.runner_up != found.method
    assert len(found.final.overall) == module.FINALISTS
    assert len(found.reasons) == 3
    assert all(sentence.endswith(".") for sentence in found.reasons)
    assert "LayerNorms hold" in found.reasons[1]
    assert found.recipe.method == method_text(found.method)
    found.recipe.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == found.recipe


RIGHT = {  # candidate -> how many of 30 trial rows it answers rightly
    Head(): 11, LayerNorms(): 27, Biases(): 4, LastLayers(1): 25, Random(count=50): 8, Random(count=60): 20,
}  # fmt: skip


SERVED = {  # candidate -> how many of the 30 it answers rightly, and the layers that are run for it alone
    Full(): (29, 4), LayerNorms(what="bias"): (28, 4), Lora(): (28, 3), LayerNorms(last=2): (26, 2), Biases(last=2): (25, 2),
    Lora(last=2): (24, 2), LastLayers(1): (25, 1), Head(): (11, 0),
}  # fmt: skip


def fitting_nothing(
    encoder: Any, tasks: Any, methods: Any, seeds: int, right: Mapping[Any, int] = RIGHT, **settings: Any
) -> Comparison:
    """Stands for `compare`: each method answers as many rows rightly as `right` says, with every seed."""
    (task,), names = tasks, [method_text(method) for method in methods]
    truth = np.array(task.validation.labels)
    cells = []
    for method in methods:
        answers = np.where(np.arange(30) < right[method], truth, (truth + 1) % 3).tolist()
        costs = {"elements": {"body": 10, "head": 9}, "share": 0.01, "seconds": 20.0, "delta_bytes": 1000}
        found = {"accuracy": right[method] / 30}
        cells += [
            Cell(
                "animals",
                method_text(method),
                seed,
                "accuracy",
                found,
                found,
                **costs,
                settings={"epochs": 1},
                answers=answers,
            )
            for seed in range(seeds)
        ]
    return summarised(encoder.name, tasks, names, list(range(seeds)), names[0], cells)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose scores are those of RIGHT."""
    monkeypatch.setattr(module, "candidates", lambda *_: [Candidate(method, 10, 0) for method in RIGHT])
    monkeypatch.setattr(module, "compare", fitting_nothing)


@pytest.mark.usefixtures("known")
def test_the_best_three_of_all_candidates_are_tried_again(encoder: Any) -> None:
    found = recommend(encoder, make_task(n_train=90), "300", rows=60, seeds=3, epochs=1)
    assert {s.method for s in found.first.overall} == {method_text(method) for method in RIGHT}
    assert found.first.seeds == [0]
    assert [s.method for s in found.final.best_first] == ["layer_norms", "last_layers:k=1", "random:count=60"]
    assert found.final.seeds == [0, 1, 2]
    assert (found.method, found.runner_up) == (LayerNorms(), LastLayers(1))
    assert found.reasons[0] == (
        "layer_norms scored best, accuracy 0.900 over 3 seeds on 30 rows after training on 60; the runner-up is "
        "last_layers:k=1 with 0.833 (not significantly different), and the head alone has 0.367."
    )


@pytest.mark.usefixtures("known")
def test_a_runner_up_that_is_far_behind_is_said_to_be(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "candidates", lambda *_: [Candidate(method, 10, 0) for method in (Head(), LayerNorms())]
    )
    found = recommend(encoder, make_task(n_train=90), "300", rows=60, seeds=2, epochs=1)
    assert "; the runner-up is head with 0.367 (significantly worse)." in found.reasons[0]


def test_where_information_is_by_hand() -> None:
    parts = {
        "norm": Part(0, "attention_norm", "weight", 2), "last": Part(1, "output_norm", "bias", 2),
        "query": Part(0, "query", "weight", 16), "head": Part(2, "head", "weight", 5),
    }  # fmt: skip
    values = {"norm": [5.0, 1.0], "last": [2.0, 4.0], "query": [8.0, *[1.0] * 12, 0.0, 0.0, 8.0], "head": [100.0] * 5}
    tensors = {name: torch.tensor(each) for name, each in values.items()}
    info = Fisher(tensors, Selection(parts, dict.fromkeys(parts)), "empirical", np.arange(1200), 0.9)
    # 12 of 40 in the norms; 8 and 8 in the most informative two. The head has no part in either.
    assert where_information_is(info, 0) == (
        "On 1,200 rows, LayerNorms hold 30% of the encoder's Fisher information (empirical) in 20% of its parameters."
    )
    assert where_information_is(info, 2).endswith(", and the 2 most informative parameters of all hold 40%.")


def test_what_a_choice_takes_is_not_multiplied_by_the_rows(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of 100 steps takes as long before a fit of 10,000 rows as before one of 1,000."""

    def compared(*arguments: Any, **settings: Any) -> Any:
        found = compare(*arguments, **settings)
        # Of 30 s each, 10 were spent on the choice where there is one.
        cells = [
            replace(cell, seconds=30.0, choosing_seconds=10.0 * cell.method.startswith("moved_top"))
            for cell in found.cells
        ]
        return summarised(found.encoder, found.tasks, found.methods, found.seeds, found.reference, cells)

    monkeypatch.setattr(module, "compare", compared)
    task = make_task(n_train=60, n_validation=8)
    monkeypatch.setattr(module, "candidates", lambda *_: [Candidate(MovedTop(count=50, steps=2), 50, 0)])
    found = recommend(encoder, task, "300", rows=20, seeds=1, epochs=2)
    assert "60 rows takes about 1 min 10 s" in found.reasons[2], "10 s, and three times 20"
    monkeypatch.setattr(module, "candidates", lambda *_: [Candidate(LayerNorms(), 300, 0)])
    assert "60 rows takes about 1 min 30 s" in recommend(encoder, task, "300", rows=20, seeds=1, epochs=2).reasons[2]


@pytest.mark.slow
def test_a_stopped_recommendation_goes_on(encoder: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, settings = make_task(n_train=60, n_validation=8), {"epochs": 1, "batch_size": 8}
    found = recommend(encoder, task, "300", rows=40, seeds=2, out=tmp_path, **settings)
    monkeypatch.setattr("trimtab.studies.cell_spec.fit", lambda *args, **kwargs: pytest.fail("a trial was repeated"))
    again = recommend(encoder, task, "300", rows=40, seeds=2, out=tmp_path, **settings)
    assert again.as_json() == found.as_json()


def test_bad_input_is_refused(encoder: Any) -> None:
    task = make_task()
    with pytest.raises(InputError, match="at least 2 rows"):
        recommend(encoder, task, "300", rows=1)
    with pytest.raises(InputError, match="say how many"):
        recommend(encoder, task, "300", seed=4)
    with pytest.raises(InputError, match="has no training rows"):
        recommend(encoder, replace(task, splits={"validation": task.validation}), "300")


def test_a_delta_that_turns_out_larger_than_the_budget_is_not_proposed(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = make_task(n_train=60, n_validation=8), {"epochs": 1, "batch_size": 8}
    n_bytes = max(each.n_bytes for each in candidates(encoder, task, Budget(n_bytes=12_000)))
    monkeypatch.setattr(module, "candidates", lambda *args: candidates(encoder, task, Budget(n_bytes=10 * n_bytes)))
    found = recommend(encoder, task, f"{n_bytes} bytes", rows=40, seeds=1, **settings)
    assert any(summary.delta_bytes > n_bytes for summary in found.first.overall)
    assert all(summary.delta_bytes <= n_bytes for summary in found.final.overall)


def test_names_of_many_classes_count_in_the_size_of_a_delta(encoder: Any, tmp_path: Path) -> None:
    names = tuple(f"class {i} with a name of nearly a hundred letters {'x' * 50}" for i in range(60))
    task = replace(make_task(n_train=60, n_validation=8), classes=names)
    head = candidates(encoder, task, Budget(n_bytes=10**6))[0]
    run = trimtab.fit(encoder, task, head.method, epochs=1, batch_size=8)
    assert run.delta.save(tmp_path).stat().st_size == pytest.approx(head.n_bytes, rel=0.1)


@pytest.mark.slow
def test_a_budget_that_no_saved_delta_is_within_is_said_so(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(n_train=60, n_validation=8)
    monkeypatch.setattr(module, "candidates", lambda *args: candidates(encoder, task, Budget(n_bytes=12_000)))
    with pytest.raises(
        InputError, match="nothing is within 900 bytes of delta: the smallest delta tried, of .*, takes"
    ):
        recommend(encoder, task, "900 bytes", rows=40, seeds=1, epochs=1, batch_size=8)


def test_few_rows_are_said_to_tell_little(encoder: Any) -> None:
    found = recommend(encoder, make_task(n_train=60, n_validation=8), "300", rows=30, seeds=1, epochs=1, batch_size=8)
    assert found.notes[0] == "The trials are judged on 15 rows, which tell little: give more rows."
    assert found.as_json()["notes"] == list(found.notes)


def test_recommending_leaves_the_random_generator_alone(encoder: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    candidates(encoder, make_task(), Budget(elements=100))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_finalists_that_all_fail_with_some_seed_are_an_error_and_no_proposal(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*args: Any, **kwargs: Any) -> Any:
        if kwargs["seed"] == 1:
            raise InputError("not this seed")
        return trimtab.fit(*args, **kwargs)

    monkeypatch.setattr("trimtab.studies.cell_spec.fit", fit)
    with pytest.raises(InputError, match=r"with every seed: on animals with seed 1: not this seed"):
        recommend(encoder, make_task(n_train=60, n_validation=8), "300", rows=40, seeds=2, epochs=1, batch_size=8)


def test_a_limit_on_training_rows_holds_for_trials_too(encoder: Any, tmp_path: Any) -> None:
    task = make_task(n_train=90, n_validation=8)
    found = recommend(encoder, task, "300", rows=40, seeds=1, out=tmp_path, train_limit=30, epochs=1, batch_size=8)
    assert "after training on 20" in found.reasons[0]  # a third of the 30 judges
    assert "a fit on all 30 rows" in found.reasons[2]
    assert found.recipe.settings.train_limit == 30
    assert all(cell.settings["train_limit"] is None for cell in found.first.cells)


def test_candidates_for_serving_are_there_once_more_of_half_the_layers(encoder: Any) -> None:
    task, budget = make_task(), Budget(elements=10**6)
    usual = {method_text(each.method): each for each in candidates(encoder, task, budget)}
    found = {
        method_text(each.method): each
        for each in candidates(encoder, task, budget, "default", "probe", for_serving=True)
    }
    assert found.keys() - usual.keys() == {"layer_norms:last=2", "biases:last=2", "lora:rank=64,last=2"}
    assert {name: found[name] for name in usual} == usual
    assert {name: each.layers_alone for name, each in found.items()} == {
        "head": 0, "full": 4, "layer_norms": 4, "biases": 4, "layer_norms+biases": 4, "lora:rank=64": 3, "last_layers": 2,
        "layer_norms:last=2": 2, "biases:last=2": 2, "lora:rank=64,last=2": 2,
    }  # fmt: skip
    # Where these do not fit either, smaller ones of their kind; elements that a score chooses may lie in any layer.
    tight = {
        method_text(each.method): each.layers_alone
        for each in candidates(encoder, task, Budget(elements=140), "default", "probe", for_serving=True)
    }
    assert tight["layer_norms:what=bias,last=2"] == tight["biases:which=query,last=2"] == 2
    assert tight["moved_top:count=140"] == 4


def test_one_shared_layer_is_run_for_a_task_as_often_as_there_are_layers(encoder_of: Any) -> None:
    found = candidates(encoder_of("albert"), make_task(), Budget(elements=10**6), "default", "probe", for_serving=True)
    alone = {method_text(each.method): each.layers_alone for each in found}
    assert not any("last" in name for name in alone)
    assert (alone["head"], alone["lora:rank=64"], alone["full"]) == (0, 3, 4)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose scores and costs are those of SERVED."""
    those = [Candidate(method, 10, 0, alone) for method, (_, alone) in SERVED.items()]
    monkeypatch.setattr(module, "candidates", lambda *_: those)
    right = {method: n for method, (n, _) in SERVED.items()}
    monkeypatch.setattr(module, "compare", partial(fitting_nothing, right=right))


@pytest.mark.usefixtures("served")
def test_for_serving_the_cheapest_that_is_not_worse_is_proposed(encoder: Any) -> None:
    settings = {"rows": 60, "seeds": 3, "epochs": 1}
    usual = recommend(encoder, make_task(n_train=90), "300", **settings)
    assert (usual.method, len(usual.reasons), len(usual.final.overall)) == (Full(), 3, 3)
    assert "serving" not in usual.as_json()
    found = recommend(encoder, make_task(n_train=90), "300", for_serving=True, **settings)
    # Beside the best three those that cost less than all better ones; the head is worse beyond chance with one seed already.
    assert [s.method for s in found.final.best_first] == [
        "full", "layer_norms:what=bias", "lora", "layer_norms:last=2", "last_layers:k=1"
    ]  # fmt: skip
    assert found.final.reference == "full"
    assert (found.method, found.runner_up) == (LastLayers(1), LayerNorms(last=2))
    assert found.recipe.method == "last_layers:k=1"
    assert found.reasons[0].startswith("full scored best, accuracy 0.967 over 3 seeds")
    assert found.reasons[1].startswith(
        "Served with others last_layers:k=1 is the cheapest of those that are not significantly worse than the best "
        "(layers run for this task alone: 1 of 3; for full: all, with the embeddings), with a difference of −0.133 (−"
    )
    assert len(found.reasons) == 4
    serving = found.as_json()["serving"]
    assert serving["n_layers"] == 3
    assert serving["layers_alone"]["layer_norms:last=2"] == 2


def test_what_is_worse_beyond_chance_is_not_proposed_however_cheap() -> None:
    cost = ServingCost(6, {"full": 7, "lora": 6, "layer_norms:last=3": 3, "biases:last=3": 3, "head": 0})

    def summary(method: str, mean: float, rank: int, p: float | None) -> Summary:
        difference = None if p is None else Difference(mean - 0.9, 1e-4, 0.0, 0)
        return Summary(method, mean, None, rank, 10, 1.0, 1000, difference, p)

    best_first = [
        summary("full", 0.9, 1, None), summary("lora", 0.89, 2, 0.6), summary("layer_norms:last=3", 0.88, 3, 0.1),
        summary("biases:last=3", 0.87, 4, 0.05), summary("head", 0.7, 5, 0.049),
    ]  # fmt: skip
    assert [s.method for s in cost.cheapest_first(best_first)] == [
        "layer_norms:last=3", "biases:last=3", "lora", "full", "head"
    ]  # fmt: skip
    assert cost.reason(best_first[0], best_first[0]) == (
        "Served with others it is the cheapest of those that are as good (layers run for this task alone: all, with the "
        "embeddings)."
    )
    assert cost.in_words("lora") == "6 of 6"


@pytest.mark.slow
def test_a_recommendation_for_serving_from_end_to_end(encoder: Any, tmp_path: Any) -> None:
    task = make_task(n_train=60, n_validation=8)
    settings = {"rows": 40, "seeds": 2, "epochs": 1, "batch_size": 8, "out": tmp_path}
    found = recommend(encoder, task, "300", for_serving=True, **settings)
    assert found.serving is not None
    assert {"layer_norms:last=2", "biases:which=query+intermediate,last=2"} <= {s.method for s in found.first.overall}
    costs = {s.method: found.serving.alone[s.method] for s in found.final.overall if s.verdict != "worse"}
    assert costs[method_text(found.method)] == min(costs.values())
    assert "layers run for this task alone: " in found.reasons[1]
    run = trimtab.fit(encoder, task, found.method, epochs=1)
    assert 3 - run.selection.first_layer == costs[method_text(found.method)]
