"""What is wrong with names, options and tables is told before torch is imported, which takes seconds; and what was meant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import ANIMALS, first_animal, make_task, sentences, write_csv

import trimtab

# Each command runs in the one process, whose modules are looked at behind it: the first that imports torch spoils all others.
TELLING = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from trimtab.cli import main

told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv, stderr, code = ["trimtab", *arguments], io.StringIO(), 0
    with redirect_stderr(stderr), redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    told.append([code, stderr.getvalue(), sorted({"torch", "transformers"} & set(sys.modules))])
print(json.dumps(told))
"""
FIT, STUDY = ("fit", "ENCODER", "TABLE"), ("TABLE", "--text", "body", "--label", "animal")
CASES = {
    ("fit", "ENCODER", "OTHER/animls.csv"): "file not found: .* (did you mean .*animals.csv?)",
    (*FIT, "--text", "bdy", "--label", "animal"): "no column 'bdy' (did you mean 'body'?)",
    (*FIT, "--text", "body", "--label", "Animals"): "no column 'Animals' (did you mean 'animal'?)",
    (*FIT, "--text", "body", "--label", "animal", "--positive", "ct"): "positive='ct' (did you mean 'cat'?)",
    (*FIT, "--method", "layernorms"): "unknown method 'layernorms' (did you mean layer_norms?)",
    (*FIT, "--method", "layer_norms+biass"): "unknown method 'biass' (did you mean biases?)",
    (*FIT, "--method", "random:count=5,within=(full+bises)"): "unknown method 'bises' (did you mean biases?)",
    (*FIT, "--method", "lora:rnk=2"): "lora has no option 'rnk' (did you mean rank?)",
    (*FIT, "--method", "random:count=5,within=(full+lora:rank=many)"): "lora:rank=many is not a whole number",
    (*FIT, "--method", "fisher_top:share=2"): "fisher_top:share=2.0 must be above 0",
    (*FIT, "--method", "layer_norms:last=0"): "layer_norms:last=0 must be at least 1; leave it out for all layers",
    (*FIT, "--method", "fisher_top:share=0.1,estimator=exat"): "(did you mean exact?)",
    (
        *FIT,
        "--method",
        "moved_top:share=0.1,per=layer",
    ): "moved_top:per=layer was removed: .* commit a657e39 still has it",
    (*FIT, "--kind", "single-label"): "unknown kind 'single-label' (did you mean single_label?)",
    (*FIT, *STUDY[1:], "--metric", "acuracy"): "(did you mean accuracy?)",
    (*FIT, "--head", "linaer"): "(did you mean linear?)",
    (*FIT, "--pairs", "apar"): "(did you mean apart?)",
    (*FIT, "--compute", "float23"): "(did you mean float32?)",
    (*FIT, "--epochs", "0"): "epochs=0 must be at least 1",
    (*FIT, "--encoding", "utf_88"): "unknown encoding 'utf_88' (did you mean utf-8?)",
    ("fit", "ENCODER", "helpdesk", "--out", "RUN"): "holds a finished run",
    ("fit", "OTHER/encodr", "helpdesk"): "no encoder folder",
    ("fit", "OTHER/nothing.toml"): "cannot read recipe",
    ("fit", "OTHER/odd.toml"): "unknown setting 'epoch' (did you mean epochs?)",
    ("fit", "OTHER/misplaced.toml"): "unknown setting 'text': it says how a table is read",
    ("compare", "ENCODER", "nothing.csv"): "file not found",
    ("compare", "ENCODER", "TABLE", "--text", "bdy"): "(did you mean 'body'?)",
    ("compare", "ENCODER", *STUDY, "--method", "lra"): "(did you mean lora?)",
    ("compare", "ENCODER", *STUDY, "--reference", "fulll"): "(did you mean full?)",
    ("compare", "ENCODER", *STUDY, "--head", "linaer"): "(did you mean linear?)",
    ("compare", "OTHER/encodr", *STUDY): "no encoder folder",
    ("recommend", "ENCODER", "nothing.csv", "--budget", "5000"): "file not found",
    ("recommend", "ENCODER", "TABLE", "--text", "bdy", "--budget", "5000"): "(did you mean 'body'?)",
    ("recommend", "ENCODER", *STUDY, "--budget", "much"): "budget 'much' is not understood",
    ("fisher", "ENCODER", "nothing.csv"): "file not found",
    ("fisher", "ENCODER", "TABLE", "--text", "bdy"): "(did you mean 'body'?)",
    ("fisher", "ENCODER", *STUDY, "--within", "layernorms"): "(did you mean layer_norms?)",
    ("fisher", "ENCODER", *STUDY, "--estimator", "empirica"): "(did you mean empirical?)",
    ("inspect", "OTHER/encodr"): "no encoder folder",
    ("inspect", "ENCODER", "--head", "linaer"): "(did you mean linear?)",
    ("movement", "RUNN"): "no delta in",
    ("movement", "RUN", "--fisher", "nothing.safetensors"): "no Fisher information in nothing.safetensors",
    ("movement", "RUN", "--encoder", "OTHER/encodr"): "no encoder folder",
    ("forgetting", "RUNN"): "no delta in",
    ("forgetting", "RUN", "--texts", "nothing.txt"): "file not found",
    ("forgetting", "RUN", "--probe", "TABLE", "--text", "bdy"): "(did you mean 'body'?)",
    ("forgetting", "RUN", "--encoder", "OTHER/encodr"): "no encoder folder",
    ("evaluate", "RUNN"): "(did you mean",
    ("evaluate", "RUN", "nothing.csv"): "file not found",
    ("evaluate", "RUN", "TABLE", "--text", "bdy"): "(did you mean 'body'?)",
    ("evaluate", "RUN", "--split", "validaton"): "(did you mean validation?)",
    ("predict", "RUNN", "--text", "a cat"): "no delta in",
    ("predict", "RUN", "--file", "nothing.csv", "--out", "OTHER/out.csv"): "file not found",
    ("predict", "RUN", "--file", "TABLE", "--out", "OTHER/out.csv", "--columns", "bdy"): "(did you mean 'body'?)",
    ("predict", "RUN", "--text", "a cat", "--encoder", "OTHER/encodr"): "no encoder folder",
    ("export", "RUNN"): "no delta in",
    ("export", "RUN", "--to", "mergd"): "cannot export to 'mergd'; known forms: merged.* (did you mean merged?)",
    ("export", "RUN", "--encoder", "OTHER/encodr"): "no encoder folder",
    ("export", "RUN", "--base-name", "owner/name"): "the form merged has no option base_name",
    ("import", "OTHER", "--out", "OTHER/new"): "no adapter of peft in .*: adapter_config.json is missing",
    ("report", "RUNN"): "runn",
}


