"""What is wrong with the words of a command line is one clear message, and nothing of the user's is replaced."""

from pathlib import Path

import pytest

from commands.animals import FIT


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
