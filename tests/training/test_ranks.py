"""Two ranks against one: the same weights up to rounding, one set of files, one voice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import make_encoder_folder, sentences
from torch import distributed as dist

from trimtab.changes.delta import Delta
from trimtab.commands.output import is_first
from trimtab.training.ranks import Ranks, joined


@pytest.fixture
def places(tmp_path):
    """An encoder folder and a CSV task."""
    rows = [f"{text},{'yes' if 'red' in text else 'no'}" for text in sentences(60, 0)]
    (tmp_path / "task.csv").write_text("\n".join(["text,label", *rows]))
    return make_encoder_folder("bert", tmp_path / "encoder"), tmp_path / "task.csv"


DYING = """
import os, signal
from trimtab import cli
from trimtab.training import fit as module

save = module.save_checkpoint

def save_and_die(*arguments):
    save(*arguments)
    if "KILLED_AFTER" in os.environ and arguments[2].step >= int(os.environ["KILLED_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)

module.save_checkpoint = save_and_die
cli.main()
"""


# Losses are read one step late, as on a GPU, and only the first rank's clock says that a checkpoint is due.
LATE = """
import os
from trimtab import cli
from trimtab.training import steps as module
from trimtab.training.workbench import Workbench

losses = Workbench.losses
Workbench.losses = lambda bench, but=None: losses(bench, 0 if but is None else 1)
module.CHECKPOINT_SECONDS = 0.0 if os.environ["RANK"] == "0" else 1e9
cli.main()
"""


# A loop of one's own on every rank, of which the second one alone asks for a stop.
OWN_LOOP = """
import os, sys
import trimtab

*places, out = sys.argv[1:]
events = trimtab.steps(*places, "layer_norms", out=out, epochs=3, batch_size=7, compute="float32", dropout=0.0)
seen = []
for event in events:
    if isinstance(event, trimtab.Step | trimtab.Validation):
        seen.append((type(event).__name__, event.step))
    if os.environ["RANK"] == "1" and seen[-1:] == [("Step", 3)]:
        events.stop("by the second")
print("SEEN", repr((seen, events.run.stopped, events.run.scores["loss"])))
"""


def launched(n_ranks, *arguments, **environment):
    """`trimtab` with these arguments under torchrun, or plainly for one rank."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}"] if n_ranks > 1 else []
    program = ["-m", "trimtab"]
    if "SCRIPT" in environment:
        source = OWN_LOOP if "OWN_LOOP" in environment else DYING if "KILLED_AFTER" in environment else LATE
        Path(environment["SCRIPT"]).write_text(source)
        program = [environment["SCRIPT"]]
    command = [sys.executable, *launch, *program, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


def fit_with(n_ranks, places, out, *options, **environment):
    """`trimtab fit` of these places with fixed settings, see `launched`."""
    fixed = ["--epochs", "2", "--batch-size", "7", "--dropout", "0", "--compute", "float32", "--json"]
    script = {"SCRIPT": f"{out}-script.py"} if environment else {}
    return launched(n_ranks, "fit", *places, "--out", out, *fixed, *options, **environment, **script)


@pytest.mark.parametrize(
    "method",
    ["layer_norms", *(pytest.param(each, marks=pytest.mark.slow) for each in ("random:count=200", "last_layers:k=1"))],
)
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["head", "last_layers:k=1"])
def test_two_ranks_read_one_prefix_cache_and_go_on_where_they_were_killed(method, places, tmp_path, monkeypatch):
    """Killed for real after the first checkpoint; the resumed run ends as the uninterrupted one."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    options = ("--method", method, "--eval-steps", "2")
    whole = fit_with(2, places, tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr
    # Of training and validation rows, made once; beside last layers also what the head's probe was given.
    assert len(list((tmp_path / "cache" / "prefix").iterdir())) == (2 if method == "head" else 3)
    killed = fit_with(2, places, tmp_path / "killed", *options, KILLED_AFTER="1")
    assert killed.returncode != 0
    assert (tmp_path / "killed" / "checkpoint.safetensors").is_file()
    resumed = fit_with(2, places, tmp_path / "killed", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    values = [Delta.load(tmp_path / name).values for name in ("whole", "killed")]
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])


@pytest.mark.slow
def test_ranks_whose_clocks_differ_write_checkpoints_together(places, tmp_path):
    """The first rank writes one at every step; the losses it reads for that are sums over both."""
    runs = {"plain": {}, "late": {"LATE": "1"}}
    for name, environment in runs.items():
        done = fit_with(2, places, tmp_path / name, **environment)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "scores.json").read_text())["stopped"] is None
    plain, late = (Delta.load(tmp_path / name).values for name in runs)
    assert all(torch.equal(plain[name], late[name]) for name in plain)
    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in runs]
    losses = [[json.loads(line)["train_loss"] for line in history] for history in histories]
    assert losses[0][1:] == pytest.approx(losses[1][1:])


def test_a_stop_that_one_rank_asks_for_stops_both_at_one_step(places, tmp_path):
    done = launched(2, *places, tmp_path / "run", SCRIPT=str(tmp_path / "own.py"), OWN_LOOP="1")
    assert done.returncode == 0, done.stderr
    first, second = [line for line in done.stdout.splitlines() if line.startswith("SEEN")]
    assert first == second
    assert "('Step', 3), ('Validation', 3)], 'by the second'" in first
    assert json.loads((tmp_path / "run/scores.json").read_text())["stopped"] == "by the second"


def test_a_study_under_torchrun_is_refused(places, tmp_path):
    done = launched(2, "compare", *places, "--method", "head", "--method", "biases", "--out", tmp_path / "study")
    assert done.returncode != 0
    assert "start it without torchrun" in done.stderr


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
    assert is_first()
