"""What is read of a long text's first characters is what is read of the whole."""

from typing import Any

import pytest
from deltas import make_delta
from hypothesis import given
from hypothesis import strategies as st
from small import make_task, sentences, word_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trimtab.encoders.encoder import Encoder
from trimtab.encoders.tokenizing import tokenize
from trimtab.serving.first_letters import LETTERS_PER_TOKEN, divides_at_spaces, first_letters
from trimtab.serving.pool import Pool

_TEXTS = [*sentences(200, seed=3), "don't stop, 1,250.75 naïve co-workers!", "ünïcödé ΣΑΣ straße 東京 words…"]


def made(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer as a family has it."""
    if kind == "word":
        return word_tokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    if kind == "wordpiece":
        raw: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=80, special_tokens=special)
    elif kind == "bytes":
        raw = Tokenizer(models.BPE(unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    else:
        raw = Tokenizer(models.Unigram())
        raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", " ")])
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="[UNK]", show_progress=False)
    raw.train_from_iterator(_TEXTS, trainer)
    ids = [("[CLS]", raw.token_to_id("[CLS]")), ("[SEP]", raw.token_to_id("[SEP]"))]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


TOKENIZERS = {kind: made(kind) for kind in ("word", "wordpiece", "bytes", "pieces")}
_words = st.one_of(
    st.sampled_from(" ".join(_TEXTS).split()), st.text(min_size=1, max_size=8), st.sampled_from("  ' . ▁")
)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(words=st.lists(_words, min_size=40, max_size=120), ends=st.sampled_from([" ", "  ", " cat "]))
def test_the_first_words_have_the_first_tokens(kind: str, words: list[str], ends: str) -> None:
    tokenizer, limit = TOKENIZERS[kind], 10
    text = ends.join(words).encode(errors="ignore").decode()
    first = first_letters(text, limit)
    if first is None:
        return
    assert text.startswith(first)
    assert len(first) <= LETTERS_PER_TOKEN * limit
    whole, part = (tokenize(([each],), tokenizer, 10**6).ids[0].tolist() for each in (text, first))
    assert part[:-1] == whole[: len(part) - 1]  # all but the closing token


def test_short_texts_and_texts_without_spaces_are_left_alone() -> None:
    assert first_letters("cat " * 10, 10) is None
    assert first_letters("a" * 1000, 10) is None
    assert first_letters("!! " * 1000, 10) is None
    assert first_letters("cat " * 1000, 10) == "cat " * 39 + "cat"


def test_only_tokenizers_that_divide_at_spaces_are_given_the_first_words() -> None:
    assert all(map(divides_at_spaces, TOKENIZERS.values()))
    odd = made("wordpiece")
    odd.add_tokens("red cat")
    assert not divides_at_spaces(odd)
    left = made("wordpiece")
    left.truncation_side = "left"
    assert not divides_at_spaces(left)
    for pre_tokenizer in (
        pre_tokenizers.Metaspace(split=False), pre_tokenizers.ByteLevel(use_regex=False), pre_tokenizers.Split(" c", "isolated"),
    ):  # fmt: skip
        undivided: Any = made("wordpiece")
        undivided.backend_tokenizer.pre_tokenizer = pre_tokenizer
        assert not divides_at_spaces(undivided)
    replaced: Any = made("wordpiece")
    replaced.backend_tokenizer.normalizer = normalizers.Replace(" dog", "")
    assert not divides_at_spaces(replaced)
    assert not divides_at_spaces(object())


def test_a_pool_reads_the_first_words_and_says_the_same(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    delta = make_delta(encoder, make_task(), "layer_norms", max_length=16)
    pool = Pool(encoder, {"a": delta}, compute="float32")
    long = [("a", "the red cat runs " * 2000), ("a", "cat " + " " * 400), ("a", "x" * 300 + " cat dog"), ("a", "cat")]
    given_letters: list[int] = []
    own = Encoder.inputs

    def noting(self: Encoder, texts: Any, *args: Any, **options: Any) -> Any:
        given_letters.extend(len(text) for column in texts for text in column)
        return own(self, texts, *args, **options)

    monkeypatch.setattr(Encoder, "inputs", noting)
    found = pool.predict(long)
    assert max(given_letters) < 1000
    monkeypatch.setattr(pool, "_shortens", False)
    assert pool.predict(long) == found
    assert [(each.truncated, each.tokens) for each in found] == [(True, 16), (False, 3), (False, 5), (False, 3)]
    # Few tokens in many characters: the whole is read.
    spaced = [("a", "cat dog " + "                    a cat " * 14)]
    monkeypatch.setattr(pool, "_shortens", True)
    short = pool.predict(spaced)
    monkeypatch.setattr(pool, "_shortens", False)
    assert pool.predict(spaced) == short


def test_without_truncation_a_long_text_is_refused(encoder: Encoder) -> None:
    pool = Pool(encoder, {"a": make_delta(encoder, make_task(), "layer_norms", max_length=16)})
    with pool.hold({"a"}) as versions:
        refused, read = pool.read([("a", "the red cat " * 100), ("a", "cat")], versions, truncate=False)
        assert "302 tokens, and the task reads 16" in str(refused.error)  # pyright: ignore[reportAttributeAccessIssue]
        assert pool.compute([read])[0].error is None  # pyright: ignore[reportArgumentType]
