"""Tokens from the cache against tokens made anew."""

import copy

import numpy as np
import pytest
from small import make_task

from trimtab.encoders import token_cache as module
from trimtab.encoders import tokenizing
from trimtab.encoders.token_cache import tokenized
from trimtab.encoders.tokenizing import tokenize

ROOM = 1 << 20


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found.ids, expected.ids, strict=True))
    assert (found.type_ids is None) == (expected.type_ids is None)
    if found.type_ids is not None:
        pairs = zip(found.type_ids, expected.type_ids, strict=True)
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert found.truncation == expected.truncation


@pytest.fixture
def counted(monkeypatch):
    """A list that grows with every real tokenisation."""
    calls = []
    monkeypatch.setattr(module, "tokenize", lambda *args, **options: calls.append(args) or tokenize(*args, **options))
    return calls


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_the_second_time_is_read(family, pairs, encoder_of, counted):
    task, tokenizer = make_task(n_train=30, n_validation=5, pairs=pairs), encoder_of(family).tokenizer
    expected = tokenize(task.train.texts, tokenizer, 8)
    for _ in range(2):
        assert_same(tokenized(task.train.texts, tokenizer, 8, ROOM), expected)
    assert len(counted) == 1


def test_no_rows_are_no_rows_the_second_time_too(encoder):
    task = make_task(n_train=5)
    nothing = task.train.take([]).texts
    for _ in range(2):
        assert len(tokenized(nothing, encoder.tokenizer, 8, ROOM)) == 0


def test_another_length_or_other_texts_are_tokenised(encoder, counted):
    task = make_task(n_train=30, n_validation=5)
    for texts, length in ((task.train.texts, 8), (task.train.texts, 9), (task.validation.texts, 8)):
        assert_same(tokenized(texts, encoder.tokenizer, length, ROOM), tokenize(texts, encoder.tokenizer, length))
    assert len(counted) == 3


def test_a_damaged_file_is_made_again(encoder, cache, counted):
    task = make_task(n_train=30, n_validation=5)
    expected = tokenized(task.train.texts, encoder.tokenizer, 8, ROOM)
    (path,) = (cache / "tokens").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    assert_same(tokenized(task.train.texts, encoder.tokenizer, 8, ROOM), expected)
    assert len(counted) == 2


def test_without_a_place_the_run_goes_on(encoder, cache):
    task = make_task(n_train=30, n_validation=5)
    (cache / "tokens").write_text("in the way")
    expected = tokenize(task.train.texts, encoder.tokenizer, 8)
    assert_same(tokenized(task.train.texts, encoder.tokenizer, 8, ROOM), expected)


@pytest.mark.parametrize("most_bytes", [0, 100])
def test_a_budget_that_is_too_small_keeps_nothing(most_bytes, encoder, cache):
    task = make_task(n_train=30, n_validation=5)
    tokenized(task.train.texts, encoder.tokenizer, 8, most_bytes)
    assert not list(cache.rglob("*.safetensors"))


def test_special_tokens_in_a_text_are_words_where_the_tokenizer_says_so(encoder):
    texts, tokenizer = (["a [SEP] b"],), copy.deepcopy(encoder.tokenizer)
    found = [tokenized(texts, tokenizer, 16, ROOM)]
    tokenizer.backend_tokenizer.encode_special_tokens = True
    found.append(tokenized(texts, tokenizer, 16, ROOM))
    assert not np.array_equal(found[0].ids[0], found[1].ids[0])
    assert_same(found[1], tokenize(texts, tokenizer, 16))


@pytest.mark.parametrize("pairs", [False, True])
def test_one_thread_at_a_time_uses_a_tokenizer(pairs, encoder, monkeypatch):
    """Whether it cuts is a state of the tokenizer: another thread would change it between."""
    held = []
    for name in ("_encoded", "_Chunk.cut"):
        owner = tokenizing._Chunk if "." in name else tokenizing
        inner = getattr(owner, name.split(".")[-1])
        monkeypatch.setattr(
            owner,
            name.split(".")[-1],
            lambda *args, inner=inner: held.append(tokenizing.TOKENIZER_LOCK.locked()) or inner(*args),
        )
    task = make_task(n_train=9, pairs=pairs)
    assert tokenize(task.train.texts, encoder.tokenizer, 5).truncation.rows_cut
    assert held == [True, True]
    assert not tokenizing.TOKENIZER_LOCK.locked()
