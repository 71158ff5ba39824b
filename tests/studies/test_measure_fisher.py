"""The Fisher information of a task: which rows, which head, what is said of it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps, image
from small import examples_of, make_task

import trimtab
from trimtab.changes.fisher import Fisher
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.pages.heatmap import draw_heat_map, means_by_place
from trimtab.studies.measure_fisher import advice, fisher


def test_it_is_the_mean_over_its_rows(encoder: Any) -> None:
    task, name = make_task(), "bert.encoder.layer.1.attention.output.LayerNorm.weight"
    info = trimtab.fisher(encoder, task, trimtab.LayerNorms(), examples=20, seed=3, head="linear", head_start="random")
    assert len(info.rows) == len(set(info.rows.tolist())) == 20
    model = encoder.with_head(task, seed=3, head="linear").eval()
    examples, parameter = examples_of(encoder, task), dict(model.named_parameters())[name]
    expected = torch.zeros_like(parameter)
    for row in info.rows.tolist():
        batch = examples.take([row])
        loss = torch.nn.functional.cross_entropy(padded_logits(model, batch.inputs), batch.labels)
        expected += torch.autograd.grad(loss, parameter)[0] ** 2 / 20
    torch.testing.assert_close(info.values[name], expected, rtol=1e-5, atol=1e-6 * float(expected.max()))


def test_rows_follow_the_seed_and_the_task_may_be_small(encoder: Any) -> None:
    task = make_task(n_train=30)
    same, again, other = (fisher(encoder, task, examples=10, seed=seed) for seed in (0, 0, 1))
    assert same.rows.tolist() == again.rows.tolist() != other.rows.tolist()
    assert all(torch.equal(same.values[name], again.values[name]) for name in same.values)
    assert len(fisher(encoder, task, examples=1000).rows) == 30


def test_notes_and_head_steps(encoder: Any) -> None:
    task = make_task("regression")
    plain, trained = (
        fisher(encoder, task, trimtab.Biases(), examples=24, head_steps=steps, estimator="exact") for steps in (0, 30)
    )
    assert trained.notes["head_steps"] == 30
    assert trained.notes["method"] == "biases"
    assert trained.notes["encoder_sha256"] == encoder.sha256
    assert not torch.equal(*(info.values["bert.embeddings.LayerNorm.bias"] for info in (plain, trained)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 0}, "examples=0"),
        ({"max_length": 2}, "max_length=2 must be at least 3"),
        ({"estimator": "true"}, "estimator must be one of"),
        ({"compute": "int8"}, "compute=int8"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, encoder: Any) -> None:
    with pytest.raises(InputError, match=message):
        fisher(encoder, make_task(), **options)


def test_rows_without_labels(encoder: Any) -> None:
    task = make_task()
    task.train.labels[3] = None  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="without a label"):
        fisher(encoder, task)
    assert len(fisher(encoder, task, estimator="exact", examples=200).rows) == len(task.train)


def test_advice(encoder: Any) -> None:
    info = fisher(encoder, make_task(), examples=12)
    assert "12 rows" in advice(info)

    def with_stability(r: float) -> str:
        return advice(Fisher(info.values, info.within, info.estimator, np.arange(9), r))

    assert "measure on more rows" in with_stability(0.3)
    assert "fairly stable" in with_stability(0.8)
    assert "too few" in with_stability(float("nan"))


def test_heat_map(encoder: Any, tmp_path: Path) -> None:
    info = fisher(encoder, make_task(), trimtab.Full(), examples=12)
    layers, kinds, means = means_by_place(info.parts, info.sums())
    assert layers == ["embeddings", "0", "1", "2"]  # behind them is the head alone, on the mean of the token states
    assert "head" not in kinds
    query = info.by("kind")["query"]["mean"]
    assert np.nanmean(means[:, kinds.index("query")]) == pytest.approx(query)
    picture = draw_heat_map(layers, kinds, means, "a$_{b$ is no formula", "unit", tmp_path / "map.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    for nothing in (np.zeros((1, 2)), np.full((1, 2), np.nan), np.array([[0.0, np.nan]])):
        picture = draw_heat_map(["0"], ["query", "key"], nothing, "title", "unit", tmp_path / "none.svg")
        assert "no unit above 0" in picture.read_text()
    zero = draw_heat_map(["0"], ["query", "key", "value"], np.array([[0.0, 1.0, np.nan]]), "t", "u", tmp_path / "z.png")
    dark, _, bare = (colour_at(zero, share) for share in (0.2, 0.45, 0.7))
    assert dark == pytest.approx(colormaps["viridis"](0.0)[:3], abs=0.01)
    assert bare == pytest.approx((0.92,) * 3, abs=0.01), "a place without elements has another"
    only = np.full((1, 1), 2.0)
    assert b"<svg" in draw_heat_map(["0"], ["query"], only, "title", "unit", tmp_path / "one.svg").read_bytes()


def colour_at(picture: Path, share: float) -> tuple[float, ...]:
    """Red, green and blue of a PNG, that far from the left at a height where no letters stand."""
    pixels = image.imread(picture)
    middle = pixels[int(0.62 * len(pixels))]
    return tuple(middle[int(share * len(middle)), :3].tolist())


def test_a_title_of_one_long_word_stays_on_the_page(encoder: Any, tmp_path: Path) -> None:
    svg = draw_heat_map(["0"], ["query"], np.ones((1, 1)), "word" * 60, "unit", tmp_path / "long.svg").read_text()
    lines = re.findall(r">([^<>]*word[^<>]*)</text>", svg)
    assert len(lines) > 1
    assert max(map(len, lines)) < 60
