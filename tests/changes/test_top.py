"""Top: scores of ours choose what they chose when they were three methods, and a score of the user's own is one more."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from small import examples_of, make_task

import trimtab
from trimtab.changes.contract import Trial
from trimtab.changes.method_text import method_identity, method_text, parse_method
from trimtab.changes.methods import Biases, Full, LayerNorms
from trimtab.changes.scores.chance import Chance
from trimtab.changes.scores.fisher import FisherInformation
from trimtab.changes.scores.movement import Movement
from trimtab.changes.top import FisherTop, MovedTop, Random, Top
from trimtab.encoders.encoder import load
from trimtab.errors import InputError
from trimtab.tasks.losses import task_loss

FIXTURES = Path(__file__).parent.parent / "fixtures"
# What the version of delta format 4 chose of the encoder in format3/: text -> parameter -> positions, after manual_seed(3).
BEFORE = json.loads((FIXTURES / "choices.json").read_text())


@pytest.mark.parametrize("text", BEFORE)
def test_the_same_seed_chooses_the_same_elements_as_ever(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.engine.linear.bfloat16_pays", lambda device: False)
    encoder, task = load(FIXTURES / "format3" / "encoder"), make_task(n_train=24, n_validation=4)
    examples = examples_of(encoder, task)
    batches = [examples.take(range(i, i + 8)) for i in range(0, 24, 8)]
    model = encoder.with_head(task, 0)
    torch.manual_seed(3)
    found = parse_method(text).attach(model, batches, task_loss(task))  # type: ignore[attr-defined]
    assert {name: None if at is None else at.tolist() for name, at in found.elements.items()} == BEFORE[text]


@dataclass(frozen=True)
class Magnitude:
    """The largest pretrained values: a score as a user would write it."""

    name: ClassVar[str] = "largest"

    def score(self, model: Any, pool: Any, trial: Any) -> np.ndarray:
        return pool.values_of({name: p.abs() for name, p in model.named_parameters()})


def test_a_score_of_the_users_own(encoder: Any) -> None:
    run = trimtab.fit(encoder, make_task(), Top(Magnitude(), count=30, within=Full()), epochs=1)
    assert run.delta.method == "Top(Magnitude(), count=30, within=full)"
    model = encoder.with_head(make_task())
    values = torch.cat([p.detach().abs().flatten() for n, p in model.named_parameters() if n in model_body(model)])
    lowest = min(
        float(dict(model.named_parameters())[name].detach().abs().flatten()[at].min())
        for name, at in run.selection.backbone.elements.items()
        if at is not None
    )
    assert int((values > lowest).sum()) < 30 <= int((values >= lowest).sum())
    with pytest.raises(InputError, match="largest:count=0 must be at least 1"):
        Top(Magnitude(), count=0)


def model_body(model: Any) -> set[str]:
    return set(Full().attach(model).backbone.elements)


@pytest.mark.parametrize(("more", "value"), [(0, np.nan), (1, 0.5)])
def test_scores_that_are_no_numbers_or_too_many_are_refused(more: int, value: float, encoder: Any) -> None:
    class Broken(Magnitude):
        def score(self, model: Any, pool: Any, trial: Any) -> np.ndarray:
            return np.full(pool.count + more, value)

    with pytest.raises(
        InputError, match=r"largest: the score must give a number for each of the \d+ elements, and gave"
    ):
        Top(Broken(), count=3, within=Biases()).attach(encoder.with_head(make_task()))


def test_a_users_own_method_that_adds_is_none_to_choose_from_either(encoder: Any) -> None:
    class Adding:
        def add(self, model: Any) -> Any:
            return trimtab.Lora(rank=2).add(model)

        def select(self, model: Any, trial: Any) -> Any:
            return trimtab.Lora().select(model)

    with pytest.raises(InputError, match="random:within=lora would train only a part of what lora adds"):
        Random(count=5, within=Adding()).attach(encoder.with_head(make_task()))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (FisherTop(0.1, None, "exact", 64, 3), Top(FisherInformation("exact", 64, 3), share=0.1, within=LayerNorms())),
        (MovedTop(count=5, steps=7), Top(Movement(7), count=5, within=LayerNorms())),
        (Random(5), Top(Chance(), count=5)),
        (Random(share=0.5, within=Biases()), Top(Chance(), share=0.5, within=Biases())),
    ],
)
def test_names_of_ours_are_short_for_a_score(short: Top, long: Top) -> None:
    assert short == long
    assert parse_method(method_text(short)) == short
    assert method_identity(short) == method_identity(long)


def test_a_score_is_told_how_what_it_chooses_from_is_trained(encoder: Any) -> None:
    seen: list[Trial] = []

    class Seeing(Magnitude):
        def score(self, model: Any, pool: Any, trial: Any) -> np.ndarray:
            seen.append(trial)
            return super().score(model, pool, trial)

    trimtab.fit(encoder, make_task("regression"), Top(Seeing(), share=0.5, within=Biases()), epochs=1)
    (trial,) = seen
    assert (trial.kind, trial.defaults, trial.added) == ("regression", Biases.defaults, frozenset())
    assert trial.most_tokens is not None
    assert sum(map(len, trial.batches)) == sum(map(len, trial.batches)) == 96, "every walk is from the first batch"


@pytest.mark.parametrize("make", [FisherTop, MovedTop, Random])
def test_what_adds_is_none_to_choose_from(make: Callable[..., Top]) -> None:
    with pytest.raises(InputError, match=f"{make(count=5).name}:within=lora would train only a part of what lora adds"):
        make(count=5, within=trimtab.Lora())
