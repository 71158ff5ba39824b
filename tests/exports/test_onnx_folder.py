"""A run as an ONNX folder: what its own program predicts, what it needs for that, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import WORDS, make_encoder_folder, sentences, word_tokenizer, write_csv

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import load
from trimtab.encoders.tokenizing import tokenize
from trimtab.errors import InputError
from trimtab.exports import onnx_graph, onnx_int8, onnx_scores
from trimtab.exports.device_predict import Model
from trimtab.exports.forms import export
from trimtab.exports.onnx_folder import program_of
from trimtab.inference.predictor import Predictor, predict
from trimtab.training.fit import fit

TEXTS = ["the cat", "a very old dog runs", "fish", " ".join(WORDS * 6)]  # the last one is cut


@pytest.fixture(scope="session")
def folder(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small BERT as ONNX."""
    return export(run_of(), "onnx", tmp_path_factory.mktemp("onnx") / "out")


def expected(run: Path, rows: list[Any]) -> list[dict[str, Any]]:
    """What the run predicts in float32."""
    predictor = Predictor(run)
    predictor.prepared.use("float32")
    return [each.as_json() for each in predict(predictor, rows)]


def test_the_program_predicts_what_the_run_does_without_torch(folder: Path, run_of: Callable[..., Path]) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "tokenizer.json", "labels.json", "card.md", "predict.py",
    }  # fmt: skip
    shown = "import sys, runpy; runpy.run_path(sys.argv[0], run_name='__main__'); print(sorted(sys.modules))"
    program = f"import sys; sys.argv = {[str(folder / 'predict.py'), *TEXTS]!r}; {shown}"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    assert not {"torch", "transformers", "trimtab", "onnx"} & set(eval(modules))
    for line, own in zip(lines, expected(run_of(), TEXTS), strict=True):
        found = json.loads(line)
        assert found["label"] == own["label"]
        assert found["probabilities"] == pytest.approx(own["probabilities"], abs=1e-5)


def test_the_folder_says_what_its_outputs_mean_and_nothing_of_this_machine(
    folder: Path, run_of: Callable[..., Path]
) -> None:
    import onnx

    about = json.loads((folder / "labels.json").read_text())
    delta = Delta.load(run_of())
    assert (about["kind"], about["activation"]) == ("single_label", "softmax")
    assert about["classes"] == list(delta.task["classes"])
    assert about["delta_sha256"] == delta.sha256
    assert about["base"]["sha256"] == about["base_sha256"] == delta.base["sha256"]
    assert about["max_length"] == delta.max_length
    graph = onnx.load(folder / "model.onnx")
    # The exporter notes the stack of calls of every node, with the folders of whoever ran it.
    assert str(Path(torch.__file__).parent).encode() not in (folder / "model.onnx").read_bytes()
    assert not graph.graph.value_info
    assert not any(initializer.external_data for initializer in graph.graph.initializer)
    assert "Texts are cut at" in (folder / "card.md").read_text()


