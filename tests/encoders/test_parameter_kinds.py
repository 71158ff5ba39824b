"""Layers and kinds of every parameter, on a small model of each family."""

import pytest
from small import FAMILIES, N_LAYERS

from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.parameter_kinds import EMBEDDINGS, KINDS, grid, layers_of, parts_of

LINEAR_KINDS = {"query", "key", "value", "attention_output", "intermediate", "output"}
NORM_KINDS = {"attention_norm", "output_norm", "embedding_norm"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_a_layer_and_a_kind(family, encoder_of):
    model = encoder_of(family).with_head(TWO_CLASSES)
    parts = parts_of(model)
    assert list(parts) == [name for name, _ in model.named_parameters()]
    assert all(part.kind in KINDS and part.kind != "other" for part in parts.values())
    assert {name: part.count for name, part in parts.items()} == {n: p.numel() for n, p in model.named_parameters()}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("modernbert", "albert")])
def test_each_layer_has_every_kind_once(family, encoder_of):
    parts = parts_of(encoder_of(family).with_head(TWO_CLASSES))
    for layer in range(N_LAYERS):
        for kind in LINEAR_KINDS | {"attention_norm", "output_norm"}:
            roles = sorted(part.role for part in parts.values() if part.layer == layer and part.kind == kind)
            assert roles == ["bias", "weight"], (layer, kind)


def test_modernbert_has_fused_attention_and_no_biases_in_its_body(encoder_of):
    parts = parts_of(encoder_of("modernbert").with_head(TWO_CLASSES))
    body = [part for part in parts.values() if not part.is_head]
    assert {part.role for part in body} == {"weight"}
    in_layers = {part.kind for part in body if 0 <= part.layer < N_LAYERS}
    assert in_layers == {
        "query_key_value", "attention_output", "intermediate", "output", "attention_norm", "output_norm",
    }  # fmt: skip
    assert {part.kind for part in body if part.layer == N_LAYERS} == {"encoder_norm"}


def test_albert_shares_its_one_layer(encoder_of):
    model = encoder_of("albert").with_head(TWO_CLASSES)
    layers = layers_of(model)
    assert (layers.count, layers.shared) == (1, True)
    assert {part.kind for part in parts_of(model).values() if part.layer == 0} == LINEAR_KINDS | NORM_KINDS - {
        "embedding_norm"
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_what_the_checkpoint_lacked(family, encoder_of):
    model = encoder_of(family).with_head(TWO_CLASSES)
    heads = {name for name, part in parts_of(model).items() if part.is_head}
    assert model.new_parameters <= heads
    assert not any(name.startswith(model.base_model_prefix + ".") for name in heads - model.new_parameters)


def test_relative_positions_of_deberta_reach_every_layer(encoder_of):
    """A norm of the relative positions must count as below layer 0, or backward would stop too early."""
    parts = parts_of(encoder_of("deberta-v2").with_head(TWO_CLASSES))
    assert parts["deberta.encoder.LayerNorm.weight"].layer == EMBEDDINGS


def test_grid_sums_to_all_parameters(encoder):
    parts = parts_of(encoder.with_head(TWO_CLASSES))
    layers, kinds, counts = grid(parts, {name: part.count for name, part in parts.items()})
    assert layers == ["embeddings", "0", "1", "2", "after"]
    assert len(counts) == len(layers)
    assert all(len(row) == len(kinds) for row in counts)
    assert sum(map(sum, counts)) == sum(part.count for part in parts.values())
