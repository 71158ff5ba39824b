"""The public names, and how light it is to ask for them."""

import ast
import csv
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

from small import ANIMALS, first_animal, sentences

import trimtab

ROOT = Path(__file__).parent.parent
DESIGN = {
    "load", "read", "fit", "steps", "evaluate", "predict", "merge", "inspect", "export", "report", "fisher", "movement",
    "compare", "recommend", "Full", "Head", "LastLayers", "Biases", "LayerNorms", "FisherTop", "MovedTop", "Random", "Lora",
    "Union", "Selection", "Delta", "Recipe", "Task", "Encoder", "Predictor",
}  # fmt: skip


def test_every_public_name_is_there_and_says_what_it_is():
    assert set(trimtab.__all__) >= DESIGN
    for name in trimtab.__all__:
        assert inspect.getdoc(getattr(trimtab, name)), name


def test_the_lazy_table_matches_the_imports_that_type_checkers_see():
    tree = ast.parse(Path(trimtab.__file__).read_text())
    imported = {
        (node.module, name.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    imported.discard(("typing", "TYPE_CHECKING"))
    imported.discard(("typing", "Any"))
    imported.discard(("version", "VERSION"))
    imported.discard(("threads", "settle_waiting"))
    assert imported == {(home, name) for home, names in trimtab._HOMES.items() for name in names}


def test_the_version_is_that_of_the_metadata():
    assert trimtab.__version__ == importlib.metadata.version("trimtab")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, trimtab; print(sorted({'torch', 'transformers', 'datasets', 'sklearn', 'peft'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom trimtab.cli import main\nsys.argv = ['trimtab', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(trimtab, "fine_tune")


def test_the_example_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "python_api.py", "64", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert (tmp_path / "runs" / "example" / "plain" / "model.safetensors").is_file()


def test_the_loop_of_ones_own_runs_on_a_small_encoder(encoder, tmp_path, monkeypatch, capsys):
    rows = [f"{text},{ANIMALS[first_animal(text)]}" for text in sentences(64, 3)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["events.py", "56"])
    code = (ROOT / "examples" / "events.py").read_text()
    small = code.replace('"minilm"', repr(str(encoder.folder))).replace('"helpdesk"', '"rows.csv"')
    names: dict = {}
    exec(compile(small, "events.py", "exec"), names)
    run = names["steps"].run
    with (tmp_path / "validations.csv").open() as file:
        written = list(csv.reader(file))
    assert [int(row[0]) for row in written] == [entry["step"] for entry in run.history]
    assert [float(row[2]) for row in written] == [entry["validation_loss"] for entry in run.history]
    assert capsys.readouterr().out.startswith(str(run.stopped))