def test_a_prediction_does_not_depend_on_neighbours_and_files_are_read(folder: Path, tmp_path: Path) -> None:
    program = program_of(folder)
    model = program.Model(folder)
    alone = [model.predict(text) for text in TEXTS]
    write_csv(tmp_path / "rows.csv", [{"text": text, "other": "x"} for text in reversed(TEXTS)])
    (tmp_path / "rows.txt").write_text("\n".join(reversed(TEXTS)) + "\n\n", encoding="utf-8")
    for name, empty in (("rows.csv", 0), ("rows.txt", 1)):
        done = subprocess.run(
            [sys.executable, folder / "predict.py", "--file", tmp_path / name, "--threads", "0"], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines[: len(TEXTS)] == alone[::-1]
        assert [list(line) for line in lines[len(TEXTS) :]] == [["error"]] * empty


def test_what_has_no_prediction_is_said(folder: Path) -> None:
    model = program_of(folder).Model(folder)
    with pytest.raises(ValueError, match="would be a guess"):
        model.predict("   ")
    with pytest.raises(ValueError, match=r"a row has 1 text\(s\), and 2 were given"):
        model.predict("the cat", "the dog")
    with pytest.raises(ValueError, match="one task, without a name"):
        model.use("other")


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([*WORDS, "[SEP]", "what"]), min_size=1, max_size=30),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30),
    st.integers(5, 40),
    st.sampled_from(["left", "right"]),
    st.booleans(),
)
def test_the_program_cuts_texts_and_pairs_as_a_fit_does(
    a: list[str], b: list[str], most: int, side: str, pair: bool
) -> None:
    tokenizer = word_tokenizer(segments=True)
    tokenizer.truncation_side = side
    texts = (" ".join(a), " ".join(b)) if pair else (" ".join(a),)
    read = tokenize(tuple([text] for text in texts), tokenizer, most)
    model = Model.__new__(Model)
    model.about = {"max_length": most, "cut": side}
    encoding = tokenizer.backend_tokenizer.encode(*texts)
    kept = model.kept(encoding)
    assert np.array(encoding.ids)[kept].tolist() == read.ids[0].tolist()
    assert read.type_ids is not None
    assert np.array(encoding.type_ids)[kept].tolist() == read.type_ids[0].tolist()


