"""Tokens that stand for anything, and texts of which a tokenizer leaves nothing."""

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from trimtab.encoders.tokenizing import tokenize
from trimtab.encoders.unknown_tokens import Unknown, empty_rows, lowered_note, unknown_tokens

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "March", "Turkey", "sells", "the"]


def tokenizer_of(words: list[str], unknown: str = "[UNK]", lowers: bool = False) -> Any:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    steps: list[Any] = [normalizers.Lowercase()] if lowers else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace("\u00ad", "")])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


def unknown_of(tokenizer: Any, *texts: str, pairs: bool = False, apart: bool = False) -> tuple[Unknown, list[int]]:
    columns = (list(texts), ["the"] * len(texts)) if pairs else (list(texts),)
    inputs = tokenize(columns, tokenizer, 50, apart=apart)
    return unknown_tokens(inputs, columns, tokenizer), empty_rows(inputs, columns, tokenizer)


@pytest.mark.parametrize(("pairs", "apart"), [(False, False), (True, False), (True, True)])
def test_they_are_counted_among_the_tokens_of_texts(pairs: bool, apart: bool) -> None:
    found, _ = unknown_of(tokenizer_of(WORDS), "the March", "the \U0001f600", "ሰላም ሰላም", pairs=pairs, apart=apart)
    assert (found.rows, found.rows_with, found.unknown, found.tokens) == (3, 2, 3, 6 + 3 * pairs)
    assert found.examples == ("\U0001f600", "ሰላም")
    (line,) = found.lines("train")
    assert line.startswith(
        f"train: 3 of {6 + 3 * pairs} tokens ({3 / (6 + 3 * pairs):.1%}), in 2 of 3 rows, are unknown"
    )
    assert "multilingual one" in line


def test_few_are_said_without_advice_and_none_are_not_said() -> None:
    found, _ = unknown_of(tokenizer_of(WORDS), *["the March " * 20] * 30, "\U0001f600")
    assert found.lines("train")[0].endswith("(such as '\U0001f600')")
    assert unknown_of(tokenizer_of(WORDS), "the March")[0].lines("train") == []


def test_capitals_that_are_taken_away_are_named() -> None:
    lowering = tokenizer_of(WORDS, lowers=True)
    (line,) = unknown_of(lowering, "the Turkey")[0].lines("train")
    assert "its vocabulary has 'Turkey', and its tokenizer takes capitals away" in line
    assert "2 of the 4 entries of the encoder's vocabulary have capitals (such as 'March')" in lowered_note(lowering)[0]
    assert lowered_note(tokenizer_of(WORDS)) == []
    assert lowered_note(tokenizer_of([word.lower() for word in WORDS[4:]] + WORDS[:4], lowers=True)) == []


def test_an_end_of_text_is_no_unknown_token() -> None:
    found, _ = unknown_of(tokenizer_of(WORDS, unknown="[SEP]"), "the ሰላም")
    assert found.unknown == 0


def test_a_text_of_which_only_special_tokens_are_left_is_empty() -> None:
    tokenizer = tokenizer_of(WORDS)
    assert unknown_of(tokenizer, "the", "\u00ad", "March")[1] == [1]
    assert unknown_of(tokenizer, "the", "\u00ad", pairs=True, apart=True)[1] == [1]
    assert unknown_of(tokenizer, "the", "\u00ad", pairs=True)[1] == [], "the other text is there"


def test_counts_of_pieces_add_up() -> None:
    one, two = Unknown(2, 1, 10, 1, ("a",)), Unknown(3, 2, 5, 4, ("b", "a"), "B")
    assert one + two == Unknown(5, 3, 15, 5, ("a", "b"), "B")
    assert replace(one, tokens=0, unknown=0).share == 0.0
