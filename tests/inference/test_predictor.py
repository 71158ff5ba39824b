"""A Predictor as programs use it: given tables, copied, sent to other processes, forked."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small import make_encoder_folder, make_task

from trimtab.changes.methods import LayerNorms
from trimtab.encoders.encoder import load
from trimtab.errors import InputError
from trimtab.inference.predictor import Predictor, predict
from trimtab.training.fit import fit

TEXTS = ["the red cat runs", "a blue dog sleeps"]


@pytest.fixture
def predictor(encoder) -> Predictor:
    return Predictor(fit(encoder, make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1), encoder)


@pytest.mark.parametrize("table", [pd.DataFrame({"text": TEXTS, "label": ["a", "b"]}), {"text": TEXTS}])
def test_the_names_of_columns_are_not_taken_for_texts(table, predictor):
    with pytest.raises(InputError, match=r"not a table.*table\['text'\]"):
        predict(predictor, table)
    assert predict(predictor, table["text"]) == predict(predictor, TEXTS)


def test_a_set_has_no_order_for_predictions(predictor):
    with pytest.raises(InputError, match="a set has no order"):
        predict(predictor, set(TEXTS))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda predictor: pickle.loads(pickle.dumps(predictor))])
def test_a_copy_predicts_the_same(copied, predictor):
    assert predict(copied(predictor), TEXTS) == predict(predictor, TEXTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_predicts_the_same(tmp_path: Path):
    """As a worker of gunicorn does whose parent has predicted with several threads: OpenMP waits for ever for those."""
    folder = make_encoder_folder("bert", tmp_path / "encoder")
    fit(load(folder), make_task(n_train=16, n_validation=8), LayerNorms(), epochs=1, out=tmp_path / "run")
    found = subprocess.run(
        [sys.executable, Path(__file__).with_name("forking.py"), tmp_path / "run"],
        env=os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.stdout.strip() == "same", found.stderr[-2000:]
