"""Every family of transformers with a classifier of texts: inspected, fitted, used and exported, or refused in one sentence."""

from pathlib import Path

import pytest
from families import FAMILIES, make_family_folder
from small import make_task

from trimtab.changes.inspect import inspect
from trimtab.changes.methods import Full
from trimtab.encoders.encoder import load
from trimtab.errors import InputError
from trimtab.exports.forms import export
from trimtab.inference.predictor import predict
from trimtab.training.fit import fit

NOT_SMALL = {  # cannot be made small by the sizes that families share, or need more than transformers
    "cohere_compass_text", "gemma3", "layoutlmv2", "modernvbert", "qwen3_5", "t5gemma", "t5gemma2", "ultravbert",
    "zamba", "zamba2",
}  # fmt: skip
AT_LOAD = {  # an encoder with a decoder, or none of one table of tokens
    "bart", "bigbird_pegasus", "canine", "mbart", "mt5", "mvp", "perceiver", "plbart", "t5", "umt5",
}  # fmt: skip
AT_FIT = {  # what the model's own code does not do with these sizes, or at all
    "funnel", "jamba", "layoutlmv3", "lilt", "qwen2", "qwen3_5_text", "qwen3_next", "reformer",
}  # fmt: skip
_LONGEST = 400  # letters of a sentence, with the path of a temporary folder in it


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ours that it runs padded, and of deprecations in the model's own code
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NOT_SMALL])
def test_a_family_is_used_from_end_to_end_or_refused_in_one_sentence(family: str, tmp_path: Path) -> None:
    stage, said = used(make_family_folder(family, tmp_path / "encoder"), tmp_path)
    assert stage == ("load" if family in AT_LOAD else "fit" if family in AT_FIT else "done"), said
    assert "\n" not in said
    assert len(said) < _LONGEST


def used(folder: Path, tmp_path: Path) -> tuple[str, str]:
    """How far the encoder in `folder` comes, and why no farther, or why it is not exported with that head."""
    stage = "load"
    try:
        encoder = load(folder)
        inspect(encoder)
        stage = "fit"
        run = fit(
            encoder, make_task(n_train=12, n_validation=6), Full(), epochs=1, out=tmp_path / "run", compute="float32"
        )
        stage = "predict"
        (found,) = predict(run, ["the cat"], encoder)
        assert found.label in ("cat", "dog", "fish")
        stage = "done"
        export(tmp_path / "run", out=tmp_path / "merged", encoder=str(folder))
    except InputError as error:
        return stage, str(error)
    return stage, ""


def test_the_table_names_families_that_there_are() -> None:
    """In another version of transformers some may be gone, and none may stay here unnoticed."""
    assert {"bert", "canine", "reformer"} <= {*FAMILIES}
    assert not AT_LOAD & AT_FIT