@pytest.fixture(scope="module")
def places(encoder_of, tmp_path_factory) -> dict[str, Path]:
    """An encoder, a table, a run of it, and a folder of odd recipes, by the names in CASES."""
    folder = tmp_path_factory.mktemp("early")
    rows = [{"body": text, "animal": ANIMALS[first_animal(text)]} for text in sentences(80, 3)]
    table = write_csv(folder / "animals.csv", [row for row in rows if row["animal"] != "fish"])
    encoder, task = encoder_of("bert"), trimtab.read(table, text="body", label="animal")
    run = trimtab.fit(encoder, task, trimtab.Head(), epochs=1, head="default", out=folder / "run").folder
    assert run is not None
    (folder / "odd.toml").write_text('task = "helpdesk"\n[settings]\nepoch = 3\n')
    (folder / "misplaced.toml").write_text('task = "helpdesk"\n[settings]\ntext = "body"\n')
    return {"ENCODER": encoder.folder, "TABLE": table, "RUN": run, "RUNN": folder / "runn", "OTHER": folder}


@pytest.fixture(scope="module")
def told(places) -> dict[tuple[str, ...], list]:
    """Case -> exit code, stderr, and which heavy modules were there by then."""
    cases = [
        [str(places[word]) if word in places else word.replace("OTHER", str(places["OTHER"])) for word in case]
        for case in CASES
    ]
    done = subprocess.run(
        [sys.executable, "-c", TELLING, json.dumps(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (places["OTHER"] / "out.csv").exists()
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_what_is_wrong_is_told_before_torch_is_imported(case, told):
    code, stderr, heavy = told[case]
    assert code == 2, stderr
    said, at = " ".join(stderr.split()), 0
    for part in CASES[case].split(".*"):
        at = said.find(part, at)
        assert at >= 0, said
    assert heavy == []


def test_versions_are_told_without_importing_them():
    code = (
        "import sys\nfrom trimtab.cli import main\nsys.argv = ['trimtab', '--version']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert [line.split()[0] for line in lines] == ["trimtab", "torch", "transformers", "[]"]
    assert lines[0] == f"trimtab {trimtab.__version__}"


def test_names_and_texts_stand_for_what_they_name(encoder, places, monkeypatch, tmp_path):
    """One run by objects and one by names are the same run."""
    settings = {"epochs": 1, "seed": 3}
    table = write_csv(tmp_path / "t.csv", [{"text": t, "label": ANIMALS[first_animal(t)]} for t in sentences(60, 3)])
    by_objects = trimtab.fit(encoder, trimtab.read(table), trimtab.LayerNorms("output"), **settings)
    by_names = trimtab.fit(encoder.folder, table, "layer_norms:which=output", **settings)
    assert by_names.scores == by_objects.scores
    assert by_names.delta.method == "layer_norms:which=output"
    assert trimtab.fit(str(encoder.folder), str(table), **settings).delta.method == "layer_norms"

    info = trimtab.fisher(str(encoder.folder), table, "layer_norms:which=output", examples=16)
    assert info.notes["method"] == "layer_norms:which=output"
    study = trimtab.compare(str(encoder.folder), table, ["head", "biases"], 1, reference="biases", epochs=1)
    assert (study.methods, study.reference) == (["head", "biases"], "biases")
    assert trimtab.compare(encoder, [table], "head", 1, epochs=1).methods == ["head"]
    assert trimtab.inspect(str(encoder.folder)).layers == trimtab.inspect(encoder).layers
    assert trimtab.merge(str(encoder.folder), places["RUN"]).num_labels == 2
    answer = trimtab.predict(places["RUN"], ["a cat"], encoder.folder)[0]
    assert set(answer.probabilities) == {"cat", "dog"}
    assert trimtab.movement(places["RUN"], encoder.folder).notes["method"] == "head"
    assert trimtab.evaluate(places["RUN"], encoder=encoder.folder)["split"] == "validation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, "helpdesk"), "int is no encoder"),
        (("minilm", 3), "int is no table"),
        (("minilm", "helpdesk", 3), "3 is no method"),
        (("minilm", "helpdesk", trimtab.LayerNorms), "is no method"),
        (("minilm", "helpdesk", "layer_norm"), "did you mean layer_norms"),
        (("minlm", "helpdesk"), r"did you mean minilm\?"),
    ],
)
def test_what_is_neither_name_nor_object_is_said(arguments, message):
    with pytest.raises(trimtab.InputError, match=message):
        trimtab.fit(*arguments)


def test_how_a_table_is_read_is_said_to_read(encoder):
    with pytest.raises(
        trimtab.InputError,
        match=r"unknown setting 'text': it says how a table is read. .*trimtab.read\(\.\.\., text=\.\.\.\)",
    ):
        trimtab.fit(encoder, make_task(), "head", text="body")


def test_a_run_is_a_folder_or_what_fit_returns():
    for use in (trimtab.evaluate, trimtab.movement):
        with pytest.raises(trimtab.InputError, match="int is no run"):
            use(3)


@pytest.mark.parametrize("verb", ["fit", "compare", "recommend", "fisher"])
def test_a_length_that_the_encoder_cannot_read_is_said(verb, command, encoder, places, tmp_path):
    out = tmp_path / ("out.safetensors" if verb == "fisher" else "out")
    arguments = [verb, encoder.folder, places["TABLE"], "--text", "body", "--label", "animal", "--out", out]
    own = {"fit": ["--epochs", 1], "compare": ["--method", "head", "--seeds", 1, "--epochs", 1],
           "recommend": ["--budget", "100%", "--seeds", 1, "--epochs", 1], "fisher": ["--examples", 8]}[verb]  # fmt: skip
    code, _, err = command(*arguments, *own, "--max-length", 2048)
    assert code == 0, err
    said = " ".join(err.split())
    assert said.count("--max-length 2,048: encoder") == 1
    assert f"reads at most {encoder.max_length} tokens of a text" in said
    code, _, err = command(*arguments[:-1], out.with_name("short" + out.suffix), *own, "--max-length", 16)
    assert code == 0, err
    assert "reads at most" not in " ".join(err.split())


def test_the_length_that_is_used_is_kept(encoder):
    run = trimtab.fit(encoder, make_task(), "head", epochs=1, max_length=2048)
    assert run.delta.max_length == run.details["max_length"] == encoder.max_length
    assert trimtab.fisher(encoder, make_task(), examples=8, max_length=2048).notes["max_length"] == encoder.max_length
