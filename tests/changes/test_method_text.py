"""Methods as text, there and back."""

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.changes.choices import METHOD, NAMES, OPTIONS, check_names
from trimtab.changes.contract import Method
from trimtab.changes.lora import Lora
from trimtab.changes.method_text import METHODS, SCORES, method_identity, method_text, parse_method
from trimtab.changes.methods import Biases, Chosen, Full, Head, LastLayers, LayerNorms, Union
from trimtab.changes.top import FisherTop, Random, Top
from trimtab.errors import InputError

last = st.none() | st.integers(1, 48)
chosen = st.one_of(
    st.just(Full()), st.just(Head()),
    st.builds(LastLayers, st.integers(1, 48)),
    st.builds(Biases, st.sampled_from(["all", "query", "query+intermediate"]), last),
    st.builds(
        LayerNorms, st.sampled_from(["all", "attention", "output"]), st.sampled_from(["weight", "bias", "both"]), last
    ),
)  # fmt: skip
loras = st.builds(
    Lora, st.integers(1, 64), st.floats(1, 64), st.floats(0, 0.9), st.sampled_from(["all", "query+value"]), last
)


def unions_of(methods: st.SearchStrategy) -> st.SearchStrategy:
    """Unions of two or three, of which one at most is a LoRA."""
    several = st.lists(methods, min_size=2, max_size=3)
    return several.filter(lambda many: sum(isinstance(each, Lora) for each in many) < 2).map(
        lambda many: Union(tuple(many))
    )


united = unions_of(chosen)
drawn = st.builds(Random, count=st.integers(1, 9999), within=st.none() | chosen | united)
nested = st.builds(Random, count=st.integers(1, 9999), within=united | drawn)


@given(st.one_of(chosen, loras, drawn, nested, unions_of(st.one_of(chosen, loras, drawn))))
def test_text_reads_back_as_the_same_method(method):
    assert parse_method(method_text(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random:share=0.5,within=lora", "only a part of what lora adds"),
        ("biases+fisher_top:share=0.5,within=(layer_norms+lora)", "only a part of what lora adds"),
        ("lora+moved_top:count=5,within=random:share=0.5,within=lora", "only a part of what lora adds"),
        ("lyer_norms", "did you mean layer_norms"),
        ("", "unknown method ''"),
        ("lora:rnk=3", "did you mean rank"),
        ("lora:rank=many", "not a whole number"),
        ("lora:dropout=much", "not a number"),
        ("random:5", "must be written key=value"),
        ("full:k=1", "its options: none"),
        ("layer_norms:last=half", "layer_norms:last=half is not a whole number"),
        ("biases:last=1.5", "biases:last=1.5 is not a whole number"),
        ("lora:rank=2,last=0", "lora:last=0 must be at least 1; leave it out"),
        ("random:count=3,within=layer_norms:last=-1", "layer_norms:last=-1 must be at least 1; leave it out"),
        ("layer_norms+nonsense", "unknown method"),
        ("random:count=3,within=(layer_norms+biases", "unknown method '\\(layer_norms"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_method(text)


def test_the_identity_of_a_method_is_the_content_of_its_file_and_not_its_path(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (
        method_identity(parse_method(f"biases+random:count=3,within=selection:file={tmp_path / n}")) for n in "abc"
    )
    assert a == b != c
    assert method_identity(LayerNorms()) == "layer_norms"


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (LayerNorms(last=3), "layer_norms:last=3"),
        (LayerNorms("output", last=1), "layer_norms:which=output,last=1"),
        (Biases(last=2), "biases:last=2"),
        (Lora(rank=4, last=3), "lora:rank=4,last=3"),
        (Union((LayerNorms(last=3), Lora(last=3))), "layer_norms:last=3+lora:last=3"),
        (Random(count=3, within=LayerNorms(last=3)), "random:count=3,within=layer_norms:last=3"),
    ],
)
def test_methods_of_the_last_layers_are_written_so(method, text):
    assert method_text(method) == method_identity(method) == text
    assert parse_method(text) == method


def test_equal_methods_have_one_text_and_identity():
    for whole, fraction in (
        (Lora(alpha=8), Lora(alpha=8.0)),
        (Lora(dropout=0, alpha=16), Lora()),
        (Random(share=1, within=LayerNorms()), Random(share=1.0, within=LayerNorms())),
        (FisherTop(share=1), FisherTop(share=1.0)),
    ):
        assert whole == fraction
        assert method_text(whole) == method_text(fraction)
        assert method_identity(whole) == method_identity(fraction)
        assert method_text(parse_method(method_text(whole))) == method_text(whole)


@pytest.mark.parametrize("name", ["a,b", "a+head", "a(1", "a)", "one,two (copy)"])
def test_a_file_whose_name_cannot_be_read_back_is_refused(name):
    for method in (Chosen(name), Random(count=3, within=Chosen(name)), Union((LayerNorms(), Chosen(name)))):
        with pytest.raises(InputError, match="rename the file"):
            method_text(method)


def test_a_union_of_unions_reads_back():
    nested = Union((Biases(), Union((LayerNorms(), Union((Lora(),))))))
    assert nested == Union((Biases(), LayerNorms(), Lora())) == parse_method(method_text(nested))


class OwnMethod:
    """Without a repr of its own, as a user would write it."""

    def __init__(self, steps: int):
        self.steps = steps

    def attach(self, model, batches=(), loss=None):
        return LayerNorms().attach(model)


def test_a_users_own_method_is_known_again_in_another_process():
    assert method_identity(OwnMethod(3)) == method_identity(OwnMethod(3)) != method_identity(OwnMethod(4))
    assert method_text(OwnMethod(3)).endswith("OwnMethod(steps=3)")


def options_of(kind: type) -> dict[str, object]:
    """The fields of a method or score with their types, less None, and with the text of a method for a method."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        (wanted,) = {*(typing.get_args(hints[field.name]) or (hints[field.name],))} - {type(None)}
        found[field.name] = METHOD if wanted is Method else wanted
    return found


def test_names_and_options_known_without_torch_are_those_of_the_classes() -> None:
    assert sorted(NAMES) == sorted([*METHODS, *SCORES])
    for name, kind in METHODS.items():
        assert OPTIONS[name] == options_of(kind)
        assert list(OPTIONS[name]) == list(options_of(kind)), "errors list them in this order"
    own = options_of(Top)
    assert own.pop("score")
    for name, score in SCORES.items():
        assert OPTIONS[name] == options_of(score) | own


@pytest.mark.parametrize(
    "text",
    [
        "fisher_top:share=0.1,given=head", "fisher_top:share=0.1,granularity=vector", "fisher_top:count=5,per=layer",
        "layer_norms+moved_top:count=5,by=gain,within=biases", "random:count=3,within=moved_top:count=5,per=all",
    ],
)  # fmt: skip
def test_options_that_are_gone_are_refused_with_the_reason(text: str) -> None:
    for read in (parse_method, check_names):
        with pytest.raises(InputError, match=r"\w+_top:\w+=\w+ was removed: .*commit a657e39 still has it"):
            read(text)
