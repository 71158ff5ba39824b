"""Learning curves as cells of a study: sizes, draws, sentences, the page; what is there is not computed again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_task

import trimtab
from trimtab.errors import InputError
from trimtab.results.cells import Cells
from trimtab.results.score_curves import ScoreCurve, ScoreCurves, Scores
from trimtab.studies import cell_spec as module
from trimtab.studies.compare import compare
from trimtab.studies.curve import curve, sizes_of
from trimtab.training.baselines import BASELINES


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


GIVEN: dict[str, Any] = {"epochs": 1, "compute": "float32"}


@pytest.fixture(scope="module")
def found(encoder: Any, tmp_path_factory: Any) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("curve")
    return curve(encoder, make_task(n_train=120), ["head"], draws=2, out=folder, **GIVEN), folder


def test_sizes_double_up_to_all_rows() -> None:
    assert sizes_of(make_task(n_train=120)) == [24, 48, 120]  # three classes; 96 is nearly all
    assert sizes_of(make_task(n_train=130)) == [24, 48, 96, 130]
    assert sizes_of(make_task("regression", n_train=120)) == [16, 32, 64, 120]
    assert sizes_of(make_task(n_train=20)) == [20]


def test_each_size_and_draw_is_a_cell_of_the_rows_that_compare_draws(found: Any, encoder: Any) -> None:
    curves, folder = found
    head = curves["head"]
    assert [(each.n, each.rows, len(each.of_draws)) for each in head.sizes] == [(8, 24, 2), (16, 48, 2), (40, 120, 2)]
    assert head.now.n == 40
    run = trimtab.fit(encoder, make_task(n_train=120), "head", seed=1, train_limit=48, **GIVEN)
    assert head.sizes[1].of_draws[1] == pytest.approx(run.scores["accuracy"])
    # Each baseline once for all rows: draws of all are the same.
    assert len(list(Cells(folder).every())) == 6 + 3 * 5
    assert [each.method for each in curves.curves] == ["majority", "tf-idf", "frozen vectors", "head"]


def test_a_finished_curve_costs_nothing_and_shares_cells_with_compare(
    found: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves, folder = found
    monkeypatch.setattr(module, "_fitted", lambda *args: pytest.fail("a cell was computed again"))
    task = make_task(n_train=120)
    assert curve(encoder, task, "head", draws=2, out=folder, **GIVEN).as_json() == curves.as_json()
    study = compare(encoder, [task], ["head"], seeds=2, out=folder, **GIVEN)
    assert tuple(cell.score for cell in study.cells) == curves["head"].now.of_draws


def test_cells_of_baselines_do_not_count_for_other_rows_or_encoders(encoder: Any, encoder_of: Any) -> None:
    task, other = make_task(), encoder_of("distilbert")
    base = trimtab.Settings()

    def identity(kind: int, *given: Any) -> str:
        return module.CellSpec(given[0], given[1], BASELINES[kind], given[2]).identity.now

    for kind in range(3):
        one = identity(kind, encoder, task, base)
        assert one == identity(kind, encoder, task, replace(base, seed=3, epochs=9))
        assert one != identity(kind, encoder, make_task(n_train=95), base)
        assert identity(kind, encoder, task, replace(base, train_limit=9)) != identity(
            kind, encoder, task, replace(base, train_limit=9, seed=1)
        )
    assert identity(1, encoder, task, base) == identity(1, other, task, base)
    assert identity(2, encoder, task, base) != identity(2, other, task, base)
    assert identity(2, encoder, task, base) != identity(2, encoder, task, replace(base, max_length=9))


def test_page_and_markdown(found: Any, tmp_path: Path) -> None:
    curves, _ = found
    text = curves.report(tmp_path / "curve.html").read_text()
    assert text.startswith("<!")
    assert text.count("<svg") == 3
    assert "frozen vectors chart" in text
    table = curves.report(tmp_path / "curve.md").read_text()
    assert "| rows a class | 8 | 16 | 40 |" in table
    assert "- majority: " in table
    json.dumps(curves.as_json())


def test_too_few_rows_say_so(found: Any) -> None:
    curves, _ = found
    assert curves["head"].through is None
    assert any(line.startswith("head: now ") and "3 sizes of at least 32 rows" in line for line in curves.lines())
    with pytest.raises(InputError, match="nothing can be said of head"):
        curves["head"].expected(80)


def made_up(a: float, b: float, c: float, metric: str = "accuracy", largest: int = 128) -> ScoreCurve:
    chance = np.random.default_rng(0)
    sizes = [8 * 2**k for k in range(12) if 8 * 2**k <= largest]
    scores = [Scores(n, 2 * n, tuple(1 - a - b * n**-c + chance.normal(0, 0.05 * n**-0.5, 5))) for n in sizes]
    return ScoreCurve.of("head", False, scores, metric, 1000)


def test_the_sentence_that_people_want() -> None:
    found = made_up(0.1, 0.8, 0.5)
    far = found.expected(1024)
    assert far.low < 1 - 0.1 - 0.8 * 1024**-0.5 < far.high
    said = found.sentence(" a class")
    assert said.startswith(
        f"head: 128 -> 1,024 a class: {100 * far.low:.0f} to {100 * far.high:.0f}%, now 83%; 85% takes "
    )
    assert said.endswith("90% is not in sight")
    low, high = found.rows_for(0.85) or (0, 0)
    assert 128 <= low < (0.8 / 0.05) ** 2 < high <= 1024  # the truth is 256
    assert found.rows_for(0.95) is None
    with pytest.raises(InputError, match="1,025 is more than 8 times the 128"):
        found.expected(1025)


def test_scores_that_are_no_shares_are_not_told_in_percent() -> None:
    assert "%" not in made_up(0.1, 0.8, 0.5, "matthews").sentence(" a class")


def test_errors_get_smaller() -> None:
    chance = np.random.default_rng(0)
    sizes = [Scores(n, n, tuple(2 + 9 * n**-0.5 + chance.normal(0, 0.01, 3))) for n in (32, 64, 128, 256)]
    found = ScoreCurve.of("head", False, sizes, "mean_absolute_error", 500)
    assert found.expected(2048).middle < found.now.mean
    assert "not in sight" not in found.sentence(" rows")
    assert found.rows_for(2.4) is not None


def test_a_baseline_that_is_as_good_is_said() -> None:
    ours, base = made_up(0.1, 0.8, 0.5), replace(made_up(0.05, 0.8, 0.5), method="tf-idf", is_baseline=True)
    lines = ScoreCurves("bert", make_task(), True, (base, ours), {"frozen vectors": "why"}).lines()
    assert "no method is better than tf-idf here, which takes seconds" in lines
    assert "frozen vectors is left out: why" in lines
    assert any("8 of 10" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 0}, "draws=0"),
        ({"seed": 1}, "leave out seed"),
        ({"train_limit": 9}, "leave out train_limit"),
        ({"methods": ["head", "head"]}, "more than once"),
    ],
)
def test_bad_choices(encoder: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curve(encoder, make_task(), **({"methods": "head"} | change))


def test_a_method_that_refuses_is_left_out(encoder: Any) -> None:
    found = curve(encoder, make_task(n_train=20), ["head", "last_layers:k=9"], draws=1, baselines=False, **GIVEN)
    assert [each.method for each in found.curves] == ["head"]
    assert any(line.startswith("last_layers:k=9 is left out: ") for line in found.lines())