def test_without_the_extra_it_is_named(
    command: Any, run_of: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("onnx") else find(name))
    code, _, err = command("export", run_of(), "--to", "onnx", "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'trimtab[onnx]'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--int8", "block"), "did you mean blocks"),
        (("--rows", "5"), "give --int8 auto too"),
        (("--int8", "auto", "--rows", "0"), "--rows 0: at least 1"),
        (("--int8", "auto"), "Give a file of labelled rows with --data"),
        (("--int8", "auto", "--data", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_wrong_options_are_told(
    command: Any, run_of: Callable[..., Path], tmp_path: Path, options: Any, said: str
) -> None:
    code, _, err = command("export", run_of(), "--to", "onnx", "--out", tmp_path / "out", *options)
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_merged_has_no_8_bit_forms(run_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the form merged has no option int8"):
        export(run_of(), "merged", tmp_path / "out", int8="auto")


@pytest.mark.slow
def test_a_graph_that_predicts_otherwise_is_refused(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    whole = onnx_graph.graph_of

    def damaged(*arguments: Any) -> Any:
        graph = whole(*arguments)
        bias = next(each for each in graph.graph.initializer if each.name.endswith("LayerNorm.bias"))
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 0.1).tobytes()
        return graph

    monkeypatch.setattr(onnx_graph, "graph_of", damaged)
    with pytest.raises(InputError, match="the graph of the family bert predicts otherwise than the run"):
        export(run_of(), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_both_8_bit_forms_are_scored_and_the_fastest_good_one_is_kept(
    encoder_of: Callable[[str], Any], tmp_path: Path, command: Any
) -> None:
    rows = [{"text": text, "label": "cat" if "cat" in text else "none"} for text in sentences(80, 3)]
    table = write_csv(tmp_path / "rows.csv", rows)
    encoder = load(make_encoder_folder("bert", tmp_path / "encoder"))
    fit(encoder, str(table), "layer_norms", epochs=1, out=tmp_path / "run", compute="float32")
    out = tmp_path / "out"
    code, printed, err = command(
        "export", tmp_path / "run", "--to", "onnx", "--int8", "auto", "--rows", "7", "--out", out, "--json"
    )
    assert code == 0, err
    about = json.loads((out / "labels.json").read_text())
    forms = {each["form"]: each for each in about["int8"]["forms"]}
    assert list(forms) == ["float32", "dynamic", "blocks"]
    assert about["form"] == about["int8"]["kept"] != "float32"
    assert list(about["int8"]["rows"].values()) == [7]
    assert forms[about["form"]]["megabytes"] == round((out / "model.onnx").stat().st_size / 1e6, 1)
    assert "(kept)" in err
    assert "(kept)" in (out / "card.md").read_text()
    assert {path.suffix for path in out.iterdir()} == {".onnx", ".json", ".md", ".py"}
    assert json.loads(printed.splitlines()[-1]) == {"out": str(out)}


@pytest.mark.slow
def test_a_form_that_is_asked_for_needs_no_rows(run_of: Callable[..., Path], tmp_path: Path) -> None:
    out = export(run_of(), "onnx", tmp_path / "out", int8="blocks")
    about = json.loads((out / "labels.json").read_text())
    assert about["form"] == "blocks"
    assert "has not been scored" in (out / "card.md").read_text()
    exact = {row: each["probabilities"] for row, each in zip(TEXTS, expected(run_of(), TEXTS), strict=True)}
    model = program_of(out).Model(out)
    for text in TEXTS:
        assert model.predict(text)["probabilities"] == pytest.approx(exact[text], abs=0.05)


def test_the_form_that_loses_too_much_is_not_taken_however_fast() -> None:
    def form(name: str, lost: float, milliseconds: float) -> onnx_scores.FormScore:
        return onnx_scores.FormScore(name, 1.0, {"t": 0.9}, {"t": lost}, milliseconds)

    full = form("float32", 0.0, 8.0)
    assert onnx_scores._chosen([full, form("dynamic", 0.2, 3.0), form("blocks", 0.0, 5.0)]) == "dynamic"
    assert onnx_scores._chosen([full, form("dynamic", 0.4, 3.0), form("blocks", 0.3, 5.0)]) == "blocks"
    assert onnx_scores._chosen([full, form("dynamic", float("nan"), 3.0), form("blocks", -1.0, 5.0)]) == "blocks"
    with pytest.raises(
        InputError, match="int8 is not for this task.*dynamic loses 0.40 points and blocks loses 0.50 points"
    ):
        onnx_scores._chosen([full, form("dynamic", 0.4, 3.0), form("blocks", 0.5, 5.0)])


def test_points_are_hundredths_or_per_cent_where_a_score_has_no_end() -> None:
    assert onnx_scores._lost(0.90, 0.91, "accuracy") == pytest.approx(1.0)
    assert onnx_scores._lost(0.92, 0.91, "accuracy") == pytest.approx(-1.0)
    assert onnx_scores._lost(2.1, 2.0, "mean_absolute_error") == pytest.approx(5.0)


def test_the_blocks_keep_the_head_in_float32(folder: Path, tmp_path: Path) -> None:
    import onnx

    graph = onnx.load(folder / "model.onnx")
    for name, write in onnx_int8.FORMS.items():
        write(graph, tmp_path / f"{name}.onnx")
        made = onnx.load(tmp_path / f"{name}.onnx")
        kinds = {each.op_type for each in made.graph.node}
        assert {"dynamic": "MatMulInteger", "blocks": "MatMulNBits"}[name] in kinds
        matrices = [each for each in made.graph.initializer if len(each.dims) == 2]
        heads = [each.data_type for each in matrices if 3 in each.dims]  # classes; some call it otherwise, and turn it
        assert heads == [onnx.TensorProto.FLOAT]
        tables = [each.data_type for each in matrices if "word_embeddings" in each.name]
        assert tables == [onnx.TensorProto.UINT8]


def test_making_blocks_is_silent_and_leaves_the_logging_of_the_program_alone(tmp_path: Path) -> None:
    program = """
import logging, sys
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from trimtab.exports.onnx_int8 import FORMS
weight = numpy_helper.from_array(np.ones((32, 8), np.float32), "w")
shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 32), ("y", 8))]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g", shapes[:1], shapes[1:], [weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
for name, write in FORMS.items():
    write(model, Path(sys.argv[1]) / f"{name}.onnx")
root = logging.getLogger()
print(root.level, root.handlers, root.disabled)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (f"{logging.WARNING} [] False", "")
    assert {path.name for path in tmp_path.iterdir()} == {"dynamic.onnx", "blocks.onnx"}
