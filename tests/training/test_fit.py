"""Training end to end on small models: it learns, touches only what was selected, and resumes to the same bits."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from dying import Killed, dying_before
from small import FAMILIES, make_task

from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.method_text import parse_method
from trimtab.changes.methods import Biases, Full, Head, LastLayers, LayerNorms, Union
from trimtab.changes.scores.fisher import FisherInformation
from trimtab.changes.scores.movement import Movement
from trimtab.changes.top import FisherTop, Random, Top
from trimtab.encoders.encoder import load
from trimtab.engine import linear
from trimtab.errors import InputError
from trimtab.files import write_text
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predictor import predict
from trimtab.results import record
from trimtab.results.checkpoint import CHECKPOINT
from trimtab.results.recipe import Settings
from trimtab.studies.measure_fisher import fisher
from trimtab.tasks.task import Rows
from trimtab.training import fit as fit_module
from trimtab.training import steps as steps_module
from trimtab.training import workbench
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

METHODS = (
    Full(), Head(), LastLayers(1), Biases(), LayerNorms(), Random(count=300), Random(count=40, within=LayerNorms()),
    Lora(rank=2), Union((LayerNorms(), Lora(rank=2))),
)  # fmt: skip


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_it_learns(kind, pairs, encoder):
    task = make_task(kind, n_train=240, pairs=pairs)
    run = fit(encoder, task, Full(), epochs=8, lr=3e-3, batch_size=16, dropout=0.0, head="default", head_start="random")
    assert run.scores[task.metric] > run.baseline[task.metric] + 0.15
    assert run.scores["loss"] < run.baseline["loss"]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_unselected_elements_stay_bit_identical(method, encoder):
    task = make_task(n_train=32, n_validation=8)
    bench = set_up(encoder, task, method, Settings(epochs=2, batch_size=8, weight_decay=0.5, lr=0.01))
    before = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
    for step in range(bench.total_steps):
        bench.train_step(step)
    moved = 0
    for name, parameter in bench.model.named_parameters():
        changed = (parameter.detach() != before[name]).flatten()
        at = bench.selection.elements.get(name, [])
        inside = torch.zeros_like(changed)
        inside[slice(None) if at is None else torch.as_tensor(at, dtype=torch.long)] = True
        assert not (changed & ~inside).any(), name
        moved += int((changed & inside).sum())
    assert moved > 0.5 * bench.selection.count or isinstance(method, Full)  # rows of absent words do not move


def test_optimizer_state_grows_with_the_selection(encoder):
    task = make_task(n_train=16, n_validation=8)
    bench = set_up(encoder, task, Random(count=50), Settings(batch_size=8))
    bench.train_step(0)
    moments = sum(t.numel() for name, t in bench.optimizer.moments().items() if not name.startswith("step/"))
    assert moments == 2 * bench.selection.count
    assert all(p.grad is None for p in bench.model.parameters())


def test_groups_of_a_batch_add_up_to_the_batch(encoder):
    """Splitting a batch to bound memory changes the update by rounding only."""
    task = make_task(n_train=32, n_validation=8)
    values = []
    for limit in (10_000, 20):
        settings = Settings(batch_size=16, tokens_per_batch=limit, dropout=0.0, compute="float32")
        bench = set_up(encoder, task, LayerNorms(), settings)
        for step in range(2):
            bench.train_step(step)
        values.append(bench.optimizer.values())
    for name, value in values[0].items():
        torch.testing.assert_close(values[1][name], value, rtol=1e-4, atol=1e-5)


def test_the_same_recipe_gives_the_same_bits_and_another_seed_does_not(encoder):
    task = make_task(n_train=32, n_validation=16)
    first, again, other = (
        fit(encoder, task, LayerNorms(), epochs=2, seed=seed, head_start="random") for seed in (0, 0, 1)
    )
    assert all(torch.equal(first.delta.values[name], again.delta.values[name]) for name in first.delta.values)
    assert any(not torch.equal(first.delta.values[name], other.delta.values[name]) for name in first.delta.values)


def test_fit_leaves_the_global_generator_alone(encoder):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["default", "linear"])
def test_every_family_fits_saves_and_loads(family, head, encoder_of, tmp_path, monkeypatch):
    """The fit itself reads the saved delta back and compares logits; here the scores are compared as well."""
    task, encoder = make_task(n_train=32, n_validation=24), encoder_of(family)
    settings = {"epochs": 2, "batch_size": 8, "compute": "float32", "head": head}
    run = fit(encoder, task, LayerNorms(), out=tmp_path, **settings)
    # In float32: these encoders hardly tell texts apart, and a probe enlarges what does, rounding as well.
    monkeypatch.setattr(linear, "bfloat16_pays", lambda device: False)
    found = evaluate(tmp_path, task, "validation", encoder)
    assert found["scores"]["loss"] == pytest.approx(run.scores["loss"], abs=0.02)


def test_a_resumed_run_goes_on_in_the_arithmetic_it_began_with(encoder, tmp_path, monkeypatch):
    """What "auto" measures may change between sittings on a busy machine."""
    task = make_task(n_train=32, n_validation=16)
    monkeypatch.setattr(linear, "bfloat16_pays", lambda device: True)
    whole = fit(encoder, task, LayerNorms(), out=tmp_path / "whole", epochs=2, batch_size=8)
    with dying_before(5):
        fit(encoder, task, LayerNorms(), out=tmp_path / "run", epochs=2, batch_size=8)
    monkeypatch.setattr(linear, "bfloat16_pays", lambda device: False)
    resumed = fit(encoder, task, LayerNorms(), out=tmp_path / "run", epochs=2, batch_size=8, resume=True)
    assert resumed.details["settings"]["compute"] == "bfloat16"
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


@pytest.mark.parametrize(
    "method",
    [
        FisherTop(count=60),
        FisherTop(count=300, within=Full()),
        Union((FisherTop(count=60), Lora(rank=2))),
    ],
    ids=["few", "everywhere", "beside LoRA"],
)
def test_a_resumed_run_trains_the_elements_it_began_with(method, encoder, tmp_path, monkeypatch, capfd):
    """They are not measured again, which takes its time, and in another arithmetic may come to other elements."""
    task = make_task(n_train=32, n_validation=16)
    monkeypatch.setattr(linear, "bfloat16_pays", lambda device: True)
    with dying_before(5):
        fit(encoder, task, method, out=tmp_path / "run", epochs=2, batch_size=8)
    whole = fit(encoder, task, method, epochs=2, batch_size=8)
    capfd.readouterr()
    monkeypatch.setattr(FisherInformation, "score", lambda *args: pytest.fail("it was measured again"))
    resumed = fit(encoder, task, method, out=tmp_path / "run", epochs=2, batch_size=8, resume=True, progress=True)
    assert "chooses, by" not in capfd.readouterr().err
    assert resumed.selection == whole.selection
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


@pytest.mark.parametrize("method", [LayerNorms(), Random(count=200), Lora(rank=2), LastLayers(1), Head()], ids=repr)
def test_resumed_run_equals_an_uninterrupted_one(method, encoder, tmp_path, monkeypatch):
    """The run dies in the middle of an epoch, behind a checkpoint by time, and goes on to the same bits."""
    task = make_task(n_train=48, n_validation=16)
    settings = {"epochs": 3, "batch_size": 8, "lr": 5e-3, "head_start": "random" if method == Head() else "probe"}
    whole = fit(encoder, task, method, out=tmp_path / "whole", **settings)
    monkeypatch.setattr(steps_module, "CHECKPOINT_SECONDS", 0.0)
    with dying_before(9):
        fit(encoder, task, method, out=tmp_path / "resumed", **settings)
    assert (tmp_path / "resumed" / CHECKPOINT).is_file()
    resumed = fit(encoder, task, method, out=tmp_path / "resumed", resume=True, **settings)
    assert resumed.delta.values.keys() == whole.delta.values.keys()
    for name, value in whole.delta.values.items():
        assert torch.equal(resumed.delta.values[name], value), name
    assert resumed.scores == whole.scores
    without_times = [[entry | {"seconds": 0.0} for entry in run.history] for run in (resumed, whole)]
    assert without_times[0] == without_times[1]
    assert not (tmp_path / "resumed" / CHECKPOINT).exists()


KILLED_RUN = """
import sys
sys.path[:0] = [{tests!r}]
from small import FAMILIES, make_task
from trimtab.encoders.encoder import load
from trimtab.changes.methods import LayerNorms
from trimtab.training import steps
from trimtab.training.fit import fit
steps.CHECKPOINT_SECONDS = 0.0
fit(load({encoder!r}), make_task(), LayerNorms(), out={out!r}, resume=True, epochs=12, batch_size=8, compute="bfloat16")
"""


def test_resume_after_kill_9(encoder, tmp_path):
    """A real process, really killed, at whatever step it was; the resumed run ends as the uninterrupted one."""
    code = KILLED_RUN.format(
        tests=os.path.dirname(os.path.dirname(__file__)), encoder=str(encoder.folder), out=str(tmp_path / "a")
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "a" / CHECKPOINT).is_file() and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    settings = {"epochs": 12, "batch_size": 8, "compute": "bfloat16"}  # "auto" is timed in each process anew
    resumed = fit(encoder, make_task(), LayerNorms(), out=tmp_path / "a", resume=True, **settings)
    whole = fit(encoder, make_task(), LayerNorms(), out=tmp_path / "b", **settings)
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


def test_resume_refuses_another_recipe(encoder, tmp_path, monkeypatch):
    task = make_task(n_train=16, n_validation=8)
    monkeypatch.setattr(steps_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "finished_run", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        fit(encoder, task, LayerNorms(), out=tmp_path, epochs=1)
    with pytest.raises(InputError, match="metric='accuracy'"):
        fit(encoder, dataclasses.replace(task, metric="loss"), LayerNorms(), out=tmp_path, epochs=1, resume=True)
    with pytest.raises(InputError, match=r"lr=0\.009 \(now 0.5\)"):
        fit(encoder, task, LayerNorms(), out=tmp_path, epochs=1, lr=0.5, resume=True)


def test_ctrl_c_keeps_the_best_so_far_and_can_go_on(encoder, tmp_path, monkeypatch):
    task = make_task(n_train=48, n_validation=16)
    settings = {"epochs": 4, "batch_size": 8}
    steps = workbench.Workbench.train_step

    def interrupted(bench, step):
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return steps(bench, step)

    monkeypatch.setattr(workbench.Workbench, "train_step", interrupted)
    run = fit(encoder, task, LayerNorms(), out=tmp_path / "a", **settings)
    assert run.stopped == "interrupted"
    assert run.details["steps"] == 9
    assert [entry["step"] for entry in run.history] == [0, 6, 9]
    assert any("Interrupted after step 9 of 24" in note for note in run.notes)
    assert Delta.load(tmp_path / "a").values.keys() == run.delta.values.keys()
    monkeypatch.setattr(workbench.Workbench, "train_step", steps)
    resumed = fit(encoder, task, LayerNorms(), out=tmp_path / "a", resume=True, **settings)
    whole = fit(encoder, task, LayerNorms(), **settings)
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


def test_the_best_validation_is_restored_whichever_way_the_metric_points(encoder):
    """With a rate that wrecks the model, the last step is not the best; loss points down and accuracy up."""
    for metric in ("loss", "accuracy"):
        task = dataclasses.replace(make_task(), metric=metric)
        run = fit(encoder, task, Full(), epochs=6, lr=0.05, batch_size=16)
        found = [entry["scores"][metric] for entry in run.history]  # the start too, which is a linear probe
        best = min(found) if metric == "loss" else max(found)
        assert run.scores[metric] == pytest.approx(best, abs=1e-6)


def test_early_stopping(encoder):
    task = dataclasses.replace(make_task(n_train=32, n_validation=16), metric="loss")
    run = fit(encoder, task, Full(), epochs=50, lr=0.1, batch_size=16, patience=2)
    assert run.stopped == "early"
    assert run.details["steps"] < 100
    assert run.details["best_step"] == run.history[-3]["step"]


def test_of_equal_scores_the_one_with_the_lowest_loss_is_kept_and_patience_sees_it_fall(encoder):
    """Every row has the first class, so that accuracy is 1 from the first epoch on and only the loss still falls."""
    task = make_task(n_train=64, n_validation=16)
    splits = {name: dataclasses.replace(rows, labels=[0] * len(rows)) for name, rows in task.splits.items()}
    task = dataclasses.replace(task, splits=splits)
    settings = {"lr": 1e-5, "head_lr": 2e-2, "batch_size": 16, "head_start": "random", "dropout": 0.0}
    run = fit(encoder, task, Full(), epochs=5, patience=1, **settings)
    scores = [entry["scores"] for entry in run.history[1:]]
    assert [each["accuracy"] for each in scores] == [1.0] * 5, "it stopped while the loss was falling"
    assert run.details["best_step"] == run.details["steps"]
    assert run.scores["loss"] == pytest.approx(min(each["loss"] for each in scores), abs=1e-6)


def test_few_validation_rows_judge_a_step_by_its_loss(encoder, monkeypatch):
    task = make_task(n_train=48, n_validation=8)
    settings = {"epochs": 6, "lr": 3e-3, "batch_size": 16, "eval_steps": 1}
    run = fit(encoder, task, Full(), **settings)
    assert run.details["judged_by"] == "loss"
    lowest = min(run.history, key=lambda entry: entry["validation_loss"])
    assert run.details["best_step"] == lowest["step"]
    assert run.details["interval"]["rows"] == 8
    assert run.details["interval"]["low"] < run.scores["accuracy"] or run.scores["accuracy"] == 0
    monkeypatch.setattr(workbench, "FEW_VALIDATION_ROWS", 8)
    assert fit(encoder, task, Full(), **settings).details["judged_by"] == "accuracy"


def test_a_run_killed_after_its_patience_was_lost_stops_there(encoder, tmp_path, monkeypatch):
    task = dataclasses.replace(make_task(n_train=32, n_validation=16), metric="loss")
    settings = {"epochs": 50, "lr": 0.1, "batch_size": 16, "patience": 2}
    whole = fit(encoder, task, Full(), **settings)
    finished = fit_module.finished_run
    monkeypatch.setattr(fit_module, "finished_run", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        fit(encoder, task, Full(), out=tmp_path, **settings)
    monkeypatch.setattr(fit_module, "finished_run", finished)
    resumed = fit(encoder, task, Full(), out=tmp_path, resume=True, **settings)
    assert resumed.details["steps"] == whole.details["steps"]
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("method", "settings", "error"),
    [(Biases(which="nonsense"), {}, InputError), (Biases(), {}, Killed), (Biases(), {"lr": 1e30}, InputError)],
)
def test_an_overwrite_that_comes_to_nothing_leaves_the_old_run(method, settings, error, encoder, tmp_path):
    task = make_task(n_train=16, n_validation=8)
    fit(encoder, task, LayerNorms(), out=tmp_path, epochs=1)
    before = contents(tmp_path)
    with dying_before(0) if error is Killed else pytest.raises(error):
        fit(encoder, task, method, out=tmp_path, epochs=9, batch_size=4, overwrite=True, **settings)
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_old_run_waits_for_an_overwrite_that_can_be_resumed(encoder, tmp_path):
    task = make_task(n_train=16, n_validation=8)
    settings = {"out": tmp_path, "epochs": 3, "batch_size": 8}
    fit(encoder, task, LayerNorms(), **settings)
    before = contents(tmp_path)
    for _ in range(2):  # the second one starts anew; what is set aside stays the finished run
        with dying_before(3):
            fit(encoder, task, Biases(), overwrite=True, **settings)
        assert {*contents(tmp_path)} == {"recipe.toml", CHECKPOINT, "history.jsonl", ".begun"}
        assert contents(tmp_path / ".replaced") == before
    with pytest.raises(InputError, match="give one of them"):
        fit(encoder, task, Biases(), overwrite=True, resume=True, **settings)
    resumed = fit(encoder, task, Biases(), resume=True, **settings)
    assert Delta.load(tmp_path).method == resumed.delta.method == "biases"
    assert not (tmp_path / ".replaced").exists()


def test_the_old_run_waits_for_an_interrupted_overwrite_too(encoder, tmp_path, monkeypatch):
    task, steps = make_task(n_train=16, n_validation=8), workbench.Workbench.train_step
    fit(encoder, task, LayerNorms(), out=tmp_path, epochs=1)
    before = contents(tmp_path)

    def interrupted(bench, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return steps(bench, step)

    monkeypatch.setattr(workbench.Workbench, "train_step", interrupted)
    assert fit(encoder, task, Biases(), out=tmp_path, epochs=9, overwrite=True).stopped == "interrupted"
    assert contents(tmp_path / ".replaced") == before
    monkeypatch.setattr(workbench.Workbench, "train_step", steps)
    with pytest.raises(InputError, match="not numbers any more|not a number"):
        fit(encoder, task, Biases(), out=tmp_path, epochs=9, lr=1e30, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["history.jsonl", "scores.json", "README.md"])
def test_a_full_disk_behind_the_delta_does_not_lose_it(name, encoder, tmp_path, monkeypatch):
    def full_disk(path, text):
        if path.name == name:
            raise InputError(f"cannot write {path}: No space left on device.")
        write_text(path, text)

    monkeypatch.setattr(record, "write_text", full_disk)
    monkeypatch.setattr(record, "write_json", lambda path, value: full_disk(path, json.dumps(value)))
    task = make_task(n_train=16, n_validation=8)
    with pytest.raises(InputError, match=r"No space left on device\. The delta is whole"):
        fit(encoder, task, LayerNorms(), out=tmp_path / "run", epochs=1)
    assert Delta.load(tmp_path / "run").method == "layer_norms"


def test_a_checkpoint_that_cannot_be_read_is_refused(encoder, tmp_path):
    (tmp_path / CHECKPOINT).mkdir()
    with pytest.raises(InputError, match=r"cannot read .*checkpoint\.safetensors"):
        fit(encoder, make_task(), LayerNorms(), out=tmp_path, epochs=1, resume=True)


def test_the_card_of_a_regression_in_small_units_shows_its_errors(encoder, tmp_path):
    task = make_task("regression", n_train=16, n_validation=8)
    small = {
        name: dataclasses.replace(rows, labels=[label * 1e-7 for label in rows.labels])
        for name, rows in task.splits.items()
    }
    fit(encoder, dataclasses.replace(task, splits=small), LayerNorms(), out=tmp_path, epochs=1)
    (line,) = [
        line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| mean_absolute_error")
    ]
    assert "e-0" in line.split("|")[3]


def test_a_run_that_fails_before_a_checkpoint_leaves_no_folder(encoder, tmp_path):
    with pytest.raises(InputError, match="not a number"):
        fit(encoder, make_task(), Full(), out=tmp_path / "new", epochs=9, lr=1e30)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_files_that_are_no_run_are_left_alone(how, encoder, tmp_path):
    for name in ("README.md", "recipe.toml"):
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds README\.md, recipe\.toml of something that is no run"):
        fit(encoder, make_task(), LayerNorms(), out=tmp_path, epochs=1, **how)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_is_known_by_its_mark(encoder, tmp_path):
    task = make_task(n_train=16, n_validation=8)
    (tmp_path / "recipe.toml").write_text("of the run that was killed")
    (tmp_path / ".begun").touch()
    fit(encoder, task, LayerNorms(), out=tmp_path, epochs=1)
    assert Delta.load(tmp_path).method == "layer_norms"
    assert not (tmp_path / ".begun").exists()


def test_ctrl_c_before_the_first_step_keeps_nothing(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench.Workbench, "validate", lambda bench: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit(encoder, make_task(), LayerNorms(), out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(encoder, tmp_path, monkeypatch, capfd):
    def full_disk(*arguments):
        raise InputError("cannot write it: No space left on device")

    monkeypatch.setattr(fit_module, "save_checkpoint", full_disk)
    run = fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), out=tmp_path, epochs=1, progress=True)
    assert "no checkpoint: cannot write it: No space left" in capfd.readouterr().err
    assert Delta.load(tmp_path).values.keys() == run.delta.values.keys()


def test_what_is_wrong_with_the_rows_is_said_before_a_method_measures_on_them(encoder, monkeypatch, capfd):
    seen: list[str] = []

    class Measuring(Movement):
        def score(self, *arguments):
            seen.append(capfd.readouterr().err)
            return super().score(*arguments)

    task = make_task("regression", n_train=16, n_validation=8)
    rows = {
        split: dataclasses.replace(rows, labels=[1e-3 * label for label in rows.labels])
        for split, rows in task.splits.items()
    }
    task = dataclasses.replace(task, splits=rows)
    fit(encoder, task, Top(Measuring(steps=2), share=0.1), epochs=1, progress=True)
    assert "regression, judged by" in seen[0]
    assert "chooses, by a trial of 2 steps" in seen[0]
    told = capfd.readouterr().err
    assert "judged by" not in told, "it is said once"
    assert "validation loss" in told
    assert "loss 0.000" not in told, "squares of thousandths have digits too"


def test_run_folder_holds_what_the_design_says(encoder, tmp_path):
    run = fit(encoder, make_task(), LayerNorms(), epochs=2, out=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"delta.safetensors", "delta.json", "recipe.toml", "history.jsonl", "scores.json", "README.md"}
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [0, 3, 6]
    assert history[0]["train_loss"] is None
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["scores"] == run.scores
    assert scores["elements"] == {"body": run.delta.count_body, "head": run.delta.count_head}
    assert scores["delta_bytes"] == (tmp_path / "delta.safetensors").stat().st_size
    assert set(run.as_json()) == {
        "run", "scores", "interval", "baseline", "start", "elements", "share", "seconds", "examples_per_second",
        "peak_memory_bytes", "delta_bytes",
        "steps", "best_step", "stopped",
    }  # fmt: skip


def test_an_existing_run_is_not_lost(encoder, tmp_path):
    task = make_task(n_train=16, n_validation=8)
    fit(encoder, task, LayerNorms(), epochs=1, out=tmp_path)
    before = (tmp_path / "delta.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds a finished run"):
        fit(encoder, task, LayerNorms(), epochs=1, seed=1, out=tmp_path)
    with pytest.raises(InputError, match="nothing to resume"):
        fit(encoder, task, LayerNorms(), epochs=1, out=tmp_path, resume=True)
    assert (tmp_path / "delta.safetensors").read_bytes() == before
    fit(encoder, task, LayerNorms(), epochs=1, seed=1, out=tmp_path, overwrite=True, head_start="random")
    assert (tmp_path / "delta.safetensors").read_bytes() != before


def test_scores_of_the_saved_delta_are_those_of_the_run(encoder, tmp_path):
    task = make_task()
    run = fit(encoder, task, LayerNorms(), epochs=3, lr=0.01, out=tmp_path)
    again = evaluate(tmp_path, task, "validation", encoder)
    assert again["rows"] == len(task.validation)
    assert again["scores"]["accuracy"] == pytest.approx(run.scores["accuracy"], abs=0.03)
    assert again["scores"]["loss"] == pytest.approx(run.scores["loss"], abs=0.02)
    answer = predict(tmp_path, ["the old cat sleeps"], encoder)[0]
    assert answer.label in task.classes
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_works_outside_the_main_thread(encoder):
    found = []
    task = make_task(n_train=16, n_validation=8)
    thread = threading.Thread(target=lambda: found.append(fit(encoder, task, LayerNorms(), epochs=1)))
    thread.start()
    thread.join()
    assert found[0].scores


def test_a_method_of_the_users_own(encoder):
    class OnlyQueries:
        def attach(self, model, batches=(), loss=None):
            assert loss is not None
            batch = next(iter(batches))
            assert len(batch) == 32
            return Biases("query").attach(model)

    run = fit(encoder, make_task(), OnlyQueries(), epochs=1)
    assert run.delta.count_body == 3 * 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"lr": -1.0}, "lr=-1.0 must be above 0"),
        ({"dropout": 1.0}, "below 1"),
        ({"epoch": 3}, "did you mean epochs"),
        ({"epochs": "three"}, "must be int"),
        ({"class_weights": "fair"}, "none or balanced"),
        ({"compute": "int8"}, "must be one of auto"),
    ],
)
def test_bad_settings_are_refused(change, message, encoder, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(encoder, make_task(), LayerNorms(), out=tmp_path / "run", **change)
    assert not (tmp_path / "run" / "delta.safetensors").exists()


@pytest.mark.parametrize("head", ["default", "linear"])
@pytest.mark.parametrize(("factor", "shift"), [(256.0, 512.0), (1 / 128, 0.0)])
def test_the_unit_of_a_regressions_labels_does_not_matter(factor, shift, head, encoder):
    """Prices in cents are learned as prices in euros are, and a grade from 0 to 1 as one from 0 to 100."""
    task = make_task("regression", n_train=64, n_validation=16)

    def other(rows):
        return dataclasses.replace(rows, labels=[factor * label + shift for label in rows.labels])

    scaled = dataclasses.replace(task, splits={name: other(rows) for name, rows in task.splits.items()})
    for method in (
        Full(),
        parse_method("fisher_top:share=0.2,head_steps=5"),
        parse_method("moved_top:share=0.2,steps=5"),
    ):
        settings = {
            "epochs": 3,
            "batch_size": 16,
            "lr": 3e-3,
            "dropout": 0.0,
            "weight_decay": 0.1,
            "compute": "float32",
        }
        plain, run = (fit(encoder, each, method, head=head, **settings) for each in (task, scaled))
        assert run.scores["pearson"] == pytest.approx(plain.scores["pearson"], abs=0.01)
        assert run.scores["mean_absolute_error"] == pytest.approx(
            factor * plain.scores["mean_absolute_error"], rel=1e-3
        )
        assert plain.history[-1]["scores"]["pearson"] != plain.baseline["pearson"]
        for name, value in run.delta.values.items():
            in_label_units = factor if name.endswith("classifier.weight") else 1
            if not name.endswith("classifier.bias"):
                torch.testing.assert_close(value / in_label_units, plain.delta.values[name], rtol=1e-3, atol=1e-5)


def test_a_regression_starts_at_the_mean_of_its_labels(encoder):
    task = make_task("regression", n_train=64, n_validation=16)
    task = dataclasses.replace(
        task, splits={n: dataclasses.replace(r, labels=[x + 50 for x in r.labels]) for n, r in task.splits.items()}
    )
    run = fit(encoder, task, Head(), epochs=1, lr=1e-9, head_lr=1e-9)
    assert run.baseline["mean_absolute_error"] < 2


def test_a_regression_whose_labels_are_all_equal_is_fitted(encoder):
    task = make_task("regression", n_train=16, n_validation=8)
    constant = {name: dataclasses.replace(rows, labels=[0.1] * len(rows)) for name, rows in task.splits.items()}
    task = dataclasses.replace(task, splits=constant, metric="mean_absolute_error")
    assert (task.centre, task.standard_deviation) == (pytest.approx(0.1), 1.0)
    assert fit(encoder, task, LayerNorms(), epochs=2).scores["mean_absolute_error"] < 1


def test_regression_refuses_class_options(encoder):
    with pytest.raises(InputError, match="regression"):
        fit(encoder, make_task("regression"), LayerNorms(), label_smoothing=0.1)


def test_a_diverging_run_says_so(encoder):
    with pytest.raises(InputError, match="not a number at step"):
        fit(encoder, make_task("regression"), Full(), lr=1e30, epochs=5)


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_answers_that_are_no_numbers_say_so(kind, encoder):
    with pytest.raises(InputError, match="not a number|not numbers"):
        fit(encoder, make_task(kind), Full(), lr=1e30, epochs=5, eval_steps=1)


def test_nothing_to_predict_and_a_bare_text(encoder):
    run = fit(encoder, make_task(n_train=16, n_validation=8), Head(), epochs=1)
    assert predict(run, [], encoder) == []
    with pytest.raises(InputError, match="a list of texts"):
        predict(run, "the cat", encoder)
    for odd in (1, None, ("the cat", None)):
        with pytest.raises(InputError, match="text 2 is .* no text"):
            predict(run, ["the cat", odd], encoder)


def test_a_part_of_lora_is_refused_before_training(encoder):
    with pytest.raises(InputError, match="only a part of what lora adds"):
        fit(encoder, make_task(n_train=16, n_validation=8), Random(count=40, within=Lora(rank=2)), epochs=1)


def test_all_of_lora_chosen_by_another_method_is_refused_too(encoder):
    """The delta would know of the matrices, and not of the LoRA they belong to."""
    with pytest.raises(InputError, match="take a smaller lora"):
        fit(encoder, make_task(n_train=16, n_validation=8), Random(share=1.0, within=Lora(rank=2)), epochs=1)
    with pytest.raises(InputError, match="alpha=nan is not a finite number"):
        Lora(alpha=float("nan"))


def test_words_without_embeddings_are_refused(encoder, tmp_path):
    """Added to the tokenizer, and the model not resized."""
    import shutil

    folder = shutil.copytree(encoder.folder, tmp_path / "more")
    more = load(folder)
    more.tokenizer.add_tokens(["unheard"])
    more.tokenizer.save_pretrained(folder)
    task = make_task(n_train=16, n_validation=8)
    run = fit(load(folder), task, Head(), epochs=1)
    with pytest.raises(InputError, match="has token 19, and the encoder knows 19 of them"):
        predict(run, ["the unheard cat"], load(folder))
    texts = (["the unheard cat", *task.train.texts[0][1:]],)
    odd = dataclasses.replace(task, splits=task.splits | {"train": dataclasses.replace(task.train, texts=texts)})
    for use in (lambda: fit(load(folder), odd, LayerNorms(), epochs=1), lambda: fisher(load(folder), odd)):
        with pytest.raises(InputError, match="resize_token_embeddings"):
            use()


def test_a_task_without_rows_or_labels_is_refused(encoder):
    task = make_task()
    with pytest.raises(InputError, match="no validation rows"):
        fit(encoder, dataclasses.replace(task, splits={"train": task.train}), LayerNorms())
    unlabelled = Rows(task.train.texts, [None] * len(task.train))
    with pytest.raises(InputError, match="without a label"):
        fit(encoder, dataclasses.replace(task, splits={**task.splits, "train": unlabelled}), LayerNorms())
