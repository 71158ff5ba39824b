"""A fit as a stream of events: what a loop of one's own sees, and how it stops it."""

import dataclasses
import json

import pytest
import torch
from small import make_task

import trimtab
from trimtab.changes.delta import Delta
from trimtab.changes.methods import Full, Head, LayerNorms
from trimtab.errors import InputError
from trimtab.results.checkpoint import CHECKPOINT
from trimtab.training import steps as steps_module
from trimtab.training.fit import fit
from trimtab.training.steps import Begun, Cached, Checkpoint, Finished, Planned, Step, Validation, Warned

SETTINGS = {"epochs": 3, "batch_size": 8, "lr": 5e-3, "compute": "float32"}
WRECKING = {"epochs": 50, "lr": 0.1, "batch_size": 16, "compute": "float32"}


@pytest.fixture
def task():
    return make_task(n_train=48, n_validation=24)


def stopped_at(events, wanted, why="enough"):
    """The run of these events, stopped at the first one that `wanted` says yes to; and those up to the end."""
    seen = []
    for event in events:
        seen.append(event)
        if wanted(event):
            events.stop(why)
            wanted = (
                bool  # it is asked for once: no event is false, so again at every later one, of which the first counts
            )
    return events.run, seen


def same(run, other):
    return run.delta.sha256 == other.delta.sha256


def without_times(history):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def test_the_events_of_a_fit_in_their_order(encoder, task, tmp_path):
    events = trimtab.steps(encoder, task, LayerNorms(), out=tmp_path / "run", **SETTINGS)
    seen = list(events)
    epoch = [Step] * 6 + [Validation, Checkpoint]
    assert [type(event) for event in seen if not isinstance(event, Cached)] == [
        Planned, Begun, Validation, *epoch * 3, Finished
    ]  # fmt: skip
    assert seen[-1].run is events.run
    assert (seen[1].total_steps, seen[1].step, seen[1].history) == (18, 0, ())
    assert [event.step for event in seen if isinstance(event, Step)] == list(range(1, 19))
    assert seen[-2] == Checkpoint(18)


def test_they_come_to_the_bits_of_fit_and_tell_its_history(encoder, task):
    whole = fit(encoder, task, Full(), **SETTINGS)
    *_, last = seen = list(trimtab.steps(encoder, task, Full(), **SETTINGS))
    assert same(last.run, whole)
    validations = [event for event in seen if isinstance(event, Validation)]
    assert without_times(event.entry() for event in validations) == without_times(whole.history)
    best = [event for event in validations if event.is_best][-1]
    assert best.step == whole.details["best_step"]
    assert torch.equal(best.logits, whole.logits)
    assert [event.since_best == 0 for event in validations] == [event.is_best for event in validations]
    losses = [event.loss for event in seen if isinstance(event, Step) and event.step in (6, 12, 18)]
    assert losses == [event.train_loss for event in validations[1:]], "means since the last validation"


def test_what_first_layers_make_of_the_rows_is_told(encoder, task):
    cached = [
        event for event in trimtab.steps(encoder, task, "last_layers:k=1", **SETTINGS) if isinstance(event, Cached)
    ]
    assert cached[-1] == Cached(72, 72)


def test_an_early_stop_of_ones_own_is_that_of_patience(encoder):
    task = dataclasses.replace(make_task(n_train=32, n_validation=16), metric="loss")
    patient = fit(encoder, task, Full(), patience=2, **WRECKING)
    own, seen = stopped_at(
        trimtab.steps(encoder, task, Full(), **WRECKING),
        lambda event: isinstance(event, Validation) and event.since_best == 2,
        "no better",
    )
    assert same(own, patient)
    assert (patient.stopped, own.stopped) == ("early", "no better")
    assert without_times(own.history) == without_times(patient.history)
    assert isinstance(seen[-2], Validation), "no step behind it"
    assert any("Stopped (no better) after step" in note for note in own.notes)
    given, _ = stopped_at(trimtab.steps(encoder, task, Full(), patience=2, **WRECKING), lambda event: False)
    assert (same(given, patient), given.stopped) == (True, "early")


def test_a_stop_between_validations_judges_the_last_steps(encoder, task, tmp_path):
    def at_eight(event):
        return isinstance(event, Step) and event.step == 8

    run, seen = stopped_at(trimtab.steps(encoder, task, LayerNorms(), out=tmp_path / "run", **SETTINGS), at_eight)
    assert [entry["step"] for entry in run.history] == [0, 6, 8]
    assert (run.stopped, run.details["steps"]) == ("enough", 8)
    assert max(event.step for event in seen if isinstance(event, Step)) == 8
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["stopped"] == "enough"
    assert Delta.load(tmp_path / "run").sha256 == run.delta.sha256
    assert not (tmp_path / "run" / CHECKPOINT).exists(), "it is finished"
    # To the bits of a run whose best step was among those: the head of a schedule that is the same.
    best = run.details["best_step"]
    kept = [event for event in seen if isinstance(event, Validation) and event.step == best]
    assert torch.equal(kept[0].logits, run.logits)


