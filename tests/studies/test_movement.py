"""How far elements moved, against the two models side by side."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from small import make_task

import trimtab
from trimtab.changes.fisher import Fisher
from trimtab.changes.selection import Selection
from trimtab.commands.terminal import foreseen_table
from trimtab.encoders.parameter_kinds import Part
from trimtab.errors import InputError
from trimtab.pages.heatmap import draw_heat_map, means_by_place
from trimtab.studies.measure_fisher import fisher
from trimtab.studies.movement import Movement, movement


def run_of(encoder: Any, method: Any) -> Any:
    return trimtab.fit(encoder, make_task(), method, epochs=1, lr=1e-2, seed=0, head="default", head_start="random")


@pytest.mark.parametrize(
    "method", [trimtab.Full(), trimtab.LayerNorms(), trimtab.Random(count=50), trimtab.Lora(rank=2)]
)
def test_distances_are_those_of_the_merged_model(method: Any, encoder: Any) -> None:
    run = run_of(encoder, method)
    found = movement(run, encoder)
    after = dict(trimtab.merge(encoder, run).named_parameters())
    before = dict(encoder.with_head(make_task(), seed=0, head="default").named_parameters())
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
    before = dict(encoder.with_head(make_task(), seed=0, head="default").named_parameters())
    names = [name for name in after if "output.LayerNorm.weight" in name and "attention" not in name]
    change = torch.cat([after[name].detach() - before[name].detach() for name in names])
    start = torch.cat([before[name].detach() for name in names])
    entry = found["output_norm"]
    assert entry["mean"] == pytest.approx(float(change.abs().mean()))
    assert entry["relative"] == pytest.approx(float(change.norm() / start.norm()), rel=1e-5)
    assert entry["largest"] == pytest.approx(float(change.abs().max()))
    assert entry["elements"] == len(change) >= entry["moved"] > 0


def test_foreseen_by_itself(encoder: Any) -> None:
    found, info = (
        movement(run_of(encoder, trimtab.LayerNorms()), encoder),
        fisher(encoder, make_task(), examples=30, head="default"),
    )
    for name, distance in found.distances.items():  # information that ranks exactly as the movement does
        info.values[name].copy_(torch.from_numpy(distance).view_as(info.values[name]) ** 2)
    seen = found.foreseen_by(info)
    assert seen["elements"] == found.trained.count
    assert seen["rank_correlation"] == pytest.approx(1)
    assert all(each["found"] > 0.99 for each in seen["overlap"].values())  # ties aside
    assert seen["overlap"][0.1]["chance"] == pytest.approx(0.1, abs=0.01)


def unrelated(n: int, n_unused: int) -> tuple[Movement, Fisher]:
    """Movement and information of two parameters, of which chance decides; `n_unused` elements of each have neither."""
    draw, parts = np.random.default_rng(0), {
        "words": Part(-1, "embedding", "weight", n + n_unused), "query": Part(0, "query", "weight", n + n_unused),
        "head": Part(1, "head", "weight", 3),
    }  # fmt: skip
    numbers = draw.random((2, 2, n + n_unused), np.float32)
    numbers[..., n:] = 0
    names = ("words", "query")
    everything = Selection(parts, dict.fromkeys(names))
    moved = Movement(dict(zip(names, numbers[0], strict=True)), dict.fromkeys(names, 1.0), everything)
    values = {name: torch.from_numpy(each) for name, each in zip(names, numbers[1], strict=True)}
    return moved, Fisher(values, everything, "exact", np.arange(3), 1.0)


def test_elements_without_information_are_no_foresight(capsys: pytest.CaptureFixture[str]) -> None:
    seen = unrelated(4000, 3000)[0].foreseen_by(unrelated(4000, 3000)[1])
    assert (seen["elements"], seen["left_out"]) == (8000, 6000)
    assert abs(seen["rank_correlation"]) < 0.05
    for share, each in seen["overlap"].items():
        assert each["chance"] == pytest.approx(share)
        assert each["found"] == pytest.approx(share, abs=0.03)
    assert list(seen["by_kind"]) == ["embedding", "query"]
    assert all(abs(r) < 0.05 for r in seen["by_kind"].values())
    foreseen_table(seen)
    printed = capsys.readouterr().out
    assert "over 8,000 parameters" in printed
    assert "6,000 more parameters were left out" in printed
    assert "embedding" in printed


def test_kinds_are_ranked_apart() -> None:
    moved, info = unrelated(500, 10)
    info.values["query"].copy_(torch.from_numpy(moved.distances["query"]))  # foreseen within one kind alone
    seen = moved.foreseen_by(info)
    assert seen["by_kind"]["query"] == pytest.approx(1)
    assert abs(seen["by_kind"]["embedding"]) < 0.15
    info.values["words"][1:] = 0  # one element left, which has no rank
    assert list(moved.foreseen_by(info)["by_kind"]) == ["query"]
    for value in info.values.values():
        value.zero_()
    with pytest.raises(InputError, match="any information"):
        moved.foreseen_by(info)


def test_what_was_foreseen_is_found_without_a_set_of_positions() -> None:
    moved, info = unrelated(200_000, 0)
    tracemalloc.start()
    moved.foreseen_by(info)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 400_000  # bytes an element: 77, and 167 with two Python sets


def test_only_what_was_trained_is_compared(encoder: Any, encoder_of: Any) -> None:
    found = movement(run_of(encoder, trimtab.Random(count=80, within=trimtab.LayerNorms())), encoder)
    info = fisher(encoder, make_task(), examples=30, head="default")
    assert found.foreseen_by(info)["elements"] == 80
    with pytest.raises(InputError, match="both trained"):
        found.foreseen_by(fisher(encoder, make_task(), trimtab.Biases(which="query"), examples=5))
    with pytest.raises(InputError, match="another encoder"):
        found.foreseen_by(fisher(encoder_of("electra"), make_task(), examples=5))


def test_a_run_of_the_head_alone_moved_nothing(encoder: Any, tmp_path: Any) -> None:
    found = movement(run_of(encoder, trimtab.Head()), encoder)
    assert not found.distances
    places = means_by_place(found.parts, found.sums())
    picture = draw_heat_map(*places, "Movement", "mean absolute change", tmp_path / "none.svg")
    assert "nothing to show: no mean absolute change above 0" in picture.read_text()
