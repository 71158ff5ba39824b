"""Comparisons: cells that survive anything, summaries that are right, a page and tables that say so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_task

import trimtab
from trimtab.changes.methods import Defaults
from trimtab.errors import InputError
from trimtab.studies import compare as module
from trimtab.studies.compare import Cell, Comparison, compare, summarised
from trimtab.studies.comparison_page import answer, markdown

METHODS = [trimtab.Full(), trimtab.LayerNorms(), trimtab.Head()]


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


@pytest.fixture(scope="module")
def study(encoder: Any, tmp_path_factory: Any) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("study")
    return compare(encoder, [make_task()], METHODS, seeds=2, out=folder, epochs=1), folder


def test_a_cell_is_the_fit_alone(study: Any, encoder: Any) -> None:
    found, folder = study
    assert len(found.cells) == len(list(folder.glob("*.json"))) == 6
    cell = next(c for c in found.cells if (c.method, c.seed) == ("layer_norms", 1))
    run = trimtab.fit(encoder, make_task(), trimtab.LayerNorms(), seed=1, epochs=1)
    assert cell.scores == pytest.approx(run.scores)
    assert cell.elements == {"body": run.delta.count_body, "head": run.delta.count_head}
    assert run.logits is not None
    assert cell.answers == run.logits.argmax(1).tolist()
    full = next(c for c in found.cells if c.method == "full")
    assert full.delta_bytes > cell.delta_bytes > 1000
    assert cell.peak_memory_bytes > 1e8


def test_a_finished_study_costs_nothing(study: Any, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, folder = study
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("a cell was computed again"))
    again = compare(encoder, [make_task()], METHODS, seeds=2, out=folder, epochs=1)
    assert again.as_json() == found.as_json()


def test_other_settings_rows_or_damage_are_computed(study: Any, encoder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    fits: list[Any] = []
    real = module.fit
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: fits.append(kwargs) or real(*args, **kwargs))

    def computed(**changed: Any) -> int:
        fits.clear()
        given: dict[str, Any] = {"task": make_task(), "seeds": [0], "epochs": 1} | changed
        compare(encoder, [given.pop("task")], [trimtab.Head()], out=tmp_path, **given)
        return len(fits)

    assert computed() == 1
    assert computed() == 0
    assert computed(epochs=2) == 1
    assert computed(task=make_task(n_train=90)) == 1
    assert computed(seeds=[1]) == 1
    with monkeypatch.context() as patch:  # the method's own rates count too
        patch.setattr(trimtab.Head, "defaults", Defaults(head_lr=0.5))
        assert computed() == 1
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text()[:40])
    assert computed() == 1


def test_a_method_that_refuses_marks_its_cells(encoder: Any) -> None:
    methods = [trimtab.LayerNorms(), trimtab.LastLayers(k=9)]
    found = compare(encoder, [make_task()], methods, seeds=1, epochs=1)
    assert [s.method for s in found.overall] == ["layer_norms"]
    assert "does not fit" in found.refused["last_layers:k=9"]
    assert "last_layers:k=9 was refused" in found.markdown()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "at least one method"),
        ({"methods": [trimtab.Head(), trimtab.Head()]}, "head is there more than once"),
        ({"seeds": 0}, "at least one seed"),
        ({"reference": trimtab.Biases()}, "the reference biases is not among"),
        ({"epochs": -1}, "epochs=-1"),
        ({"epoch": 1}, "epoch"),
    ],
)
def test_bad_choices(change: dict[str, Any], message: str, encoder: Any) -> None:
    given: dict[str, Any] = {"methods": METHODS, "seeds": 1} | change
    with pytest.raises(InputError, match=message):
        compare(encoder, [make_task()], given.pop("methods"), given.pop("seeds"), **given)


def made_up(rates: dict[str, float], n_tasks: int = 2) -> Comparison:
    """A comparison of methods that are right at the given rates."""
    draw, cells, tasks = np.random.default_rng(0), [], []
    for number in range(n_tasks):
        task = make_task(n_validation=150)
        task = type(task)(**{**vars(task), "name": f"animals {number}"})
        tasks.append(task)
        truth = np.array(task.validation.labels)
        for seed in (0, 1, 2):
            for i, (method, rate) in enumerate(rates.items()):
                right = np.random.default_rng(7).random(150) < rate + draw.normal(0, 0.004)
                answers = np.where(right, truth, (truth + 1) % 3)
                score = float((answers == truth).mean())
                cells.append(
                    Cell(
                        task.name,
                        method,
                        seed,
                        "accuracy",
                        {"accuracy": score},
                        {"accuracy": 0.3},
                        {"body": 10 ** (6 - 2 * i), "head": 9},
                        0.5,
                        100.0 - i,
                        10.0,
                        10**9,
                        10 ** (7 - i),
                        {},
                        answers.tolist(),
                    )
                )
    return summarised("bert", tasks, list(rates), [0, 1, 2], next(iter(rates)), cells)


def test_summaries_and_the_three_lines() -> None:
    found = made_up({"full": 0.9, "close": 0.89, "poor": 0.5})
    ranks = {s.method: s.rank for s in found.overall}
    assert ranks == {"full": 1, "close": 2, "poor": 3}
    verdicts = {s.method: s.verdict for s in found.overall}
    assert verdicts == {"full": "", "close": "not told apart", "poor": "worse"}
    close = found.by_task["animals 0"][1]
    scores = [c.score for c in found.cells if c.method == "close" and c.task == "animals 0"]
    assert close.mean == pytest.approx(np.mean(scores))
    assert close.spread == pytest.approx(np.std(scores, ddof=1))
    assert found.front("elements") == ["poor", "close", "full"]
    first, second, third = answer(found)
    assert first.startswith("full scores best")
    assert second.startswith("close is the smallest change that cannot be told apart from full")
    assert third.startswith("poor is quickest")
    # three methods, two tasks and the mean over them: two differences each
    assert sum(s.p is not None for each in [*found.by_task.values(), found.overall] for s in each) == 6


def test_page_and_markdown(tmp_path: Path) -> None:
    found = made_up({"full": 0.9, "<b>odd|name</b>": 0.89})
    page = found.report(tmp_path / "page.html").read_text()
    assert answer(found)[1].replace("<b>", "&lt;b&gt;").replace("</b>", "&lt;/b&gt;") in page
    assert "<b>odd" not in page
    assert page.count("<svg") == 3
    assert 'src="http' not in page
    assert "url(http" not in page
    tables = found.report(tmp_path / "tables.md").read_text()
    assert tables == markdown(found)
    assert "odd\\|name" in tables
    lines = [line for line in tables.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}


STUDY = """
import sys
sys.path.insert(0, {tests!r})
from small import make_task
import trimtab
encoder = trimtab.load({encoder!r})
trimtab.compare(encoder, [make_task()], [trimtab.LayerNorms(), trimtab.Head()], seeds=2, out={out!r}, epochs=2)
print("finished")
"""


def test_killed_at_any_moment_it_ends_with_the_same_table(encoder: Any, tmp_path: Path) -> None:
    methods = [trimtab.LayerNorms(), trimtab.Head()]
    expected = compare(encoder, [make_task()], methods, seeds=2, out=tmp_path / "whole", epochs=2)
    out = tmp_path / "killed"
    script = STUDY.format(tests=str(Path(__file__).parent.parent), encoder=str(encoder.folder), out=str(out))
    for _ in range(60):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        n_before, deadline = len(list(out.glob("*.json"))), time.monotonic() + 120
        while process.poll() is None and len(list(out.glob("*.json"))) == n_before and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)  # right behind a cell, somewhere in the next one
        if "finished" in process.communicate()[0]:
            break
        if len(list(out.glob("*.json"))) == 4:
            break
    again = compare(encoder, [make_task()], methods, seeds=2, out=out, epochs=2)
    fields = ("method", "mean", "spread", "rank", "elements", "delta_bytes")
    assert [[getattr(s, f) for f in fields] for s in again.overall] == [
        [getattr(s, f) for f in fields] for s in expected.overall
    ]
    assert [c.answers for c in again.cells] == [c.answers for c in expected.cells]
    assert not list(out.glob(".*part"))


def test_json_holds_no_answers(study: Any) -> None:
    text = json.dumps(study[0].as_json())
    assert '"answers"' not in text
    assert '"cells"' in text
