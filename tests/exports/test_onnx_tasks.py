"""Several runs as one graph: each task predicts what its own export does, and runs that cannot share one are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_task

from trimtab.errors import InputError
from trimtab.exports.forms import export
from trimtab.exports.onnx_folder import program_of
from trimtab.training.fit import fit

TEXTS = ["the cat", "a very old dog runs", "fish " * 80]


@pytest.fixture(scope="session")
def runs(
    run_of: Callable[..., Path], encoder_of: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Tasks of three kinds, with two methods and three numbers of outputs, on one encoder."""
    two = tmp_path_factory.mktemp("two") / "run"
    task = make_task("single_label", n_train=24, n_validation=12)
    rows = {
        name: type(each)(each.texts, [min(label, 1) for label in each.labels]) for name, each in task.splits.items()
    }
    task = type(task)("two", task.kind, task.classes[:2], task.text_columns, "label", "accuracy", rows, source="two")
    fit(encoder_of("bert"), task, "layer_norms", epochs=1, out=two, compute="float32", max_length=20)
    return {
        "three": run_of(), "two": two, "several": run_of("multi_label", method="biases"),
        "number": run_of("regression"),
    }  # fmt: skip


@pytest.fixture(scope="session")
def shared(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(runs, "onnx", tmp_path_factory.mktemp("shared") / "out")


@pytest.mark.slow
def test_each_task_of_one_graph_predicts_what_its_own_export_does(
    shared: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    assert {path.stem for path in (shared / "tasks").iterdir()} == set(runs)
    several = program_of(shared).Model(shared, task="three")
    for name, run in runs.items():
        alone = export(run, "onnx", tmp_path / name)
        one = program_of(alone).Model(alone)
        several.use(name)
        for text in TEXTS:
            assert np.abs(several.logits(text) - one.logits(text)).max() < 1e-6
            assert list(several.predict(text)) == list(one.predict(text))
        assert several.about["max_length"] == one.about["max_length"]
    with pytest.raises(ValueError, match="no task 'four'; this folder has: number, several, three, two"):
        several.use("four")


@pytest.mark.slow
def test_a_task_of_another_encoder_is_not_read(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "labels.json").read_text())
    about["base"]["sha256"] = "0" * 64
    (tmp_path / "out" / "labels.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="task 'two' belongs to another encoder"):
        program_of(tmp_path / "out").Model(tmp_path / "out", task="two")


@pytest.mark.slow
def test_the_shared_graph_in_8_bits_has_small_files_for_its_tasks(
    runs: dict[str, Path], tmp_path: Path, command: Any
) -> None:
    named = [f"{name}={run}" for name, run in runs.items()]
    code, _, err = command("export", *named, "--to", "onnx", "--int8", "blocks", "--out", tmp_path / "out")
    assert code == 0, err
    about = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert (about["form"], about["tasks"]) == ("blocks", True)
    model = program_of(tmp_path / "out").Model(tmp_path / "out", task="two")
    assert sum(model.predict("the cat")["probabilities"].values()) == pytest.approx(1.0)
    assert "shared by 4 tasks" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("lora:rank=2", {}, "adds to matrices of the encoder"),
        ("last_layers:k=1", {}, "changes matrices of the encoder"),
        ("layer_norms", {"head": "cls"}, "each has another head"),
    ],
)
def test_runs_that_cannot_share_a_graph_are_refused(
    run_of: Callable[..., Path], tmp_path: Path, method: str, settings: Any, said: str
) -> None:
    other = run_of(method=method, **settings)
    with pytest.raises(InputError, match=said):
        export({"one": run_of(), "other": other}, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_several_runs_need_is_told(run_of: Callable[..., Path], tmp_path: Path, command: Any) -> None:
    run, out = run_of(), tmp_path / "out"
    for arguments, said in (
        ((run, f"b={run}", "--out", out), "--to merged has a place for one run"),
        ((run, f"b={run}", "--to", "onnx"), "give --out FOLDER"),
        ((run, run, "--to", "onnx", "--out", out), "two runs are called 'run'"),
        ((run, f"../b={run}", "--to", "onnx", "--out", out), "cannot be the name of a task"),
        ((run, f"b={run}", "--to", "onnx", "--out", out, "--int8", "auto", "--data", "x.csv"), "the rows of one task"),
    ):
        code, _, err = command("export", *arguments)
        assert code == 2
        assert said in err
        assert not out.exists()


def test_runs_of_two_encoders_are_refused(run_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="each has another encoder"):
        export({"one": run_of(), "other": run_of(family="electra")}, "onnx", tmp_path / "out")
