"""Which head a fit has where it is left to choose, and why."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small import CONFIGS, make_encoder_folder, make_task
from transformers import AutoModelForSequenceClassification, ModernBertConfig

import trimtab
from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import load
from trimtab.encoders.pooling import stated_pooling
from trimtab.results.recipe import Recipe
from trimtab.training.fit import fit

LEGACY = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.fixture
def folder(encoder, tmp_path) -> Path:
    """A small BERT whose pooler came with it."""
    return shutil.copytree(encoder.folder, tmp_path / "encoder")


def pooled_by(folder: Path, config: dict, place: str = "1_Pooling", modules: object = None) -> Path:
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "config.json").write_text(json.dumps(config))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("config", "head"),
    [
        (LEGACY | {"pooling_mode_mean_tokens": True}, "linear"),
        (LEGACY | {"pooling_mode_cls_token": True}, "cls"),
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, "linear"),
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_pooling_that_an_encoder_states_is_taken(config, head, folder):
    suited = load(pooled_by(folder, config)).suited_head
    assert (suited.head, suited.others) == (head, ())
    assert "1_Pooling/config.json" in suited.reason


def test_its_place_is_where_modules_json_says(folder):
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "pool", "type": "sentence_transformers.models.Pooling"},
    ]
    pooled_by(folder, LEGACY | {"pooling_mode_cls_token": True}, "pool", modules)
    assert stated_pooling(folder) == ("cls", "pool/config.json")
    modules[1]["path"] = "../encoder/pool"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert stated_pooling(folder) is None, "nothing outside of the folder is read"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pooling_mode": 3}', json.dumps(LEGACY)])
def test_files_that_say_nothing_decide_nothing(text, folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(text)
    assert stated_pooling(folder) is None
    assert load(folder).suited_head.head == "default"


def test_a_pooling_that_is_not_built_is_said(folder):
    suited = load(pooled_by(folder, {"pooling_mode": "max"})).suited_head
    assert (suited.head, suited.others) == ("linear", ("cls",))
    assert "max pooling" in suited.reason


def test_a_pooler_that_the_checkpoint_lacks_is_not_read(tmp_path):
    torch.manual_seed(0)
    folder = make_encoder_folder("bert", tmp_path)
    from transformers import BertForMaskedLM

    BertForMaskedLM(CONFIGS["bert"]()).save_pretrained(folder)
    suited = load(folder).suited_head
    assert suited.head == "linear"
    assert "untrained" in suited.reason


def test_a_family_that_states_its_heads_pooling_keeps_its_head(tmp_path):
    torch.manual_seed(0)
    folder = make_encoder_folder("modernbert", tmp_path)
    config = ModernBertConfig(**CONFIGS["modernbert"]().to_dict() | {"classifier_pooling": "mean"})
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(folder)
    suited = load(folder).suited_head
    assert (suited.head, suited.others) == ("default", ())
    assert "mean pooling (config.json)" in suited.reason


def test_on_few_rows_the_better_probe_decides(encoder):
    """The mean of the token states tells which words a text has; a drawn pooler of the first token hardly does."""
    run = fit(encoder, make_task("multi_label", n_train=200), trimtab.Head())
    assert run.delta.head == "linear"
    assert "cross-validated loss of a linear probe on 200 rows" in run.details["head"]
    many = fit(encoder, make_task("multi_label", n_train=1001, n_validation=8), trimtab.Head())
    assert many.delta.head == "default", "not compared on many rows"


def test_what_is_asked_for_is_taken(encoder, tmp_path):
    run = fit(encoder, make_task(n_train=30), trimtab.Head(), head="cls", out=tmp_path)
    assert run.delta.head == "cls"
    assert "as asked for" in run.details["head"]
    assert Recipe.load(tmp_path / "recipe.toml").settings.head == "cls"


def test_the_reason_is_in_the_delta(folder, tmp_path):
    encoder = load(pooled_by(folder, {"pooling_mode": "cls"}))
    fit(encoder, make_task(n_train=30), trimtab.Head(), out=tmp_path / "run")
    assert "as the encoder was trained (1_Pooling/config.json)" in Delta.load(tmp_path / "run").notes["head"]


def test_one_line_says_it(folder, tmp_path, command):
    from small import write_csv
    from test_kinds import rows_of

    pooled_by(folder, {"pooling_mode": "mean"})
    table = write_csv(tmp_path / "table.csv", rows_of(make_task(n_train=30)))
    code, _, said = command("fit", folder, table, "--method", "head", "--out", tmp_path / "run")
    assert code == 0, said
    assert (
        "head: one linear map on the mean of its token states, as the encoder was trained (1_Pooling/config.json)"
        in said
    )
    assert "solved for: a linear probe" in said
