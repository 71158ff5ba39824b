"""What each method selects, on every family, and what it refuses."""

import numpy as np
import pytest
import torch
from small import FAMILIES, N_LAYERS, make_encoder_folder, make_task
from torch import nn

from trimtab.changes.contract import Addition, add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.lora import Lora
from trimtab.changes.method_text import parse_method
from trimtab.changes.methods import Biases, Chosen, Full, Head, LastLayers, LayerNorms, Union
from trimtab.changes.selection import Selection
from trimtab.changes.top import FisherTop, MovedTop, Random
from trimtab.encoders.encoder import load
from trimtab.encoders.heads import TWO_CLASSES
from trimtab.encoders.parameter_kinds import parts_of, plain_name
from trimtab.errors import InputError
from trimtab.results.recipe import Settings
from trimtab.training.set_up import set_up


def names_of(selection: Selection) -> set[str]:
    return set(selection.elements)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_and_head_cover_everything(family, encoder_of):
    model = encoder_of(family).with_head(TWO_CLASSES)
    assert Full().attach(model).count == sum(p.numel() for p in model.parameters())
    assert names_of(Head().attach(model)) == {name for name, part in parts_of(model).items() if part.is_head}


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_norms_are_the_norm_modules_of_the_body(family, encoder_of):
    model = encoder_of(family).with_head(TWO_CLASSES)
    expected = {
        f"{path}.{name}"
        for path, module in model.base_model.named_modules(prefix=model.base_model_prefix)
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    assert names_of(LayerNorms().attach(model)) == expected - model.new_parameters


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "modernbert"])
def test_biases_are_all_vectors_called_bias(family, encoder_of):
    model = encoder_of(family).with_head(TWO_CLASSES)
    prefix = model.base_model_prefix + "."
    expected = {name for name, _ in model.named_parameters() if name.endswith(".bias") and name.startswith(prefix)}
    assert names_of(Biases().attach(model)) == expected - model.new_parameters


def test_biases_of_some_kinds(encoder):
    chosen = Biases("query+intermediate").attach(encoder.with_head(TWO_CLASSES))
    assert chosen.count == N_LAYERS * (32 + 48)


def test_names_of_several_kinds_count_beside_others(encoder):
    assert Biases("query+all").attach(encoder.with_head(TWO_CLASSES)) == Biases().attach(encoder.with_head(TWO_CLASSES))
    chosen = [
        Lora(rank=2, targets=targets).attach(encoder.with_head(TWO_CLASSES)).count
        for targets in ("default", "output", "default+output", "query+value+output")
    ]
    assert chosen[0] + chosen[1] == chosen[2] == chosen[3]


@pytest.mark.parametrize("make", [Random, FisherTop])
@pytest.mark.parametrize("count", [1e2, "5", True])
def test_counts_are_whole_numbers(make, count):
    with pytest.raises(InputError, match="count=.* must be a whole number"):
        make(count=count)


@pytest.mark.parametrize("k", [1.5, "2", True])
def test_last_layers_takes_a_whole_number(k):
    with pytest.raises(InputError, match="last_layers:k=.* must be a whole number"):
        LastLayers(k)


def test_a_union_holds_one_lora():
    with pytest.raises(InputError, match="may hold one lora"):
        Union((Lora(), Union((Biases(), Lora(rank=4)))))


def test_layer_norm_options_part_the_whole(encoder):
    model = encoder.with_head(TWO_CLASSES)
    whole = LayerNorms().attach(model)
    assert whole == LayerNorms(what="weight").attach(model) | LayerNorms(what="bias").attach(model)
    in_layers = LayerNorms("attention").attach(model) | LayerNorms("output").attach(model)
    assert {whole.parts[name].kind for name in names_of(whole - in_layers)} == {"embedding_norm"}


def test_last_layers(encoder):
    model = encoder.with_head(TWO_CLASSES)
    chosen = LastLayers(2).attach(model)
    assert chosen.first_layer == N_LAYERS - 2
    assert "bert.pooler.dense.weight" in chosen.elements
    with pytest.raises(InputError, match="has 3 layers"):
        LastLayers(4).attach(model)


def test_albert_refuses_last_layers(encoder_of):
    with pytest.raises(InputError, match="one shared layer"):
        LastLayers(1).attach(encoder_of("albert").with_head(TWO_CLASSES))


def test_modernbert_refuses_biases(encoder_of):
    with pytest.raises(InputError, match="no biases"):
        Biases().attach(encoder_of("modernbert").with_head(TWO_CLASSES))


