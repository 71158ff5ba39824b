"""Batches that lie in one place: what is there is what `pack` would have made, with a padding text behind it."""

import numpy as np
import pytest
import torch
from small import CONFIGS, FAMILIES
from transformers import AutoModelForSequenceClassification

from trimtab.encoders.inputs import ModelInputs
from trimtab.engine.packed import PackedModel, pack
from trimtab.engine.patches import Patches
from trimtab.engine.sparse_gradient import SparseGradients
from trimtab.engine.static_batch import Slots, room_for


@pytest.mark.parametrize("tokens", [1, 63, 64, 700, 1024, 5000, 8191, 70_000])
def test_room_is_a_little_more_than_what_is_needed(tokens: int) -> None:
    room = room_for(tokens)
    assert tokens < room <= tokens + max(64, tokens / 8)
    assert room_for(room - 1) == room  # everything up to it has the same shape


def test_few_rooms_per_doubling() -> None:
    assert len({room_for(tokens) for tokens in range(4096, 8192)}) <= 17


@pytest.mark.parametrize("family", [f for f in FAMILIES if f in ("bert", "roberta", "distilbert", "modernbert")])
def test_slots_hold_the_packed_batch_and_padding(family: str) -> None:
    model = AutoModelForSequenceClassification.from_config(CONFIGS[family]())
    draw, labels = np.random.default_rng(0), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    has_types = family == "bert"
    packed = PackedModel(model, Patches(), SparseGradients())
    slots = Slots(packed, 3, 128, 64, has_types=has_types, labels=labels)
    for lengths in ([5, 60, 7], [60, 2, 33]):  # what was there before is gone
        ids = [draw.integers(5, 15, n).astype(np.int32) for n in lengths]
        types = [draw.integers(0, 2, n).astype(np.int32) for n in lengths] if has_types else None
        inputs = ModelInputs(ids, types)
        slots.fill(inputs, labels, 0.25)
        missing = 128 - sum(lengths)
        filling = np.full(missing, model.config.pad_token_id or 0, np.int32)
        zeros = None if types is None else [*types, np.zeros(missing, np.int32)]
        expected = pack(model, ModelInputs([*ids, filling], zeros))
        found = slots.batch()
        n = sum(lengths)
        assert torch.equal(found.input_ids, expected.input_ids)
        assert torch.equal(found.position_ids[:, :n], expected.position_ids[:, :n])
        assert found.position_ids[0, n:].unique().tolist() == expected.position_ids[0, :1].tolist()
        if has_types:
            assert torch.equal(found.token_type_ids, expected.token_type_ids)
        assert len(found) == 4
        assert found.layout is not None
        assert found.layout.ends().tolist() == [0, *np.cumsum([*lengths, missing]).tolist()]
        assert found.layout.first_rows().tolist() == expected.starts.tolist()
        assert found.layout.longest >= max(*lengths, missing)
        hidden = torch.randn(128, 3)
        parts = hidden.split([*lengths, missing])
        torch.testing.assert_close(found.layout.means(hidden), torch.stack([part.mean(0) for part in parts]))
        assert torch.equal(slots.labels, labels)
        assert float(slots.weight) == 0.25
