"""The command line as a user meets it: answers, messages and exit codes."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import ANIMALS, first_animal, sentences, write_csv
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trimtab.inference.predictor import Predictor
from trimtab.results.recipe import Recipe
from trimtab.training.fit_recipe import folder_name
from trimtab.training.workbench import Workbench


def animal_rows(count: int = 120) -> list[dict]:
    return [
        {"Id": i, "What they said": text, "Verdict": ANIMALS[first_animal(text)]}
        for i, text in enumerate(sentences(count, 3))
    ]


@pytest.fixture
def table(tmp_path) -> Path:
    return write_csv(tmp_path / "odd names.csv", animal_rows())


@pytest.fixture(scope="module")
def run_folder(encoder_of, tmp_path_factory) -> Path:
    """A finished run, made through the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("cli")
    table = write_csv(folder / "animals.csv", animal_rows(160))
    arguments = [
        "fit", encoder_of("bert").folder, table, "--text", "What they said", "--label", "Verdict", "--method", "full",
        "--epochs", "8", "--lr", "0.005", "--batch-size", "16", "--dropout", "0", "--head", "default",
        "--head-start", "random", "--out", folder / "run", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["scores"]["accuracy"] > answer["baseline"]["accuracy"]
    assert "best so far" in done.stderr
    return folder / "run"


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


def test_predict_texts(command, run_folder):
    code, out, _ = command("predict", run_folder, "--text", "the old cat", "--text", "a fish", "--json")
    answers = json.loads(out.splitlines()[-1])["answers"]
    assert code == 0
    assert len(answers) == 2
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_predict_file_keeps_rows_and_columns(command, run_folder, tmp_path, ending):
    rows = [{"Id": i, "What they said": text, "note": 'a "b", c\nd'} for i, text in enumerate(sentences(50, 5))]
    source, to = write_csv(tmp_path / "new.csv", rows), tmp_path / f"scored.{ending}"
    code, _, err = command("predict", run_folder, "--file", source, "--out", to)
    assert code == 0, err
    if ending == "jsonl":
        found = [json.loads(line) for line in to.read_text().splitlines()]
    else:
        with to.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t" if ending == "tsv" else ","))
    assert [(row["Id"], row["What they said"], row["note"]) for row in found] == [
        (str(row["Id"]), row["What they said"], row["note"]) for row in rows
    ]
    assert list(found[0])[:4] == ["Id", "What they said", "note", "predicted_label"]
    expected = Predictor(run_folder).task.classes
    assert all(row["predicted_label"] in expected for row in found)
    assert sum(float(found[0][f"probability_{name}"]) for name in expected) == pytest.approx(1, abs=1e-4)


def test_what_is_read_in_part_is_said(command, run_folder, tmp_path):
    rows = [{"What they said": text, "Verdict": ANIMALS[first_animal(text)]} for text in sentences(4, 5)]
    rows[1]["What they said"] += " and the old cat" * 200
    source, limit = write_csv(tmp_path / "new.csv", rows), Predictor(run_folder).delta.max_length
    code, out, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.csv", "--json")
    assert code == 0, err
    assert f"1 of them longer than the run's {limit} tokens" in " ".join(err.split())
    assert json.loads(out.splitlines()[-1])["cut"] == 1
    code, out, err = command("evaluate", run_folder, source, "--text", "What they said", "--label", "Verdict", "--json")
    assert code == 0, err
    (note,) = [note for note in json.loads(out.splitlines()[-1])["notes"] if "longer" in note]
    assert note.startswith(f"test: 1 of 4 texts are longer than {limit} tokens")


def test_predict_file_refuses_to_overwrite_a_column(command, run_folder, tmp_path):
    source = write_csv(tmp_path / "new.csv", [{"What they said": "a cat", "predicted_label": "x"}])
    code, _, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.csv")
    assert code == 2
    assert "already has the column 'predicted_label'" in err
    assert not (tmp_path / "scored.csv").exists()


def test_predict_file_answers_the_rows_around_a_bad_one_and_says_why_it_has_none(command, run_folder, tmp_path):
    source = tmp_path / "new.jsonl"
    source.write_text('{"What they said": "a cat"}\n{"What they said": \n')
    code, out, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.jsonl", "--json")
    assert code == 0, err
    assert "2 rows in" in err
    assert "1 of them without an answer (column not_predicted says why)" in " ".join(err.split())
    assert json.loads(out.splitlines()[-1])["unanswered"] == 1
    good, bad = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert (good["predicted_label"] in ANIMALS, good["not_predicted"]) == (True, None)
    assert (bad["predicted_label"], bad["not_predicted"]) == (None, "no readable JSON object")


def test_answers_are_replaced_on_request_only(command, run_folder, tmp_path):
    source = tmp_path / "new.csv"
    source.write_text("What they said\na cat\n")
    for options, code in (((), 0), ((), 2), (("--overwrite",), 0)):
        done, _, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "o.parquet", *options)
        assert done == code, err
        assert ("is there already" in err) == (code == 2)
        assert ("1 row in" in err) == (code == 0)