def test_random_has_the_count_asked_for_and_stays_within(encoder):
    model = encoder.with_head(TWO_CLASSES)
    within = LayerNorms("output")
    torch.manual_seed(0)
    chosen = Random(count=50, within=within).attach(model)
    other = Random(count=50, within=within).attach(model)
    assert chosen.count == other.count == 50
    assert chosen != other
    assert not chosen - within.attach(model)
    everything = Random(share=1.0, within=within).attach(model)
    assert everything == within.attach(model)


def test_random_leaves_embedding_tables_and_head_alone(encoder):
    chosen = Random(share=0.5).attach(encoder.with_head(TWO_CLASSES))
    assert chosen.first_layer == 0
    assert chosen.head.count == 0


def test_random_beside_lora_draws_from_the_encoder_alone(encoder):
    union = Union((Random(count=400), Lora()))
    chosen = union.attach(encoder.with_head(TWO_CLASSES)).backbone
    drawn = {name: at for name, at in chosen.elements.items() if chosen.parts[name].kind != "lora"}
    assert sum(map(len, drawn.values())) == 400
    assert all(at is None for name, at in chosen.elements.items() if name not in drawn)


@pytest.mark.parametrize("kind", [Random, FisherTop, MovedTop])
def test_what_chooses_within_everything_leaves_lora_beside_it_alone(kind, encoder):
    task = make_task(n_train=16, n_validation=4)
    method = Union((kind(count=400, within=Full()), Lora(rank=2)))
    chosen = set_up(encoder, task, method, Settings(batch_size=8)).selection.backbone
    drawn = {name: at for name, at in chosen.elements.items() if chosen.parts[name].kind != "lora"}
    assert sum(map(len, drawn.values())) == 400
    assert all(at is None for name, at in chosen.elements.items() if name not in drawn)


def test_a_saved_selection_of_matrices_finds_them_within_lora(encoder, tmp_path):
    path = tmp_path / "chosen.safetensors"
    chosen = Random(count=400).attach(encoder.with_head(TWO_CLASSES))
    chosen.save(path)
    again = Union((Chosen(str(path)), Lora(rank=2))).attach(encoder.with_head(TWO_CLASSES)).backbone
    assert any(".base_layer." in name for name in again.elements)
    positions = {plain_name(name): at for name, at in again.elements.items() if again.parts[name].kind != "lora"}
    assert positions.keys() == chosen.elements.keys()
    assert all(np.array_equal(positions[name], at) for name, at in chosen.elements.items())


