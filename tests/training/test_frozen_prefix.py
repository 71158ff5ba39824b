"""The cached prefix against computing every layer at every visit, and its file against all that may happen to it."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from small import FAMILIES, make_encoder_folder, make_task

import trimtab
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Biases, Head, LastLayers, LayerNorms
from trimtab.encoders.encoder import load
from trimtab.engine import PreparedModel
from trimtab.results.recipe import Recipe, Settings
from trimtab.tasks.task import Rows
from trimtab.training import frozen_prefix as module
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

SETTINGS = {
    "epochs": 2, "batch_size": 8, "lr": 5e-3, "compute": "float32", "head": "default", "head_start": "random",
}  # fmt: skip


def cached(bench):
    """The bench with its prefixes."""
    for _ in bench.cache_prefixes():
        pass
    return bench


def counting(monkeypatch):
    """A list that grows by one with every forward pass through the frozen layers."""
    passes, states = [], PreparedModel.states

    def counted(prepared, inputs, depth):
        passes.append(len(inputs))
        return states(prepared, inputs, depth)

    monkeypatch.setattr(PreparedModel, "states", counted)
    return passes


def files(cache):
    return sorted((cache / "prefix").glob("*"))


PADDED = ("deberta-v2", "mpnet", "roformer")  # cannot be split, so nothing of theirs is cached


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PADDED])
@pytest.mark.parametrize("head", ["default", "linear"])
@pytest.mark.parametrize("method", [Head(), LastLayers(1), LastLayers(2)], ids=repr)
def test_a_cached_fit_is_the_uncached_one(method, head, family, encoder_of, cache):
    """With dropout, whose masks must fall on the same rows."""
    if family == "albert" and isinstance(method, LastLayers):
        pytest.skip("refuses last layers")
    task = make_task(n_train=24, n_validation=8)
    runs = [fit(encoder_of(family), task, method, cache_gb=gb, **SETTINGS | {"head": head}) for gb in (0.0, 1.0)]
    assert len(files(cache)) == 2
    torch.testing.assert_close(runs[0].delta.values, runs[1].delta.values, rtol=1e-4, atol=1e-5)
    assert runs[0].scores == pytest.approx(runs[1].scores, abs=1e-4)


OF_LAST = (LayerNorms(last=2), Biases(last=2), Lora(rank=2, dropout=0.1, last=2))


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("method", OF_LAST, ids=repr)
def test_methods_of_the_last_layers_run_the_first_ones_once(method, family, encoder_of, monkeypatch):
    if family == "modernbert" and isinstance(method, Biases):
        pytest.skip("has no biases")
    encoder, task = encoder_of(family), make_task(n_train=24, n_validation=8)
    uncached = fit(encoder, task, method, cache_gb=0.0, **SETTINGS)
    passes = counting(monkeypatch)
    run = fit(encoder, task, method, **SETTINGS)
    assert passes == [1, 24, 1, 8]  # one row to see the shape, then every row once
    torch.testing.assert_close(run.delta.values, uncached.delta.values, rtol=1e-4, atol=1e-5)
    assert run.scores == pytest.approx(uncached.scores, abs=1e-4)


@pytest.mark.parametrize("method", OF_LAST, ids=repr)
def test_methods_of_the_last_layers_leave_all_else_bit_for_bit(method, encoder):
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), method, Settings(**SETTINGS)))
    assert {split: prefix.depth for split, prefix in bench.prefixes.items()} == {"train": 1, "validation": 1}
    before = {name: parameter.detach().clone() for name, parameter in bench.model.named_parameters()}
    for number in range(4):
        bench.train_step(number)
    moved = {name for name, parameter in bench.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(bench.selection.elements)
    assert not any(bench.selection.parts[name].layer < 1 for name in moved)


@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize("family", PADDED)
def test_families_that_cannot_be_split_have_none(family, encoder_of):
    bench = set_up(encoder_of(family), make_task(n_train=24, n_validation=8), LastLayers(1), Settings(**SETTINGS))
    assert cached(bench).prefixes == {}


def test_states_of_another_depth_encoder_or_segment_are_others(encoder, cache, tmp_path):
    """All in one cache, one after the other, each as if it were alone; the shapes are the same throughout."""
    other = load(make_encoder_folder("bert", tmp_path / "other", seed=1))
    pairs = make_task(n_train=24, n_validation=8, pairs=True)
    # The same tokens in one segment: a literal [SEP] is one.
    single = dataclasses.replace(
        make_task(n_train=24, n_validation=8), splits={name: in_one_text(rows) for name, rows in pairs.splits.items()}
    )
    works = [
        (encoder, pairs, LastLayers(1)), (encoder, pairs, LastLayers(2)), (other, pairs, LastLayers(1)),
        (encoder, single, LastLayers(1)),
    ]  # fmt: skip
    for number, (each, task, method) in enumerate(works, 1):
        run = fit(each, task, method, **SETTINGS)
        assert len(files(cache)) == 2 * number
        alone = fit(each, task, method, cache_gb=0.0, **SETTINGS)
        torch.testing.assert_close(run.delta.values, alone.delta.values, rtol=1e-4, atol=1e-5)


def in_one_text(rows: Rows) -> Rows:
    return Rows(([" [SEP] ".join(texts) for texts in zip(*rows.texts, strict=True)],), rows.labels)


def test_the_head_alone_needs_one_pass_in_all(encoder, monkeypatch):
    passes = counting(monkeypatch)
    fit(encoder, make_task(n_train=24, n_validation=8), Head(), **SETTINGS | {"epochs": 6})
    assert passes == [1, 24, 1, 8]  # one row to see the shape, then every row once


def test_its_passes_hold_no_more_tokens_than_those_of_training(encoder, monkeypatch):
    passes = counting(monkeypatch)
    fit(encoder, make_task(n_train=24, n_validation=8), Head(), tokens_per_batch=1, **SETTINGS)
    assert passes == [1] * (1 + 24 + 1 + 8)


def test_the_next_run_on_the_same_rows_starts_from_the_file(encoder, cache, monkeypatch):
    task = make_task(n_train=24, n_validation=8)
    first = fit(encoder, task, LastLayers(1), **SETTINGS)
    assert len(files(cache)) == 2
    passes = counting(monkeypatch)
    again = fit(encoder, task, LastLayers(1), **SETTINGS)
    assert passes == [1, 1]
    assert all(torch.equal(again.delta.values[name], value) for name, value in first.delta.values.items())


def test_what_an_earlier_fit_has_spent_on_the_states_is_told(encoder, monkeypatch):
    task, clock = make_task(n_train=24, n_validation=8), iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: 10.0 * next(clock))
    first, again = (fit(encoder, task, LastLayers(1), **SETTINGS) for _ in range(2))
    assert first.details["cached_seconds"] == 0
    assert again.details["cached_seconds"] == 20, "ten seconds for each split, by that clock"
    assert fit(encoder, task, LastLayers(1), cache_gb=0.0, **SETTINGS).details["cached_seconds"] == 0


@pytest.mark.parametrize(
    "change",
    [{"max_length": 5}, {"compute": "bfloat16"}, {"head": "linear"}, {"train_limit": 20}, {"tokens_per_batch": 9}],
)
def test_what_the_states_depend_on_names_the_file(change, encoder, cache):
    task = make_task(n_train=24, n_validation=8)
    fit(encoder, task, Head(), **SETTINGS)
    before = len(files(cache))
    fit(encoder, task, Head(), **SETTINGS | change)
    assert len(files(cache)) > before


def test_the_seed_and_the_rates_do_not(encoder, cache):
    task = make_task(n_train=24, n_validation=8)
    fit(encoder, task, Head(), **SETTINGS)
    fit(encoder, task, Head(), **SETTINGS | {"seed": 1, "lr": 1e-4, "batch_size": 4})
    assert len(files(cache)) == 2


def test_a_file_of_the_wrong_size_is_made_again(encoder, cache):
    task = make_task(n_train=24, n_validation=8)
    first = fit(encoder, task, Head(), **SETTINGS)
    for path in files(cache):
        path.write_bytes(path.read_bytes()[:-4])
    again = fit(encoder, task, Head(), **SETTINGS)
    assert again.scores == first.scores


def test_no_budget_means_no_cache_even_where_there_is_one(encoder, cache):
    task = make_task(n_train=24, n_validation=8)
    fit(encoder, task, Head(), **SETTINGS)
    bench = cached(set_up(encoder, task, Head(), Settings(**SETTINGS | {"cache_gb": 0.0})))
    assert bench.prefixes == {}


def test_splits_that_do_not_fit_together_do_not_evict_each_other(encoder, cache):
    task = make_task(n_train=24, n_validation=20)
    for _ in range(2):  # 24 rows x 32 values x 4 bytes = 3,072; both take 5,632
        bench = cached(set_up(encoder, task, Head(), Settings(**SETTINGS | {"cache_gb": 4_000 / 1e9})))
        assert bench.prefixes.keys() == {"train"}
        assert len(files(cache)) == 1


def test_a_file_that_a_neighbour_deletes_costs_nothing(encoder, cache, monkeypatch):
    task, replace = make_task(n_train=24, n_validation=8), Path.replace

    def robbed(path, target):
        path.unlink()
        return replace(path, target)

    monkeypatch.setattr(module.Path, "replace", robbed)
    bench = cached(set_up(encoder, task, Head(), Settings(**SETTINGS)))
    assert bench.prefixes.keys() == {"train", "validation"}
    bench.train_step(0)


def test_another_configuration_of_the_same_weights_has_its_own_states(encoder, cache, tmp_path):
    folder = shutil.copytree(encoder.folder, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text()) | {"layer_norm_eps": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    task = make_task(n_train=24, n_validation=8)
    before = fit(encoder, task, Head(), **SETTINGS)
    changed = fit(load(folder), task, Head(), **SETTINGS)
    assert len(files(cache)) == 4
    assert not torch.allclose(before.logits, changed.logits, atol=1e-3)


def test_the_least_recently_used_make_room(encoder, cache):
    other, foreign = cache / "prefix" / ("0" * 40), cache / "photos" / "a.jpg"
    for path in (other, foreign, cache / "prefix" / "notes.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(30_000))
        os.utime(path, (1, 1))
    task = make_task(n_train=24, n_validation=8)
    fit(encoder, task, Head(), **SETTINGS | {"cache_gb": 32_000 / 1e9})  # (24 + 8) rows x 32 values x 4 bytes = 4,096
    assert not other.exists()
    assert len(files(cache)) == 3  # the note, which is not ours, and two of ours
    assert foreign.exists()


def test_what_exceeds_the_budget_is_computed_at_every_visit(encoder, cache):
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), LastLayers(1), Settings(cache_gb=1e-6)))
    assert bench.prefixes == {}
    assert files(cache) == []
    bench.train_step(0)


def test_without_a_place_for_files_it_is_kept_in_memory(encoder, cache, monkeypatch):
    (cache / "prefix").write_text("in the way")
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), LastLayers(1), Settings(**SETTINGS)))
    assert bench.prefixes.keys() == {"train", "validation"}
    bench.train_step(0)


def test_without_a_place_for_files_nor_memory_it_is_computed_at_every_visit(encoder, cache, monkeypatch):
    (cache / "prefix").write_text("in the way")
    monkeypatch.setattr(module, "free_bytes", lambda device: 1000)
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), LastLayers(1), Settings(**SETTINGS)))
    assert bench.prefixes == {}
    bench.train_step(0)


@pytest.mark.parametrize("free", [10**12, 1000])
def test_a_system_that_cannot_reserve_a_file(free, encoder, cache, monkeypatch):
    """As macOS: the file is made, unless the disk is seen to be full."""
    task, settings = make_task(n_train=24, n_validation=8), Settings(**SETTINGS)
    whole = cached(set_up(encoder, task, LastLayers(1), settings)).prefixes
    shutil.rmtree(cache / "prefix")
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    found = cached(set_up(encoder, task, LastLayers(1), settings)).prefixes
    assert len(files(cache)) == (2 if free > 1000 else 0)
    assert {name: prefix.states.tolist() for name, prefix in found.items()} == {
        name: prefix.states.tolist() for name, prefix in whole.items()
    }


def test_a_single_epoch_visits_the_training_rows_once(encoder):
    settings = Settings(**SETTINGS | {"epochs": 1})
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), LastLayers(1), settings))
    assert bench.prefixes.keys() == {"validation"}


@pytest.mark.parametrize("method", [LayerNorms(), Biases()], ids=repr)
def test_methods_that_train_every_layer_have_none(method, encoder, cache):
    bench = cached(set_up(encoder, make_task(n_train=24, n_validation=8), method, Settings(**SETTINGS)))
    assert bench.prefixes == {}


def test_frozen_first_layers_run_without_dropout(encoder):
    bench = set_up(encoder, make_task(n_train=24, n_validation=8), LastLayers(1), Settings(dropout=0.5))
    bench.train_step(0)
    layers = bench.model.bert.encoder.layer
    assert [layer.attention.self.dropout.training for layer in layers] == [False, False, True]
    assert not bench.model.bert.embeddings.dropout.training
    assert bench.model.dropout.training


def test_ctrl_c_while_it_is_computed_stops(encoder, tmp_path, monkeypatch, cache):
    task = make_task(n_train=24, n_validation=8)
    states = PreparedModel.states

    def interrupted(prepared, inputs, depth):
        if depth == 3 and len(inputs) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return states(prepared, inputs, depth)

    monkeypatch.setattr(PreparedModel, "states", interrupted)
    with pytest.raises(KeyboardInterrupt):  # nothing is trained yet
        fit(encoder, task, Head(), out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()
    assert not [path for path in files(cache) if path.name.endswith(".part")]


def test_a_saved_run_of_lora_in_the_last_layers_predicts_merges_and_is_fitted_again(encoder, tmp_path):
    task, texts = make_task(n_train=48, n_validation=16), make_task(n_train=48, n_validation=16).validation.texts[0]
    run = fit(encoder, task, Lora(rank=2, last=2), out=tmp_path / "run", **SETTINGS)
    assert trimtab.predict(tmp_path / "run", texts, encoder) == trimtab.predict(run, texts, encoder)
    merged = trimtab.merge(encoder, tmp_path / "run").state_dict()
    own = encoder.with_head(task).state_dict()
    changed = {name for name in own if name in merged and not torch.equal(merged[name], own[name])}
    first = "bert.encoder.layer.0."
    assert any(name.startswith(first) for name in merged)
    assert not any(name.startswith(("bert.embeddings.", first)) for name in changed)
    assert {"bert.encoder.layer.1.attention.self.query.weight"} <= changed
    again = fit(encoder, task, Recipe.load(tmp_path / "run" / "recipe.toml").method, **SETTINGS)
    assert all(torch.equal(again.delta.values[name], value) for name, value in run.delta.values.items())