def test_stopped_as_by_ctrl_c_it_can_be_resumed(encoder, task, tmp_path):
    whole = fit(encoder, task, LayerNorms(), **SETTINGS)
    out = tmp_path / "run"
    run, _ = stopped_at(
        trimtab.steps(encoder, task, LayerNorms(), out=out, **SETTINGS),
        lambda event: isinstance(event, Step) and event.step == 8,
        "interrupted",
    )
    assert (run.stopped, (out / CHECKPOINT).exists()) == ("interrupted", True)
    resumed = trimtab.steps(encoder, task, LayerNorms(), out=out, resume=True, **SETTINGS)
    seen = list(resumed)
    assert same(resumed.run, whole)
    begun = seen[1]
    assert (begun.step, begun.resume) == (8, True)
    # A tracker that is new to it can have all of its validations.
    later = [event.entry() for event in seen if isinstance(event, Validation)]
    assert without_times([*begun.history, *later]) == without_times(whole.history)


def test_a_stop_before_the_first_step_keeps_the_start(encoder, task):
    for kind in (Planned, Begun, Validation):
        run, _ = stopped_at(
            trimtab.steps(encoder, task, LayerNorms(), **SETTINGS), lambda event, kind=kind: isinstance(event, kind)
        )
        assert (run.stopped, run.details["steps"], run.scores) == ("enough", 0, run.baseline)


def test_a_stop_behind_the_last_step_stops_nothing(encoder, task):
    run, _ = stopped_at(
        trimtab.steps(encoder, task, LayerNorms(), **SETTINGS),
        lambda event: isinstance(event, Validation) and event.step == 18,
    )
    assert run.stopped is None


def test_a_head_that_is_solved_for_has_one_step(encoder, task):
    seen = list(trimtab.steps(encoder, task, Head(), **SETTINGS))
    assert [event.step for event in seen if isinstance(event, Step | Validation)] == [0, 1, 1]


def test_who_leaves_the_loop_has_no_run_and_may_resume(encoder, task, tmp_path):
    with trimtab.steps(encoder, task, LayerNorms(), out=tmp_path / "run", **SETTINGS) as events:
        for event in events:
            if isinstance(event, Step) and event.step == 8:
                break
    with pytest.raises(InputError, match="no run yet: read its events to the end"):
        _ = events.run
    assert list(events) == []
    # As a killed process leaves it: with the checkpoint of the validation before.
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "recipe.toml", "history.jsonl", CHECKPOINT, ".begun"
    }  # fmt: skip
    resumed = fit(encoder, task, LayerNorms(), out=tmp_path / "run", resume=True, **SETTINGS)
    assert same(resumed, fit(encoder, task, LayerNorms(), **SETTINGS))


def test_who_leaves_it_before_a_checkpoint_leaves_the_older_run(encoder, task, tmp_path):
    older = fit(encoder, task, LayerNorms(), out=tmp_path / "run", **SETTINGS)
    for folder in ("run", "new"):
        with trimtab.steps(encoder, task, Full(), out=tmp_path / folder, overwrite=True, **SETTINGS) as events:
            for event in events:
                if isinstance(event, Step):
                    break
    assert Delta.load(tmp_path / "run").sha256 == older.delta.sha256
    assert not (tmp_path / "run/.begun").exists()
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_what_a_loop_draws_is_its_own(encoder, task):
    torch.manual_seed(5)
    expected = [torch.rand(1).item() for _ in range(5)]
    torch.manual_seed(5)
    events = trimtab.steps(encoder, task, LayerNorms(), **SETTINGS)
    assert [torch.rand(1).item() for _ in zip(range(5), events, strict=False)] == expected
    assert len(list(events)) > 5
    assert same(events.run, fit(encoder, task, LayerNorms(), **SETTINGS)), "and changes nothing in the fit"


def test_what_is_wrong_is_told_at_once_or_with_the_first_events(encoder, task, tmp_path):
    with pytest.raises(InputError, match="did you mean epochs"):
        trimtab.steps(encoder, task, epoch=3)
    fit(encoder, task, LayerNorms(), out=tmp_path, **SETTINGS)
    events = trimtab.steps(encoder, task, out=tmp_path, **SETTINGS)
    with pytest.raises(InputError, match="holds a finished run"):
        next(events)


def test_a_checkpoint_that_cannot_be_written_is_a_warning(encoder, task, tmp_path, monkeypatch):
    monkeypatch.setattr(steps_module, "CHECKPOINT_SECONDS", 0.0)
    events = trimtab.steps(encoder, task, LayerNorms(), out=tmp_path / "run", **SETTINGS)
    seen = []
    for event in events:
        seen.append(event)
        if isinstance(event, Step) and event.step == 1:  # what it is to be written to is in the way
            (tmp_path / "run" / CHECKPOINT).mkdir()
        if isinstance(event, Warned):
            (tmp_path / "run" / CHECKPOINT).rmdir()
            break
    assert seen[-1].text.startswith("no checkpoint: ")
    assert [type(event) for event in seen[-2:]] == [Step, Warned]
