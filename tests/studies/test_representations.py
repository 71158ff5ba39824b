"""What two encoders have in common, against slow exact references; and masked tokens."""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import CONFIGS, sentences, word_tokenizer
from transformers import AutoModelForMaskedLM

from trimtab.encoders.encoder import Encoder, load
from trimtab.encoders.masked_language_model import masked_language_model
from trimtab.studies.masked_tokens import hidden_positions, masked_bits
from trimtab.studies.representations import debiased_cka, mean_states, neighbours_kept


def slow_hsic(k: torch.Tensor, m: torch.Tensor) -> float:
    """The mean over all quadruples of different texts of K_ij (M_ij + M_qr - 2 M_iq), of which Song's formula is the sum."""
    terms = [
        float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])) for i, j, q, r in permutations(range(len(k)), 4)
    ]  # fmt: skip
    return sum(terms) / len(terms)


def drawn(n: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_is_that_of_all_quadruples() -> None:
    x = drawn(8, 3, 0)
    y = x[:, :2] + 0.5 * drawn(8, 2, 1)
    k, m = x @ x.T, y @ y.T
    expected = slow_hsic(k, m) / math.sqrt(slow_hsic(k, k) * slow_hsic(m, m))
    assert debiased_cka(x, y) == pytest.approx(expected, rel=1e-9)
    assert debiased_cka(x + 1000, y * 7) == pytest.approx(expected, rel=1e-6)  # moved and scaled


def test_cka_of_unrelated_vectors_is_not_biased() -> None:
    found = [debiased_cka(drawn(60, 200, 2 * seed), drawn(60, 200, 2 * seed + 1)) for seed in range(20)]
    assert abs(np.mean(found)) < 0.01  # the plain one has about 0.77 there
    assert debiased_cka(drawn(60, 200, 0), drawn(60, 200, 0)) == pytest.approx(1)
    assert math.isnan(debiased_cka(torch.ones(9, 4), drawn(9, 4, 0)))


def test_neighbours_are_those_by_cosine() -> None:
    before, after = drawn(40, 6, 0), drawn(40, 6, 1)
    found = neighbours_kept(before, after, 5)
    for i in range(len(before)):
        nearest = []
        for vectors in (before, after):
            likeness = {
                j: float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in range(len(vectors)) if j != i
            }
            nearest.append(set(sorted(likeness, key=lambda j: -likeness[j])[:5]))
        assert float(found[i]) == pytest.approx(len(nearest[0] & nearest[1]) / 5)
    assert bool((neighbours_kept(before, 3 * before, 5) == 1).all())


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "mpnet"])
def test_mean_states_are_those_of_texts_alone(family: str, encoder_of: Any) -> None:
    encoder: Encoder = encoder_of(family)
    backbone = encoder.with_head(_TwoClasses, head="linear").base_model.eval()
    inputs = encoder.inputs((sentences(12, seed=1),), 60)
    found = mean_states(backbone, inputs, 0, every_layer=True)
    last = mean_states(backbone, inputs, 0, every_layer=False)
    assert torch.equal(found[-1], last[0])
    for i in range(len(inputs)):
        ids = torch.from_numpy(inputs.take([i]).ids[0]).long()[None]
        with torch.no_grad():
            alone = backbone(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        assert torch.allclose(found[-1, i], alone.last_hidden_state[0].mean(0), atol=1e-5)
        assert torch.allclose(found[1, i], alone.hidden_states[1][0].mean(0), atol=1e-5)


class _TwoClasses:
    kind, classes, centre, standard_deviation = "single_label", ("0", "1"), 0.0, 1.0


def with_its_head(family: str, folder: Path) -> Encoder:
    torch.manual_seed(0)
    config = CONFIGS[family]()
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    word_tokenizer(segments=getattr(config, "type_vocab_size", 0) > 1).save_pretrained(folder)
    return load(folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "modernbert"])
def test_bits_are_those_of_hugging_face(family: str, tmp_path: Path) -> None:
    encoder = with_its_head(family, tmp_path / family)
    model = masked_language_model(encoder)
    assert model is not None
    inputs = encoder.inputs((sentences(9, seed=1),), 60)
    hidden = hidden_positions(inputs, encoder.tokenizer.all_special_ids)
    assert hidden[0].tolist() == hidden_positions(inputs, encoder.tokenizer.all_special_ids)[0].tolist()
    found = masked_bits(model, inputs, hidden, encoder.tokenizer)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path / family).eval()
    for i, at in enumerate(hidden):
        ids = torch.from_numpy(inputs.take([i]).ids[0]).long()
        assert len(at) == max(1, round(0.15 * (len(ids) - 2)))
        assert not {0, len(ids) - 1} & set(at.tolist())
        shown = ids.clone()
        shown[at] = encoder.tokenizer.mask_token_id
        with torch.no_grad():
            likely = theirs(input_ids=shown[None]).logits[0, at].log_softmax(-1)
        assert found[i] == pytest.approx(-float(likely[range(len(at)), ids[at]].sum()) / math.log(2), rel=1e-4)


def test_no_head_that_would_be_random(encoder_of: Any) -> None:
    assert masked_language_model(encoder_of("bert")) is None
    assert masked_language_model(encoder_of("electra")) is None
