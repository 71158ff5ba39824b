"""A linear head on the first token, merged into the head that transformers' class of the family has."""

import pytest
import torch
from small import FAMILIES, make_task, sentences
from transformers import AutoModelForSequenceClassification

import trimtab
from trimtab.errors import InputError

IGNORED = "ignore:.*cannot run on padding-free batches"
OTHERS = ("modernbert",)  # a norm stands in its head's way


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("kind", ["single_label", "regression"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in OTHERS])
def test_transformers_answers_what_the_run_answers(family, kind, encoder_of, tmp_path):
    encoder, task = encoder_of(family), make_task(kind, n_train=60)
    run = trimtab.fit(
        encoder, task, trimtab.LayerNorms(), head="cls", epochs=2, lr=1e-2, compute="float32", out=tmp_path / "run"
    )
    folder = trimtab.export(tmp_path / "run", to="merged", out=tmp_path / "plain", encoder=encoder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = encoder.tokenizer(sentences(20, 99), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected, found = run.delta.attach(encoder)(**inputs).logits, model(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    if kind == "single_label":
        assert list(model.config.id2label.values()) == list(task.classes)


@pytest.mark.parametrize("family", OTHERS)
def test_a_head_with_no_place_for_it_is_refused(family, encoder_of):
    encoder = encoder_of(family)
    run = trimtab.fit(encoder, make_task(n_train=30), trimtab.Head(), head="cls")
    with pytest.raises(InputError, match=f"family \\({family}\\) has no place .* fit with --head default to merge"):
        trimtab.merge(encoder, run)


@pytest.mark.parametrize(
    ("options", "why"), [({"head": "linear"}, "mean of the token states"), ({"pairs": "apart"}, "apart")]
)
def test_what_no_class_has_is_refused_with_the_way_that_works(options, why, encoder):
    run = trimtab.fit(encoder, make_task(n_train=30, pairs=True), trimtab.Head(), **{"pairs": "together"} | options)
    with pytest.raises(InputError, match=f"{why}.*--head default"):
        trimtab.merge(encoder, run)
