"""How far elements moved, against the two models side by side."""

from typing import Any

import numpy as np
import pytest
import torch
from small import make_task

import trimtab
from trimtab.errors import InputError
from trimtab.studies.information import fisher
from trimtab.studies.movement import movement


def run_of(encoder: Any, method: Any) -> Any:
    return trimtab.fit(encoder, make_task(), method, epochs=1, lr=1e-2, seed=0)


@pytest.mark.parametrize(
    "method", [trimtab.Full(), trimtab.LayerNorms(), trimtab.Random(count=50), trimtab.Lora(rank=2)]
)
def test_distances_are_those_of_the_merged_model(method: Any, encoder: Any) -> None:
    run = run_of(encoder, method)
    found = movement(run, encoder)
    after = dict(trimtab.merge(encoder, run).named_parameters())
    before = dict(encoder.with_head(make_task(), seed=0).named_parameters())
    head = {name for name, part in found.parts.items() if part.is_head}
    for name, value in after.items():
        expected = (value - before[name]).abs().detach()
        if name in found.distances:
            assert np.array_equal(found.distances[name], expected.flatten().numpy())
        elif name not in head:
            assert not expected.any(), name
    assert not head & found.distances.keys()
    if not isinstance(method, trimtab.Lora):
        assert found.trained.count == run.delta.count_body


def test_measures_by_kind(encoder: Any) -> None:
    run = run_of(encoder, trimtab.LayerNorms(what="weight"))
    found = movement(run, encoder).by("kind")
    after = dict(trimtab.merge(encoder, run).named_parameters())
    before = dict(encoder.with_head(make_task(), seed=0).named_parameters())
    names = [name for name in after if "output.LayerNorm.weight" in name and "attention" not in name]
    change = torch.cat([after[name].detach() - before[name].detach() for name in names])
    start = torch.cat([before[name].detach() for name in names])
    entry = found["output_norm"]
    assert entry["mean"] == pytest.approx(float(change.abs().mean()))
    assert entry["relative"] == pytest.approx(float(change.norm() / start.norm()), rel=1e-5)
    assert entry["largest"] == pytest.approx(float(change.abs().max()))
    assert entry["elements"] == len(change) >= entry["moved"] > 0


def test_foreseen_by_itself(encoder: Any) -> None:
    found, info = movement(run_of(encoder, trimtab.LayerNorms()), encoder), fisher(encoder, make_task(), examples=30)
    for name, distance in found.distances.items():  # information that ranks exactly as the movement does
        info.values[name].copy_(torch.from_numpy(distance).view_as(info.values[name]) ** 2)
    seen = found.foreseen_by(info)
    assert seen["elements"] == found.trained.count
    assert seen["rank_correlation"] == pytest.approx(1)
    assert all(each["found"] > 0.99 for each in seen["overlap"].values())  # ties aside
    assert seen["overlap"][0.1]["chance"] == pytest.approx(0.1, abs=0.01)


def test_only_what_was_trained_is_compared(encoder: Any, encoder_of: Any) -> None:
    found = movement(run_of(encoder, trimtab.Random(count=80, within=trimtab.LayerNorms())), encoder)
    info = fisher(encoder, make_task(), examples=30)
    assert found.foreseen_by(info)["elements"] == 80
    with pytest.raises(InputError, match="both trained"):
        found.foreseen_by(fisher(encoder, make_task(), trimtab.Biases(which="query"), examples=5))
    with pytest.raises(InputError, match="another encoder"):
        found.foreseen_by(fisher(encoder_of("electra"), make_task(), examples=5))
