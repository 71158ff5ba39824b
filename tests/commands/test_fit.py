"""trimtab fit as a user meets it: recipes, flags, interruptions, and what a table may hold."""

import json
import os
import signal
import subprocess
import sys

from small import write_csv

from commands.animals import FIT, animal_rows
from trimtab.training.fit_recipe import folder_name
from trimtab.training.workbench import Workbench


def test_fit_writes_a_page(run_folder):
    page = (run_folder / "report.html").read_text()
    assert "animals" in page
    assert "http" not in page.split("<body")[0].lower().replace("http-equiv", "")


def test_ctrl_c_ends_with_130_and_goes_on_with_resume(command, encoder, table, tmp_path, monkeypatch):
    whole_step = Workbench.train_step

    def interrupted(bench, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole_step(bench, step)

    arguments = [
        "fit", encoder.folder, table, "--text", "What they said", "--label", "Verdict", "--method", "layer_norms",
        "--epochs", "2", "--batch-size", "16", "--out", tmp_path / "run", "--json",
    ]  # fmt: skip
    monkeypatch.setattr(Workbench, "train_step", interrupted)
    code, out, err = command(*arguments)
    stopped = json.loads(out.splitlines()[-1])
    assert (code, stopped["stopped"], stopped["steps"]) == (130, "interrupted", 4)
    assert "the same command with --resume" in err
    monkeypatch.setattr(Workbench, "train_step", whole_step)
    code, out, err = command(*arguments, "--resume")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["stopped"] is None


def test_a_share_of_validation_rows_takes_the_place_of_a_file(command, encoder, table, tmp_path):
    (tmp_path / "r.toml").write_text(
        f'encoder = "{encoder.folder}"\ntask = "{table.name}"\nvalidation = "{table.name}"\ntext = "What they said"\n'
        'label = "Verdict"\nmethod = "head"\n[settings]\nepochs = 1\n'
    )
    for options, rows in (((), 120), (("--validation", "0.25"), 30)):
        code, _, err = command("fit", tmp_path / "r.toml", *options, "--out", tmp_path / f"run{rows}")
        assert code == 0, err
        assert json.loads((tmp_path / f"run{rows}" / "scores.json").read_text())["rows"]["validation"]["rows"] == rows


def test_a_recipe_of_a_run_goes_on_in_its_folder(command, run_folder):
    code, _, err = command("fit", run_folder / "recipe.toml", "--resume")
    assert code == 2
    assert f"the run in {run_folder} is finished" in err


def test_a_recipe_written_by_hand_is_run_and_resumed_elsewhere(command, run_folder, tmp_path, monkeypatch):
    """Its own folder may be anybody's: the run goes where it went before."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text((run_folder / "recipe.toml").read_text())
    monkeypatch.chdir(tmp_path)
    code, _, err = command("fit", recipe)
    assert code == 0, err
    (made,) = (tmp_path / "runs").iterdir()
    code, _, err = command("fit", recipe, "--resume")
    assert (code, f"the run in {made.relative_to(tmp_path)} is finished" in err) == (2, True), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "runs"]


def test_the_folder_of_a_long_method_has_a_short_name():
    name = folder_name("task", "+".join(["layer_norms", *(f"biases:which=query+{i}" for i in range(50))]))
    assert len(name) < 200
    assert name != folder_name("task", "+".join(["layer_norms", *(f"biases:which=query+{i}" for i in range(51))]))
    assert folder_name("reviews", "moved_top:share=0.1") == "reviews-moved_top-share-0.1"


def test_a_run_that_is_refused_leaves_no_folder(command, encoder, table, tmp_path):
    columns = ("--text", "What they said", "--label", "Verdict")
    code, _, err = command(
        "fit", encoder.folder, table, *columns, "--method", "last_layers:k=9", "--out", tmp_path / "run"
    )
    assert code == 2, err
    assert not (tmp_path / "run").exists()


def test_recipe_file_with_flags_on_top(command, encoder, table, tmp_path):
    recipe = tmp_path / "animals.toml"
    recipe.write_text(
        f'encoder = "{encoder.folder}"\ntask = "{table}"\ntext = "What they said"\nlabel = "Verdict"\n'
        'method = "biases"\n[settings]\nepochs = 5\nlr = 1e-3\n'
    )
    code, out, err = command("fit", recipe, "--epochs", 1, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    written = (tmp_path / "run" / "recipe.toml").read_text()
    assert "epochs = 1" in written
    assert "lr = 0.001" in written
    code, again, _ = command("fit", tmp_path / "run" / "recipe.toml", "--out", tmp_path / "again", "--json")
    assert code == 0
    assert json.loads(again.splitlines()[-1])["scores"] == json.loads(out.splitlines()[-1])["scores"]


def test_tokens_per_batch_is_a_number_or_auto(command, run_folder, encoder_of, table, tmp_path):
    fixed = ["--text", "What they said", "--label", "Verdict", "--epochs", "1"]
    folder = encoder_of("bert").folder
    for text, expected in (("auto", 0), ("100", 100)):
        out = tmp_path / text
        code, _, err = command("fit", folder, table, *fixed, "--tokens-per-batch", text, "--out", out)
        assert code == 0, err
        assert f"tokens_per_batch = {expected}" in (out / "recipe.toml").read_text()
        assert "tokens at a time" in err
    code, _, err = command("fit", folder, table, *fixed, "--tokens-per-batch", "some", "--out", tmp_path / "x")
    assert (code, "give a number above 0, or auto" in err) == (2, True)


WITHOUT_SPACE = """
import resource, sys
from trimtab.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["trimtab", *sys.argv[1:]]
main()
"""


def test_a_full_disk_is_said_and_leaves_no_delta(encoder, table, tmp_path):
    """A limit on file size stands in for the full disk: the system refuses the bytes in the same way."""
    arguments = ["fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out", "--epochs", "1", "--method", "full"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SPACE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(command, encoder, table, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, _, err = command("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "taken")
    assert code == 2
    assert "cannot write" in err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_text_of_100_000_words_is_cut_and_said(command, encoder, tmp_path):
    rows = animal_rows(40)
    rows[0]["What they said"] = "the old cat " * 33_334
    table = write_csv(tmp_path / "long.csv", rows)
    code, _, err = command("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out", "--epochs", 1)
    assert code == 0, err
    assert "are longer than 60 tokens and are cut" in err
