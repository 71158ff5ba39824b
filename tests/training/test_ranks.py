"""Two ranks against one: the same weights up to rounding, one set of files, one voice."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from small import make_encoder_folder, sentences
from torch import distributed as dist

from trimtab.changes.delta import Delta
from trimtab.training import ranks as module
from trimtab.training.ranks import Ranks, joined


@pytest.fixture
def places(tmp_path):
    """An encoder folder and a CSV task."""
    rows = [f"{text},{'yes' if 'red' in text else 'no'}" for text in sentences(60, 0)]
    (tmp_path / "task.csv").write_text("\n".join(["text,label", *rows]))
    return make_encoder_folder("bert", tmp_path / "encoder"), tmp_path / "task.csv"


def fit_with(n_ranks, places, out, *options):
    """`trimtab fit` under torchrun, or plainly for one rank."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}"] if n_ranks > 1 else []
    fixed = ["--epochs", "2", "--batch-size", "7", "--dropout", "0", "--compute", "float32", "--json"]
    command = [sys.executable, *launch, "-m", "trimtab", "fit", *map(str, places), "--out", str(out), *fixed, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


@pytest.mark.parametrize("method", ["layer_norms", "random:count=200", "last_layers:k=1"])
def test_two_ranks_reach_the_weights_of_one(method, places, tmp_path):
    for n_ranks in (1, 2):
        done = fit_with(n_ranks, places, tmp_path / str(n_ranks), "--method", method)
        assert done.returncode == 0, done.stderr
        answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(answers) == 1
        assert "scores" in json.loads(answers[0])
    one, two = (Delta.load(tmp_path / str(n)) for n in (1, 2))
    torch.testing.assert_close(two.values, one.values, rtol=1e-4, atol=1e-5)
    lines = [(tmp_path / str(n) / "history.jsonl").read_text().splitlines() for n in (1, 2)]
    histories = [[json.loads(line) for line in run] for run in lines]
    for entries in zip(*histories, strict=True):
        losses = [[entry["train_loss"] or 0.0, entry["validation_loss"]] for entry in entries]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_rank_may_have_nothing_to_do(places, tmp_path):
    """11 training rows in batches of 10, and one for validation."""
    encoder, table = places
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().splitlines()[:13]))
    for n_ranks in (1, 2):
        options = ("--method", "fisher_top:share=0.5", "--batch-size", "10", "--patience", "9")
        done = fit_with(n_ranks, (encoder, few), tmp_path / str(n_ranks), *options)
        assert done.returncode == 0, done.stderr
    one, two = (Delta.load(tmp_path / str(n)) for n in (1, 2))
    torch.testing.assert_close(two.values, one.values, rtol=1e-3, atol=1e-5)


def test_a_share_has_its_part_of_rows_and_tokens():
    sizes = np.random.default_rng(0).integers(1, 100, 50)
    rows = np.arange(5, 45)
    shares = [Ranks(rank, 3).share(rows, sizes) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == rows.tolist()
    tokens = [sizes[share].sum() for share in shares]
    assert max(tokens) - min(tokens) <= sizes[rows].max()


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.total(1.5, 2) == [1.5, 2]
        assert np.array_equal(ranks.share(np.array([3, 1]), np.ones(4)), [3, 1])
    assert not dist.is_initialized()
    assert module.is_first()