def test_random_is_uniform(encoder):
    """Each element is drawn equally often: over 400 draws of half, all counts lie within 6 standard deviations."""
    model, within = encoder.with_head(TWO_CLASSES), LayerNorms("output", "bias")
    torch.manual_seed(1)
    hits = torch.zeros(within.attach(model).count)
    for _ in range(400):
        offset = 0
        chosen = Random(share=0.5, within=within).attach(model)
        for name in within.attach(model).elements:
            at = chosen.elements.get(name, [])
            hits[torch.as_tensor(range(32) if at is None else at, dtype=torch.long) + offset] += 1
            offset += 32
    assert hits.sum() == 400 * len(hits) / 2
    assert (hits - 200).abs().max() < 60


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Random(), "either count= or share="),
        (Random(count=1, share=0.1), "either count= or share="),
        (Random(count=10**9), "from 1 to the"),
        (LayerNorms("first"), "layer_norms:which=first is unknown"),
        (Biases("quary"), "biases:which=quary is unknown"),
        (Lora(rank=0), "rank >= 1"),
        (Lora(targets="pooler+x"), "lora:targets=x is unknown"),
    ],
)
def test_bad_options_are_refused(method, message, encoder):
    with pytest.raises(InputError, match=message):
        method.attach(encoder.with_head(TWO_CLASSES))


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_adds_low_rank_updates_that_start_at_zero(family, encoder_of):
    encoder = encoder_of(family)
    model = encoder.with_head(TWO_CLASSES).eval()
    inputs = encoder.tokenizer(["the old cat sleeps"], return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
        chosen = Lora(rank=2).attach(model)
        torch.testing.assert_close(model(**inputs).logits, before, rtol=0, atol=0)
    assert {chosen.parts[name].kind for name in names_of(chosen)} == {"lora"}
    assert {part.kind for part in parts_of(model).values()} >= {"attention_output", "intermediate", "output"}


def test_union_with_lora_names_the_parameters_as_they_become(encoder):
    model = encoder.with_head(TWO_CLASSES)
    chosen = Union((Biases(), Lora(rank=2))).attach(model)
    assert names_of(chosen) <= {name for name, _ in model.named_parameters()}
    assert chosen.count == Biases().attach(encoder.with_head(TWO_CLASSES)).count + N_LAYERS * 2 * (2 * 32 * 2)


def test_lora_within_a_union_of_unions_is_found_by_a_delta(encoder):
    nested = Union((Biases(), Union((LayerNorms(), Lora(rank=2)))))
    model = encoder.with_head(TWO_CLASSES)
    task = {"kind": "single_label", "classes": ["a", "b"], "name": "two"}
    selection, additions = add_and_select(nested, model)
    delta = Delta.extract(model, selection, encoder, task, nested, additions=additions, head="default")
    assert delta.additions == (Addition("lora", {"rank": 2, "alpha": 16.0, "dropout": 0.0, "targets": "default"}),)
    assert delta.attach(encoder)


@pytest.mark.parametrize("given", [{"rank": 2.5}, {"rank": "8"}, {"alpha": "much"}, {"dropout": None}, {"rank": True}])
def test_lora_takes_numbers(given):
    with pytest.raises(InputError, match=f"lora:{next(iter(given))}="):
        Lora(**given)
    assert isinstance(Lora(rank=np.int64(4)).rank, int)  # pyright: ignore[reportArgumentType]


def test_methods_are_values():
    assert LayerNorms() == LayerNorms("all")
    assert len({LayerNorms(), LayerNorms(), Lora(rank=4), Lora(rank=8)}) == 3


def test_methods_work_on_any_module():
    """No transformers model needed: the mathematics is testable on plain maps."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert Full().attach(model).count == 12 + 4 + 8 + 8 + 2
    assert names_of(LayerNorms().attach(model)) == {"1.weight", "1.bias"}


def test_a_subset_is_trained_like_what_it_is_a_part_of():
    norms, matrices = Random(share=0.1, within=LayerNorms()), Random(count=5, within=Full())
    assert norms.defaults == FisherTop(share=0.1).defaults == FisherTop(count=998).defaults
    assert norms.defaults.lr == 2.7e-2  # where a random tenth was best
    assert matrices.defaults == Random(count=5).defaults == FisherTop(count=5, within=LastLayers()).defaults
    assert matrices.defaults.lr > 10 * Full().defaults.lr  # scattered elements of matrices may go far


def test_the_rate_of_scattered_elements_falls_with_their_number() -> None:
    rates = [Random(count=count).defaults.lr for count in (10, 9_984, 100_000, 10_646_784)]
    assert rates[0] == rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(Full.defaults.lr)
    by_share = [Random(share=share).defaults.for_width(384).lr for share in (1e-6, 9_984 / 10_646_784, 0.1, 1.0)]
    assert by_share[0] == pytest.approx(by_share[1]) == rates[1]
    assert by_share[1] > by_share[2] > by_share[3] == Full.defaults.lr
    assert Random(share=1.0).defaults.for_width(768).lr == Full.defaults.lr / 2


def test_the_rate_of_elements_of_vectors_falls_with_their_share() -> None:
    rates = [Random(share=share, within=LayerNorms()).defaults.lr for share in (1e-4, 0.05, 0.1, 0.5, 1.0)]
    assert rates[0] == rates[1] > rates[2] > rates[3] > rates[4] == LayerNorms.defaults.lr
    both = Union((LayerNorms(), Biases()))
    assert Random(count=both.defaults.count, within=both).defaults.lr == both.defaults.lr
    assert Random(count=10**6, within=LayerNorms()).defaults.lr == LayerNorms.defaults.lr


@pytest.mark.parametrize(
    "text",
    [
        "random:count=0",
        "random:count=-5",
        "random:share=0.0",
        "random:share=1.5",
        "fisher_top:count=0",
        "moved_top:share=2.0",
    ],
)
def test_sizes_that_no_selection_has_are_refused_at_once(text: str) -> None:
    with pytest.raises(InputError, match=r"(count|share)=\S+ must be"):
        parse_method(text)


def test_a_kind_that_the_encoder_does_not_have_is_named_and_not_skipped(tmp_path):
    gte = load(make_encoder_folder("gte", tmp_path / "gte")).with_head(TWO_CLASSES, head="default")
    for method in (Biases("query+intermediate"), FisherTop(count=3, within=Biases("query+intermediate"))):
        with pytest.raises(
            InputError, match="which=query.intermediate: .* no biases of kind intermediate; it has .*query, key"
        ):
            method.attach(gte)
    with pytest.raises(
        InputError, match="targets=query.pooler: .* no linear maps of kind pooler; it has query, key, value"
    ):
        Lora(targets="query+pooler").attach(gte)
    assert Biases("query").attach(gte).count == N_LAYERS * 32


def test_debertas_biases_of_query_and_value_are_such(tmp_path):
    deberta = load(make_encoder_folder("deberta", tmp_path / "deberta")).with_head(TWO_CLASSES)
    chosen = Biases("query+value").attach(deberta).elements
    assert sorted(name.rpartition(".")[2] for name in chosen) == ["q_bias"] * N_LAYERS + ["v_bias"] * N_LAYERS
    assert Lora().attach(deberta).backbone.count > 0, "of the map that query, key and value share"


LAST = {  # family -> what the names of the last two of its three layers begin with, and of what follows them
    "bert": ("bert.encoder.layer.1.", "bert.encoder.layer.2.", "bert.pooler."),
    "distilbert": ("distilbert.transformer.layer.1.", "distilbert.transformer.layer.2."),
    "modernbert": ("model.layers.1.", "model.layers.2.", "model.final_norm."),
}


@pytest.mark.parametrize("make", [LayerNorms, Biases, Lora])
@pytest.mark.parametrize("family", LAST)
def test_the_last_layers_of_a_method_are_what_it_selects_there_without_a_limit(family, make, encoder_of):
    if family == "modernbert" and make is Biases:
        pytest.skip("has no biases")
    model, whole_model = (encoder_of(family).with_head(TWO_CLASSES) for _ in range(2))
    chosen, whole = make(last=2).attach(model), make().attach(whole_model)
    assert names_of(chosen) == {name for name in names_of(whole) if name.startswith(LAST[family])}
    assert chosen.first_layer == N_LAYERS - 2
    assert 0 < chosen.count < whole.count
    if make is Lora:
        added = {name for name, part in parts_of(model).items() if part.kind == "lora"}
        assert added == names_of(chosen), "none in the first layer"
    else:
        assert make(last=N_LAYERS).attach(model).first_layer == 0, "the embeddings' norm is below all layers"


def test_the_norm_behind_modernberts_layers_is_above_the_last_one(encoder_of):
    model = encoder_of("modernbert").with_head(TWO_CLASSES)
    assert {"model.final_norm.weight", "model.layers.2.mlp_norm.weight"} <= names_of(LayerNorms(last=1).attach(model))
    assert "model.final_norm.weight" not in LayerNorms("output", last=1).attach(model).elements
    assert "model.embeddings.norm.weight" not in LayerNorms(last=N_LAYERS).attach(model).elements


def test_other_options_hold_within_the_last_layers(encoder):
    model = encoder.with_head(TWO_CLASSES)
    assert LayerNorms("output", "bias", last=2).attach(model).count == 2 * 32
    assert Biases("query+intermediate", last=1).attach(model).count == 32 + 48
    assert Lora(rank=2, targets="output", last=1).attach(model).count == 2 * (48 + 32)


@pytest.mark.parametrize("make", [LayerNorms, Biases, Lora])
@pytest.mark.parametrize("last", [1.5, 2.0, "2", True, 0, -1])
def test_the_number_of_last_layers_is_a_whole_one_from_1(make, last):
    with pytest.raises(InputError, match=r":last=\S+ must be (a whole number|at least 1); leave it out for all layers"):
        make(last=last)
    assert make(last=np.int64(2)).options()["last"] == 2
    assert type(make(last=np.int64(2)).last) is int


@pytest.mark.parametrize("make", [LayerNorms, Biases, Lora])
def test_more_layers_than_there_are_and_one_shared_layer_have_no_last_ones(make, encoder_of):
    with pytest.raises(InputError, match=r":last=4 does not fit: the encoder has 3 layers; give 1 to 3"):
        make(last=4).attach(encoder_of("bert").with_head(TWO_CLASSES))
    with pytest.raises(InputError, match=r":last=1 has no meaning here: this encoder runs one shared layer"):
        make(last=1).attach(encoder_of("albert").with_head(TWO_CLASSES))


def test_a_kind_that_is_in_the_first_layers_alone_is_refused(encoder):
    with pytest.raises(InputError, match=r"no biases of kind embedding_norm from its last 2 layers on; it has query,"):
        Biases("query+embedding_norm", last=2).attach(encoder.with_head(TWO_CLASSES))


def test_without_a_limit_a_method_is_called_as_before_there_was_one():
    """Cells of a user's own method that holds one are known by its repr."""
    assert repr(LayerNorms()) == "LayerNorms(which='all', what='both')"
    assert repr(Biases("query")) == "Biases(which='query')"
    assert repr(Lora(rank=4)) == "Lora(rank=4, alpha=16.0, dropout=0.0, targets='default')"
    assert repr(LayerNorms(last=3)) == "LayerNorms(which='all', what='both', last=3)"
