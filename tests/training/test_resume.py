"""What a checkpoint belongs to, and what of it may be changed before going on."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from dying import dying_before
from safetensors import safe_open
from safetensors.torch import save_file
from small import make_task

from trimtab.changes.methods import Biases, LayerNorms
from trimtab.changes.top import FisherTop
from trimtab.encoders.encoder import load
from trimtab.errors import InputError
from trimtab.results.checkpoint import CHECKPOINT
from trimtab.training.fit import fit

SETTINGS = {"epochs": 2, "batch_size": 8, "lr": 5e-3, "compute": "float32"}


@pytest.fixture
def killed(encoder, tmp_path):
    """A folder with the checkpoint of a run that was killed after its first epoch."""
    with dying_before(3):
        fit(encoder, task(), LayerNorms(), out=tmp_path / "run", **SETTINGS)
    return tmp_path / "run"


def task():
    return make_task(n_train=20, n_validation=8)


def with_row(split, text=None, label=None):
    """The task with another text or label in the first row of a split."""
    whole = task()
    rows = whole.splits[split]
    texts = ([text, *rows.texts[0][1:]],) if text else rows.texts
    labels = [label, *rows.labels[1:]] if label is not None else rows.labels
    return dataclasses.replace(
        whole, splits=dict(whole.splits) | {split: dataclasses.replace(rows, texts=texts, labels=labels)}
    )


@pytest.mark.parametrize(
    ("other", "method", "message"),
    [
        (with_row("train", text="a very old fish"), LayerNorms(), "other training or validation rows"),
        (with_row("train", label=(task().train.labels[0] + 1) % 3), LayerNorms(), "other training or validation rows"),
        (with_row("validation", text="a very old fish"), LayerNorms(), "other training or validation rows"),
        (
            dataclasses.replace(task(), classes=("dog", "cat", "fish")),
            LayerNorms(),
            r"classes=\['cat', 'dog', 'fish'\]",
        ),
        (task(), Biases(), r"method='layer_norms' \(now 'biases'\)"),
    ],
    ids=["a text", "a label", "a validation text", "the order of classes", "the method"],
)
def test_a_checkpoint_of_another_run_is_refused(other, method, message, killed, encoder):
    with pytest.raises(InputError, match=message):
        fit(encoder, other, method, out=killed, resume=True, **SETTINGS)
    assert (killed / CHECKPOINT).is_file()


@pytest.mark.parametrize(("change", "message"), [("weights", "other weights"), ("config", "another config.json")])
def test_so_is_one_of_another_encoder(change, message, killed, encoder, tmp_path):
    folder = shutil.copytree(encoder.folder, tmp_path / "other")
    if change == "weights":
        with safe_open(folder / "model.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        save_file(
            {name: tensor * 1.01 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
        )
    else:
        config = json.loads((folder / "config.json").read_text()) | {"layer_norm_eps": 1e-6}
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        fit(load(folder), task(), LayerNorms(), out=killed, resume=True, **SETTINGS)


def test_fewer_tokens_at_a_time_are_taken_and_said(killed, encoder, capfd):
    """Whoever asks for them may have run out of memory."""
    resumed = fit(
        encoder, task(), LayerNorms(), out=killed, resume=True, tokens_per_batch=30, progress=True, **SETTINGS
    )
    assert resumed.details["settings"]["tokens_per_batch"] == 30
    told = " ".join(capfd.readouterr().err.split())
    assert re.search(r"goes on with 30 tokens at a time, where it began with \d+: rounding", told)


def test_a_checkpoint_of_another_version_says_so(killed, encoder):
    path = killed / CHECKPOINT
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    progress = json.loads(header["progress"]) | {"mood": "good"}
    save_file(tensors, path, header | {"progress": json.dumps(progress)})
    with pytest.raises(InputError, match=r"^\S+ is of another version of trimtab: resume with that"):
        fit(encoder, task(), LayerNorms(), out=killed, resume=True, **SETTINGS)


def test_a_users_own_method_is_resumed(encoder, tmp_path):
    class Mine:
        def attach(self, model, batches=(), loss=None):
            return LayerNorms().attach(model)

    whole = fit(encoder, task(), Mine(), **SETTINGS)
    with dying_before(4):
        fit(encoder, task(), Mine(), out=tmp_path / "run", **SETTINGS)
    resumed = fit(encoder, task(), Mine(), out=tmp_path / "run", resume=True, **SETTINGS)
    assert all(torch.equal(resumed.delta.values[name], value) for name, value in whole.delta.values.items())


def test_a_checkpoint_of_a_measuring_method_does_not_fit_another_model(killed, encoder_of):
    with pytest.raises(InputError, match="belongs to a run of another encoder or method"):
        fit(encoder_of("roberta"), task(), FisherTop(count=20), out=killed, resume=True, **SETTINGS)
