"""What a method is: ours, a user's with `add` and `select`, and one with `attach` as older versions asked for."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small import make_task

import trimtab
from trimtab.changes.contract import Additions, Trial, adapted, add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Biases, Full, LayerNorms, Union
from trimtab.changes.top import Random
from trimtab.errors import InputError

TASK = {"n_train": 32, "n_validation": 8}


class Attaching:
    """As a user wrote it for an older version."""

    def __init__(self):
        self.rows = 0

    def attach(self, model: Any, batches: Any = (), loss: Any = None) -> Any:
        self.rows = sum(map(len, batches))
        assert float(loss(torch.zeros(2, 3), torch.tensor([0, 2]))) > 0
        return Biases("query").attach(model)


class Selecting:
    """As a user writes it now, who adds nothing."""

    def select(self, model: Any, trial: Any) -> Any:
        return Biases("query").select(model, trial)


class Adding:
    """A user's own that adds what a method of ours adds, and trains all of that and a little more."""

    def add(self, model: Any) -> Additions:
        return Lora(rank=2, targets="key").add(model)

    def select(self, model: Any, trial: Any) -> Any:
        return Lora().select(model) | Biases("query").select(model)


@pytest.mark.parametrize(
    "method", [Attaching(), Selecting(), Union((Attaching(), Biases("query")))], ids=["attach", "select", "union"]
)
def test_a_users_own_method(method: Any, encoder: Any) -> None:
    run = trimtab.fit(encoder, make_task(**TASK), method, epochs=1)
    assert run.delta.count_body == 3 * 32
    for own in getattr(method, "methods", (method,)):
        assert getattr(own, "rows", 32) == 32


def test_a_users_own_method_beside_lora_and_as_what_is_chosen_within(encoder: Any) -> None:
    run = trimtab.fit(encoder, make_task(**TASK), Union((Lora(rank=2), Attaching())), epochs=1)
    lora = trimtab.fit(encoder, make_task(**TASK), Lora(rank=2), epochs=1)
    assert run.delta.count_body == lora.delta.count_body + 3 * 32
    some = trimtab.fit(encoder, make_task(**TASK), Random(count=7, within=Attaching()), epochs=1)  # type: ignore[arg-type]
    assert some.delta.count_body == 7


def test_a_method_of_ours_that_a_user_has_changed_is_asked_by_its_attach(encoder: Any) -> None:
    class Fewer(Biases):
        def attach(self, model: Any, batches: Any = (), loss: Any = None) -> Any:
            assert loss is not None
            return super().attach(model, batches, loss) - Biases("key").attach(model)

    run = trimtab.fit(encoder, make_task(**TASK), Fewer("query+key"), epochs=1)
    assert run.delta.count_body == 3 * 32


def test_a_delta_knows_what_a_users_own_method_has_added(encoder: Any, tmp_path: Path) -> None:
    run = trimtab.fit(encoder, make_task(**TASK), Adding(), epochs=1, out=tmp_path / "run", lr=0.01)
    delta = Delta.load(tmp_path / "run")
    assert [(each.name, each.options["targets"]) for each in delta.additions] == [("lora", "key")]
    texts = make_task(**TASK).validation.texts[0]
    assert trimtab.predict(tmp_path / "run", texts, encoder) == trimtab.predict(run, texts, encoder)
    assert not any("lora" in name for name, _ in delta.merged(encoder).named_parameters())


def test_modules_that_attach_adds_are_refused_before_training(encoder: Any) -> None:
    class Injecting:
        def attach(self, model: Any, batches: Any = (), loss: Any = None) -> Any:
            return Lora(rank=2).attach(model)

    with pytest.raises(InputError, match=r"Injecting.attach adds .*lora_A.* does so in `add\(model\) -> Additions`"):
        trimtab.fit(encoder, make_task(**TASK), Injecting(), epochs=1)


def test_a_part_of_what_a_users_method_adds_is_refused_before_training(encoder: Any) -> None:
    class Half(Adding):
        def select(self, model: Any, trial: Any) -> Any:
            return super().select(model, trial).taken(torch.arange(40).numpy())

    with pytest.raises(InputError, match="trains only a part of what lora adds: take a smaller lora"):
        trimtab.fit(encoder, make_task(**TASK), Half(), epochs=1)


@pytest.mark.parametrize("method", [Full(), LayerNorms(), Lora(rank=2), Union((Biases(), Lora(rank=2)))], ids=repr)
def test_what_is_added_is_said(method: Any, encoder: Any) -> None:
    model = encoder.with_head(make_task())
    before = {name for name, _ in model.named_parameters()}
    selection, additions = add_and_select(method, model, Trial())
    new = {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert additions.parameters == new
    assert [each.name for each in additions.made] == (["lora"] if new else [])
    assert all(selection.elements[name] is None for name in new)
    again = encoder.with_head(make_task())
    assert adapted(method).add(again) == additions
    assert bool(before - {name for name, _ in again.named_parameters()}) == bool(new), "wrapped maps have other names"


def test_lora_is_asked_for_by_name_in_one_module_alone() -> None:
    source = Path(trimtab.__file__).parent
    asking = re.compile(r"isinstance\([^)]*\bLora\b|kind [!=]= \"lora\"|\.loras\b|\binject_lora\b")
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if asking.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"changes/lora.py"}
