"""Tokens and truncation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import make_task
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing, RobertaProcessing, TemplateProcessing
from transformers import PreTrainedTokenizerFast

from trimtab.encoders.tokenizing import tokenize
from trimtab.errors import InputError


def test_tokens_are_the_tokenizers_own(encoder):
    task = make_task(pairs=True)
    tokens = tokenize(task.train.texts, encoder.tokenizer, 60)
    for i in range(len(task.train)):
        row = task.train[i]
        expected = encoder.tokenizer(row["text_a"], row["text_b"])
        assert tokens.ids[i].tolist() == expected["input_ids"]
        assert tokens.type_ids[i].tolist() == expected["token_type_ids"]
    assert tokens.truncation.rows_cut == 0
    assert tokens.truncation.tokens == sum(tokens.lengths)


def test_truncation_is_counted_exactly(encoder):
    tokens = tokenize((["cat " * n for n in (1, 6, 7, 50)],), encoder.tokenizer, 8)
    assert tokens.lengths.tolist() == [3, 8, 8, 8]
    found = tokens.truncation
    assert (found.rows, found.rows_cut, found.tokens, found.tokens_cut) == (4, 2, 3 + 8 + 9 + 52, 1 + 44)
    assert "2 of 4 texts are longer than 8 tokens" in found.line("train", 8)
    assert tokens.ids[3][-1] == encoder.tokenizer.sep_token_id


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cut_text_is_the_tokenizers_own_too(family, side, encoder_of, monkeypatch):
    tokenizer = encoder_of(family).tokenizer
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    ending_specially = "dog cat " * 10 + tokenizer.sep_token
    texts = ["cat dog " * 30, "", ending_specially, "dog"]
    found = tokenize((texts,), tokenizer, 21)
    for text, ids in zip(texts, found.ids, strict=True):
        assert ids.tolist() == tokenizer(text, truncation=True, max_length=21)["input_ids"]
    if found.type_ids is not None:
        assert [len(row) for row in found.type_ids] == found.lengths.tolist()


def test_a_tokenizer_without_the_tokenizers_library(encoder):
    task, fast = make_task(pairs=True), encoder.tokenizer

    class Slow:
        is_fast = False

        def __call__(self, *args, **kwargs):
            return fast(*args, **kwargs)

        def num_special_tokens_to_add(self, pair):
            return 3 if pair else 2

    for length in (60, 12):
        expected, found = (tokenize(task.train.texts, one, length) for one in (fast, Slow()))
        assert [row.tolist() for row in found.ids] == [row.tolist() for row in expected.ids]
        assert found.truncation == expected.truncation


@pytest.mark.parametrize(("pairs", "least"), [(False, 3), (True, 5)])
def test_a_limit_that_leaves_nothing_of_a_text_is_refused(pairs, least, encoder):
    task = make_task(pairs=pairs)
    with pytest.raises(InputError, match=f"give at least {least} "):
        tokenize(task.train.texts, encoder.tokenizer, least - 1)
    found = tokenize(task.train.texts, encoder.tokenizer, least)
    assert {len(ids) for ids in found.ids} == {least}


def test_pairs_are_cut_from_the_longer_text(encoder):
    tokens = tokenize((["cat " * 20], ["dog dog"]), encoder.tokenizer, 10)
    words = encoder.tokenizer.convert_ids_to_tokens(tokens.ids[0].tolist())
    assert words == ["[CLS]", *["cat"] * 5, "[SEP]", "dog", "dog", "[SEP]"]


LETTERS = WordLevel({word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *"abcdefghij"])}, unk_token="[UNK]")
PROCESSORS = {
    "bert": BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "roberta": RobertaProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "template": TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    ),
    "reversed": TemplateProcessing(
        single="$A [CLS]", pair="$B:1 [SEP]:1 $A [CLS]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    ),
    "none": None,
}
several_letters = st.text("abcdefghij", max_size=30).map(" ".join)


@pytest.mark.parametrize("name", PROCESSORS)
@given(
    rows=st.lists(st.tuples(several_letters, several_letters), min_size=1, max_size=3), max_length=st.integers(6, 40),
    side=st.sampled_from(["right", "left"]), pairs=st.booleans(),
)  # fmt: skip
def test_what_is_cut_from_texts_and_pairs_is_exactly_what_the_tokenizer_cuts(name, rows, max_length, side, pairs):
    backend = Tokenizer(LETTERS)
    backend.pre_tokenizer = Whitespace()
    if PROCESSORS[name] is not None:
        backend.post_processor = PROCESSORS[name]
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", model_input_names=inputs, truncation_side=side
    )
    texts = [list(column) for column in zip(*rows, strict=True)][: 1 + pairs]
    found = tokenize(tuple(texts), tokenizer, max_length)
    expected = tokenizer(*texts, truncation="longest_first", max_length=max_length)
    assert [ids.tolist() for ids in found.ids] == expected["input_ids"]
    assert found.type_ids is not None
    assert [types.tolist() for types in found.type_ids] == expected["token_type_ids"]


def test_a_pair_of_very_long_texts_is_cut(encoder):
    """The tokenizers library makes every combination of the pieces that it leaves out: here more than memory holds."""
    found = tokenize((["cat " * 60_000], ["dog " * 50_000]), encoder.tokenizer, 64)
    assert len(found.ids[0]) == 64
    assert found.truncation.tokens == 110_003


def test_rows_are_handed_to_the_tokenizer_in_groups_that_fit_memory(encoder, monkeypatch):
    monkeypatch.setattr("trimtab.encoders.tokenizing._CHUNK_LETTERS", 50)
    task = make_task(pairs=True)
    found = tokenize(task.train.texts, encoder.tokenizer, 12)
    monkeypatch.undo()
    whole = tokenize(task.train.texts, encoder.tokenizer, 12)
    assert [ids.tolist() for ids in found.ids] == [ids.tolist() for ids in whole.ids]
    assert found.truncation == whole.truncation


def test_type_ids_only_where_the_encoder_takes_them(encoder_of):
    task = make_task()
    assert tokenize(task.train.texts, encoder_of("roberta").tokenizer, 60).type_ids is None
