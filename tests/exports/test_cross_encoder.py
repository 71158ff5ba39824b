"""What is exported for sentence-transformers, read by it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deltas import make_delta
from small import EVERY, make_task

from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.exports.forms import FORMS, export
from trimtab.inference.predictor import predict
from trimtab.results.run_folder import EXPORTS

PAIRS = [("the old cat", "a fish"), ("dog dog", "the old cat"), ("a", "fish and a dog " * 30)]
READ = """
import sys
import numpy as np
from sentence_transformers import CrossEncoder
model = CrossEncoder(sys.argv[1], device="cpu")
pairs = [tuple(pair.split("|")) for pair in sys.argv[4:]]
np.save(sys.argv[2], model.predict(pairs, show_progress_bar=False, apply_softmax=sys.argv[3] == "single_label"))
"""


@pytest.mark.slow  # another process, for sentence-transformers takes seconds to import
@pytest.mark.parametrize("kind", ["single_label", *(["multi_label", "regression"] if EVERY else [])])
def test_a_cross_encoder_says_what_the_run_says(encoder: Encoder, tmp_path: Path, kind: str) -> None:
    make_delta(encoder, make_task(kind, pairs=True), "layer_norms", 1, head="cls", max_length=24).save(tmp_path / "run")
    folder = export(tmp_path / "run", "sentence-transformers", encoder=encoder)
    assert folder == tmp_path / "run" / "sentence-transformers"
    command = [sys.executable, "-c", READ, folder, tmp_path / "found.npy", kind, *("|".join(pair) for pair in PAIRS)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    ours = predict(tmp_path / "run", PAIRS, encoder)
    expected = [each.value if kind == "regression" else [*(each.probabilities or {}).values()] for each in ours]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), np.array(expected), atol=5e-3)  # ours in bfloat16


def test_runs_of_one_text_are_refused_with_the_form_that_works(encoder: Encoder, tmp_path: Path) -> None:
    make_delta(encoder, make_task(), "layer_norms", 1, head="cls").save(tmp_path / "run")
    with pytest.raises(InputError, match="one text: export it with --to merged"):
        export(tmp_path / "run", "sentence-transformers", encoder=encoder)
    assert not (tmp_path / "run" / "sentence-transformers").exists()


def test_every_form_is_a_folder_that_a_new_run_does_not_take_over() -> None:
    assert set(FORMS) == set(EXPORTS)
