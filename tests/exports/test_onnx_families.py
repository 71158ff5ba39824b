"""Families, heads and kinds of task as ONNX: each predicts what the run does, or is refused after it has been tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import EVERY, sentences

from trimtab.errors import InputError
from trimtab.exports.forms import export
from trimtab.exports.onnx_folder import program_of
from trimtab.inference.predictor import Predictor, predict

MUST = ("bert", "roberta", "distilbert", "electra", "modernbert")
CAN = ("deberta-v2", *(("xlm-roberta", "mpnet", "albert", "roformer") if EVERY else ()))
CANNOT = ("xlnet",)
SELDOM: tuple[tuple[str, bool, Any], ...] = (
    ("single_label", False, {"head": "default"}),
    ("single_label", False, {"head": "cls"}),
    ("single_label", True, {"head": "linear", "pairs": "apart"}),
    ("multi_label", False, {"threshold": 0.7}),
    ("regression", False, {"head": "linear", "method": "full"}),
)


def same(run: Path, out: Path, rows: list[Any], bound: float = 1e-5) -> None:
    """Asserts that the folder's program predicts what the run does in float32, up to `bound` and a hundredth of what rows differ
    by: a random encoder may say nearly the same of all."""
    predictor = Predictor(run)
    predictor.prepared.use("float32")
    model = program_of(out).Model(out)
    ours, theirs = [], []
    for row, each in zip(rows, predict(predictor, rows), strict=True):
        found, own = model.predict(*(row if isinstance(row, tuple) else (row,))), each.as_json()
        numbers = [
            [value["value"]] if "value" in value else list(value["probabilities"].values()) for value in (found, own)
        ]
        theirs.append(numbers[0])
        ours.append(numbers[1])
        if "label" in own:
            assert found["label"] == (list(own["label"]) if isinstance(own["label"], tuple) else own["label"])
    spread = float(np.ptp(np.array(ours), axis=0).max())
    assert np.abs(np.array(ours) - np.array(theirs)).max() <= min(bound, 0.01 * spread)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize("family", [*MUST, *CAN])
def test_a_family_predicts_what_the_run_does_at_any_length(
    family: str, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of(family=family, head="default")
    out = export(run, "onnx", tmp_path / "out")
    # A head that begins as a probe of random states has weights of hundreds, which multiply float32's rounding.
    same(run, out, ["cat", *sentences(6, 11), "the old cat sleeps " * 7, "a red fish " * 30], 2e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
@pytest.mark.parametrize("family", CANNOT)
def test_a_family_that_cannot_be_exported_is_refused_by_name(
    family: str, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of(family=family, head="default", head_start="random")
    with pytest.raises(InputError, match=f"the family {family} cannot be exported to ONNX: [^\x1b]*--to merged"):
        export(run, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pairs", "settings"),
    [
        ("single_label", False, {"head": "linear", "method": "lora:rank=2"}),
        ("single_label", True, {"head": "default", "pairs": "together"}),
        ("regression", True, {"head": "linear", "pairs": "apart"}),
        ("multi_label", False, {"threshold": 0.4, "at_least_one": True}),
        *(SELDOM if EVERY else ()),
    ],
)
def test_every_head_and_kind_of_task(
    kind: str, pairs: bool, settings: Any, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of(kind, of_pairs=pairs, **settings)
    out = export(run, "onnx", tmp_path / "out")
    texts = ["cat", *sentences(5, 12), "the old cat sleeps " * 7, "a red fish " * 30]
    rows = list(zip(texts, texts[::-1], strict=True)) if pairs else texts
    same(run, out, rows, 2e-4 if settings.get("head") == "default" else 1e-5)