def test_how_a_table_is_read_goes_from_the_command_line_through_the_run(command, encoder, tmp_path, monkeypatch):
    """Latin-1 without a header, with marks for no label and ragged rows: fitted, repeated from elsewhere, scored."""
    rows = [f"{ANIMALS[first_animal(text)]};{text} caf\u00e9" for text in sentences(60, 3)]
    odd = ["?;no label", "cat;one;too many", "cat; "]
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.csv").write_bytes("\n".join([*rows[:40], *odd]).encode("latin-1"))
    (tmp_path / "here" / "b.csv").write_bytes("\n".join([*rows[40:], odd[0]]).encode("latin-1"))
    monkeypatch.chdir(tmp_path / "here")
    reading = ["--encoding", "latin-1", "--no-header", "--missing-label", "?", "--skip-bad-rows"]
    code, _, err = command(
        "fit", encoder.folder, "a.csv", "--text", "column_2", "--label", "column_1", *reading, "--validation", "b.csv",
        "--method", "head", "--epochs", 1, "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "left out 3 of 43 rows" in err
    run = tmp_path / "here" / "run"
    recipe = Recipe.load(run / "recipe.toml")
    assert (recipe.encoding, recipe.header, recipe.missing_label) == ("latin-1", False, ("?",))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    code, out, err = command("evaluate", run, "--json")  # its own data, found by its recipe
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 20
    code, _, err = command("fit", run / "recipe.toml", "--out", "again")
    assert code == 0, err
    before, after = load_file(run / "delta.safetensors"), load_file(Path("again/delta.safetensors"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    code, out, err = command(
        "evaluate", run, tmp_path / "here" / "b.csv", "--encoding", "latin-1", "--no-header", "--json"
    )
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 20, "the run's mark for no label holds here too"
    code, _, err = command("evaluate", run, tmp_path / "here" / "b.csv", "--no-header")
    assert (code, "--encoding" in err) == (2, True)


@pytest.mark.parametrize("verb", ["fisher", "compare"])
def test_studies_read_tables_as_fits_do(command, encoder, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    rows = [f"{first_animal(text)}|{text} caf\u00e9" for text in sentences(40, 3)]
    (tmp_path / "a.csv").write_bytes("\n".join([*rows, "-100|no label"]).encode("utf-16"))
    options = {
        "fisher": ["--examples", 8, "--out", "info.safetensors"],
        "compare": ["--method", "head", "--method", "layer_norms", "--seeds", 1, "--epochs", 1, "--out", "cells"],
    }[verb]
    reading = [
        "--no-header",
        "--text",
        "column_2",
        "--label",
        "column_1",
        "--missing-label",
        "-100",
        "--validation",
        "0.2",
    ]
    code, _, err = command(verb, encoder.folder, "a.csv", *reading, *options)
    assert code == 0, err
    assert "left out 1 of 41 rows (1 with the label '-100', which stands for none)" in err
    assert "8 of 40 training rows held out" in err


def test_a_share_of_validation_rows_takes_the_place_of_a_file(command, encoder, table, tmp_path):
    (tmp_path / "r.toml").write_text(
        f'encoder = "{encoder.folder}"\ntask = "{table.name}"\nvalidation = "{table.name}"\ntext = "What they said"\n'
        'label = "Verdict"\nmethod = "head"\n[settings]\nepochs = 1\n'
    )
    for options, rows in (((), 120), (("--validation", "0.25"), 30)):
        code, _, err = command("fit", tmp_path / "r.toml", *options, "--out", tmp_path / f"run{rows}")
        assert code == 0, err
        assert json.loads((tmp_path / f"run{rows}" / "scores.json").read_text())["rows"]["validation"]["rows"] == rows


def test_evaluate_its_own_task_and_another_file(command, run_folder, table):
    code, out, _ = command("evaluate", run_folder, "--json")
    own = json.loads(out.splitlines()[-1])
    assert (code, own["split"]) == (0, "validation")
    saved = json.loads((run_folder / "scores.json").read_text())
    assert own["rows"] == saved["rows"]["validation"]["rows"]
    assert own["scores"]["accuracy"] == pytest.approx(saved["scores"]["accuracy"], abs=0.07)
    code, out, err = command("evaluate", run_folder, table, "--text", "What they said", "--label", "Verdict", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 120


def test_what_evaluate_answers_goes_to_stdout(command, run_folder, table, tmp_path):
    lines = table.read_text().splitlines()
    gap = ",".join("cat" if name == "Verdict" else "" for name in lines[0].split(","))
    (tmp_path / "gap.csv").write_text("\n".join([*lines, gap]) + "\n")
    code, out, err = command(
        "evaluate",
        run_folder,
        tmp_path / "gap.csv",
        "--text",
        "What they said",
        "--label",
        "Verdict",
        "--skip-bad-rows",
    )
    assert code == 0, err
    assert out.splitlines()[0] == "test, 120 rows"
    assert "left out 1 of 121 rows" in err


def test_a_comparison_of_nothing_is_an_error(command, encoder, table, tmp_path):
    code, out, err = command(
        "compare",
        encoder.folder,
        table,
        *ODD,
        "--method",
        "last_layers:k=9",
        "--seeds",
        1,
        "--epochs",
        1,
        "--out",
        tmp_path / "cells",
    )
    assert (code, out) == (2, ""), err
    assert "no method could be used, so nothing is compared: last_layers:k=9 on" in err
    assert not (tmp_path / "cells" / "methods.html").exists()


def test_export_merged_is_a_plain_model(command, run_folder, tmp_path):
    code, _, err = command("export", run_folder, "--to", "merged", "--out", tmp_path / "merged")
    assert code == 0, err
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        ["the old cat", "a fish"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        likely = model(**inputs).logits.softmax(-1)
    _, out, _ = command("predict", run_folder, "--text", "the old cat", "--text", "a fish", "--json")
    for row, answer in zip(likely, json.loads(out.splitlines()[-1])["answers"], strict=True):
        assert answer["label"] == model.config.id2label[int(row.argmax())]
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=0.02)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.model_max_length == json.loads((run_folder / "scores.json").read_text())["max_length"]
    rights = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "merged").iterdir()}
    assert set(rights.values()) == {(tmp_path / "merged").stat().st_mode & 0o666}
    code, _, err = command("export", run_folder, "--out", tmp_path / "merged")
    assert code == 2
    assert "exists" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predict", "RUN", "--text", " "), "text 1 is empty"),
        (("predict", "RUN", "--text", "caf\udce9"), "text 1 is not UTF-8"),
        (("predict", "RUN", "--text", "x", "--out", "y.csv"), "--encoding and --no-header go with --file"),
        (("predict", "RUN", "--file", "x.csv", "--text-pair", "x", "--out", "y.csv"), "--text-pair goes with --text"),
        (("predict", "nowhere", "--text", "x"), "there is no such folder"),
        (("evaluate", "RUN", "--text", "x"), "name columns of another task"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, said, command, run_folder):
    code, _, err = command(*(run_folder if part == "RUN" else part for part in arguments))
    assert (code, said in err) == (2, True), err


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


def test_inspect(command, encoder):
    code, out, _ = command("inspect", encoder.folder, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["methods"]["layer_norms"]["body"] == 2 * 32 * 7
    _, out, _ = command("inspect", encoder.folder)
    assert "layer_norms" in out


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_inspect_cuts_nothing_in_a_narrow_window(command, encoder, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = command("inspect", encoder.folder)
    grid, _, _ = out.partition("What each")
    blocks = grid.count("after")
    assert "…" not in grid
    assert all(len(line) <= width for line in grid.splitlines())
    # Every block names the layers, and together they hold what one wide table holds.
    assert [line.split()[0] for line in grid.splitlines() if line[:1].isdigit()] == [*"012"] * blocks
    assert blocks == 1 or width < 80
    assert grid.split().count("pooler") == 1


def test_inspect_says_what_is_missing_word_for_word(command, encoder, monkeypatch):
    """What stands in brackets is not taken for markup, nor cut at the edge of the table."""
    monkeypatch.setitem(sys.modules, "peft", None)
    _, out, _ = command("inspect", encoder.folder)
    assert "pip install 'trimtab[lora]'" in " ".join(out.split())


def test_a_share_of_information_needs_a_file_to_go_to(command, encoder, table):
    code, _, err = command("fisher", encoder.folder, table, "--share", "0.1")
    assert (code, "--save-selection" in err) == (2, True), err


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


FIT = ("fit", "ENCODER", "TABLE", "--text", "What they said", "--label", "Verdict", "--out", "OUT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "ENCODER"), "give an encoder and a task"),
        ((*FIT, "--method", "layer_norm"), "did you mean layer_norms"),
        ((*FIT, "--method", "lora:rnk=2"), "did you mean rank"),
        ((*FIT, "--epochs", "0"), "epochs=0 must be at least 1"),
        ((*FIT, "--head", "huge"), "must be one of auto, default, linear, cls"),
        ((*FIT[:3], "--text", "What they sad", "--label", "Verdict"), "What they said"),
        ((*FIT[:5], "--label", "Verdct", "--out", "OUT"), "Verdict"),
        (("fit", "ENCODER", "nothing.csv"), "nothing.csv"),
        (("fit", "ENCODER", "caf\udce9.csv"), "is not UTF-8"),
        (("export", "RUN", "--out", "caf\udce9"), "is not UTF-8"),
        (("fit", "./nowhere", *FIT[2:]), "no encoder folder"),
        (("fit", "missing.toml"), "cannot read recipe"),
        (("evaluate", "nowhere"), "no delta in nowhere"),
        (("predict", "nowhere", "--text", "x"), "no delta in nowhere"),
        (("predict", "RUN"), "--text"),
        (("predict", "RUN", "--file", "TABLE", "--out", "x.pdf"), ".csv, .tsv, .jsonl"),
        (("predict", "RUN", "--text", "a", "--text-pair", "b", "--text-pair", "c"), "one of each for every pair"),
        (("export", "RUN", "--to", "gguf"), "known forms: merged"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_2(arguments, message, command, encoder, table, tmp_path, run_folder):
    names = {"ENCODER": encoder.folder, "TABLE": table, "OUT": tmp_path / "out", "RUN": run_folder}
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = command(*[names.get(word, word) for word in arguments])
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert {path.name for path in tmp_path.iterdir()} - before <= {"out"}
    assert not (tmp_path / "out" / "delta.safetensors").exists()


def bad_rows(change) -> list[dict]:
    rows = animal_rows(40)
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.update(Verdict="cat") for row in rows], "every row has the label"),
        (lambda rows: rows[4].update(Verdict=""), "6"),
        (lambda rows: rows[7].update({"What they said": "  "}), "9"),
        (lambda rows: [row.update(Verdict=i + 0.5) for i, row in enumerate(rows)], "regression"),
    ],
    ids=["one class", "missing label", "empty text", "float labels"],
)
def test_bad_tables(change, message, command, encoder, tmp_path):
    table = write_csv(tmp_path / "bad.csv", bad_rows(change))
    code, _, err = command("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out")
    assert code == 2
    assert "bad.csv" in err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_rows_that_were_left_out_stay_left_out(command, encoder, tmp_path):
    """The recipe and the run remember, so that repeating and evaluating work."""
    table = write_csv(tmp_path / "gaps.csv", bad_rows(lambda rows: rows[4].update(Verdict="")))
    fit = ("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out", "--epochs", 1, "--skip-bad-rows")
    code, _, err = command(*fit)
    assert code == 0, err
    assert "left out 1 of 40 rows" in err
    assert command("evaluate", tmp_path / "out")[0] == 0
    assert command("fit", tmp_path / "out" / "recipe.toml", "--out", tmp_path / "again")[0] == 0


def test_wrong_encoding_and_truncated_gzip(command, encoder, tmp_path):
    latin = tmp_path / "latin.csv"
    latin.write_bytes("text,label\ncaf\xe9,a\nthe,b\n".encode("latin-1"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"text": "a cat", "label": 1}\n' * 500)[:-20])
    for path, message in ((latin, "UTF-8"), (cut, "cut.jsonl.gz")):
        code, _, err = command("fit", encoder.folder, path, "--out", tmp_path / "out")
        assert (code, message in err) == (2, True), err
        assert not (tmp_path / "out").exists()


def test_a_hundred_megabytes_on_one_line(command, encoder, tmp_path):
    path = tmp_path / "one-line.jsonl"
    path.write_bytes(b'{"text": "' + b"cat " * 25_000_000 + b'", "label": 0}\n')
    code, _, err = command("fit", encoder.folder, path, "--out", tmp_path / "out")
    assert code == 2
    assert "one-line.jsonl" in err
    assert len(err) < 1000


def test_a_text_of_100_000_words_is_cut_and_said(command, encoder, tmp_path):
    rows = animal_rows(40)
    rows[0]["What they said"] = "the old cat " * 33_334
    table = write_csv(tmp_path / "long.csv", rows)
    code, _, err = command("fit", encoder.folder, table, *FIT[3:-1], tmp_path / "out", "--epochs", 1)
    assert code == 0, err
    assert "are longer than 60 tokens and are cut" in err


def test_a_delta_for_another_encoder_is_refused(command, run_folder, encoder_of):
    code, _, err = command("predict", run_folder, "--text", "x", "--encoder", encoder_of("electra").folder)
    assert code == 2
    assert "give the encoder it was trained on (--encoder)" in err


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


ODD = ("--text", "What they said", "--label", "Verdict")


def test_fisher_and_a_fit_of_its_selection(command, encoder, table, tmp_path):
    out, chosen = tmp_path / "info.safetensors", tmp_path / "chosen.safetensors"
    options = [
        "--examples",
        40,
        "--within",
        "full",
        "--estimator",
        "exact",
        "--share",
        0.01,
        "--save-selection",
        chosen,
    ]
    code, printed, said = command("fisher", encoder.folder, table, *ODD, *options, "--out", out, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert sum(entry["share"] for entry in found["by_kind"].values()) == pytest.approx(1)
    assert found["rows"] == [40]
    assert "correlation" in said
    assert Path(found["plot"]).is_file()
    run = tmp_path / "run"
    method = f"selection:file={chosen}"
    code, printed, said = command(
        "fit", encoder.folder, table, *ODD, "--method", method, "--epochs", 1, "--out", run, "--json"
    )
    assert code == 0, said
    assert json.loads(printed.splitlines()[-1])["elements"]["body"] == found["selected"]
    code, printed, _ = command("fisher", encoder.folder, table, *ODD, "--examples", 20, "--out", out)
    assert code == 0
    assert "by layer" in printed


def test_fisher_over_tasks(command, encoder, table, tmp_path):
    other = write_csv(tmp_path / "other.csv", animal_rows(60))
    out = tmp_path / "global.safetensors"
    code, printed, said = command(
        "fisher", encoder.folder, table, other, *ODD, "--global", "--examples", 20, "--out", out, "--json"
    )
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert len(found["stability"]) == 2
    assert sum(entry["sum"] for entry in found["by_kind"].values()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--global"], "two tasks or more"),
        (["--save-selection", "x", "--share", 0], "share=0"),
        (["--save-selection", "x", "--share", 1.5], "share=1.5"),
        (["--save-selection", "x"], "needs --share or --count"),
        (["--within", "fisher"], "unknown method"),
        (["--save-selection", "x", "--share", 0.1], "--save-selection x: name a file that ends in .safetensors"),
        (["--save-selection", "info.safetensors", "--out", "info.safetensors", "--share", 0.1], "a file of its own"),
        (["--estimator", "true"], "estimator must be one of"),
        (
            ["--save-selection", "chosen.safetensors", "--count", 10**9],
            "less than the 1,000,000,000 to choose (--count)",
        ),
    ],
)
def test_bad_fisher_options(options, message, command, encoder, table, tmp_path):
    code, _, said = command(
        "fisher", encoder.folder, table, *ODD, "--examples", 5, "--out", tmp_path / "info.safetensors", *options
    )
    assert code == 2
    assert message in said
    assert not Path("x").exists()
    assert not (tmp_path / "info.safetensors").exists(), "refused before anything was measured"


def test_fisher_replaces_only_what_it_has_written(command, encoder, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights, picture = tmp_path / "weights.safetensors", tmp_path / "info.png"
    save_file({"weight": torch.ones(2)}, weights)
    picture.write_text("mine")
    before = weights.read_bytes()
    measured = ("fisher", encoder.folder, table, *ODD, "--examples", 5)
    for options in (("--out", weights), ("--save-selection", weights, "--share", 0.5)):
        code, _, said = command(*measured, *options)
        assert (code, "this file holds something else" in said) == (2, True), said
    # The default of --out counts too.
    default = Path("runs") / "odd-names-fisher.safetensors"
    code, _, said = command(*measured, "--save-selection", default, "--share", 0.5)
    assert (code, "a file of its own" in said) == (2, True), said
    for _ in range(2):
        assert command(*measured, "--out", "info.safetensors")[0] == 0
    assert command(*measured)[0] == 0
    code, _, said = command(*measured)
    assert (code, "is there already: name it to have it replaced" in said) == (2, True), said
    assert (weights.read_bytes(), picture.read_text()) == (before, "mine")
    assert Path("info-heatmap.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("fisher", "ENCODER", "TABLE", "--out", "TABLE"),
        ("fisher", "ENCODER", "TABLE", "--count", 5, "--save-selection", "TABLE"),
        ("compare", "ENCODER", "TABLE", "--report", "TABLE"),
        ("movement", "RUN", "--plot", "TABLE"),
        ("report", "RUN", "--out", "TABLE"),
    ],
)
def test_what_is_written_does_not_take_the_place_of_data(arguments, command, encoder, table, run_folder):
    names, before = {"ENCODER": encoder.folder, "TABLE": table, "RUN": run_folder}, Path(table).read_bytes()
    code, _, said = command(*(names.get(each, each) for each in arguments))
    assert code == 2, said
    assert f"{table}: name a file that ends in ." in said
    assert Path(table).read_bytes() == before


def test_all_tasks_are_read_and_places_tried_before_anything_is_measured(
    command, encoder, table, tmp_path, monkeypatch
):
    def measured(*arguments, **options):
        pytest.fail("it was measured")

    monkeypatch.setattr("trimtab.studies.measure_fisher.fisher", measured)
    missing = tmp_path / "missing.csv"
    code, _, said = command("fisher", encoder.folder, table, missing, *ODD, "--global")
    assert (code, "missing.csv" in said) == (2, True), said
    (tmp_path / "file").touch()
    code, _, said = command("fisher", encoder.folder, table, *ODD, "--out", tmp_path / "file" / "x.safetensors")
    assert (code, "cannot write" in said) == (2, True), said


def test_movement(command, encoder, table, run_folder, tmp_path):
    info = tmp_path / "info.safetensors"
    assert command("fisher", encoder.folder, table, *ODD, "--within", "full", "--examples", 20, "--out", info)[0] == 0
    picture = tmp_path / "moved.svg"
    code, printed, said = command("movement", run_folder, "--fisher", info, "--plot", picture, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert found["by_kind"]["query"]["mean"] > 0
    assert found["foreseen"]["overlap"]["0.1"]["chance"] == pytest.approx(0.1, rel=0.01)
    assert picture.is_file()
    code, printed, _ = command("movement", run_folder, "--fisher", info, "--plot", picture)
    assert "by chance" in printed
    assert "relative norm" in printed
    code, _, said = command("movement", run_folder, "--fisher", run_folder / "delta.safetensors", "--plot", picture)
    assert code == 2
    assert "no file of Fisher information" in said


def test_compare(command, encoder, table, tmp_path):
    out, page = tmp_path / "cells", tmp_path / "methods.html"
    options = ["--method", "layer_norms", "--method", "head", "--seeds", 1, "--epochs", 1, "--out", out, *ODD]
    code, printed, said = command("compare", encoder.folder, table, *options, "--report", page, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert {(cell["method"], cell["seed"]) for cell in found["cells"]} == {("layer_norms", 0), ("head", 0)}
    assert {"task", "scores", "elements", "seconds"} <= found["cells"][0].keys()
    assert page.read_text().startswith("<!")
    code, printed, said = command("compare", encoder.folder, table, *options, "--reference", "head")
    assert code == 0, said
    assert "difference from head" in printed
    assert "->" not in said  # nothing was computed again
    code, _, said = command("compare", encoder.folder, table, *ODD, "--seeds", 0, "--out", out)
    assert (code, "--seeds 0" in said) == (2, True)


def test_recommend_and_a_fit_of_its_recipe(command, encoder, table, tmp_path):
    out, options = tmp_path / "trials", [*ODD, "--rows", 60, "--seeds", 1, "--epochs", 1]
    code, printed, said = command(
        "recommend", encoder.folder, table, "--budget", "200", "--out", out, *options, "--json"
    )
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert {"method", "runner_up", "reasons", "first", "final", "recipe"} <= found.keys()
    assert len(found["reasons"]) == 3
    code, printed, said = command("recommend", encoder.folder, table, "--budget", "200", "--out", out, *options)
    assert code == 0, said
    assert found["method"] in printed
    assert all(sentence in printed for sentence in found["reasons"])
    assert found["recipe"] == str(out / "recommended.toml"), "a recipe.toml may be a run's"
    code, _, said = command("fit", found["recipe"], "--out", tmp_path / "run")
    assert code == 0, said
    code, _, said = command("recommend", encoder.folder, table, "--budget", "1KB", "--out", out, *options)
    assert (code, "smaller than the head" in said) == (2, True)
