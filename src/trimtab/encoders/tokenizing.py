"""Texts as tokens, counted where they are cut."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .inputs import TextInputs, Truncation

Texts = tuple[list[str], ...]
"""N texts, or of pairs two lists of N texts."""

TOKENIZER_LOCK = threading.Lock()
"""Held while a tokenizer works: whether it cuts is a state of its own, and several threads may share it."""

# Handed to the tokenizer at once, which bounds the memory of what it makes of them: some 200 bytes a token.
_CHUNK_ROWS, _CHUNK_LETTERS = 1024, 4_000_000


def tokenize(texts: Texts, tokenizer: Any, max_length: int, *, apart: bool = False) -> TextInputs:
    """The TextInputs of `texts`, cut to `max_length` tokens (of a pair, the longer text is cut first).

    With `apart`, the texts of a pair are two texts, each with its special tokens and up to so many tokens. Raises InputError
    where so few tokens hold nothing of a text.
    """
    if apart:
        return _apart(texts, tokenizer, max_length)
    n_texts = len(texts)
    least = tokenizer.num_special_tokens_to_add(pair=n_texts > 1) + n_texts
    if max_length < least:
        what = "both texts" if n_texts > 1 else "a text"
        raise InputError(
            f"max_length={max_length} leaves no room for {what} beside this tokenizer's special tokens: give at least {least} "
            "(--max-length)"
        )
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    whole: list[int] = []
    rows_cut = 0
    for chunk_of in _chunks(texts):
        some = [column[chunk_of] for column in texts]
        with TOKENIZER_LOCK:
            chunk = _encoded(tokenizer, some)
            # Of whole texts, before any is cut: this is what Truncation counts.
            lengths = [len(row) for row in chunk.ids]
            long = [i for i, length in enumerate(lengths) if length > max_length]
            # Nearly always few: cutting everything anew would double the time of tokenising.
            if long:
                chunk.cut(tokenizer, long, some, max_length)
        # Arrays of int32 take a fraction of the memory of lists of Python ints.
        ids += [np.asarray(row, dtype=np.int32) for row in chunk.ids]
        types += [np.asarray(row, dtype=np.int32) for row in chunk.types]
        whole, rows_cut = whole + lengths, rows_cut + len(long)
    total = sum(whole)
    cut = Truncation(len(ids), rows_cut, total, total - sum(map(len, ids)))
    return TextInputs(ids, types or None, cut, whole=np.array(whole, np.int64))


def _apart(texts: Texts, tokenizer: Any, max_length: int) -> TextInputs:
    """The TextInputs of pairs whose texts are tokenised each by itself."""
    u, v = (tokenize((column,), tokenizer, max_length) for column in texts)
    ids = [np.concatenate(pair) for pair in zip(u.ids, v.ids, strict=True)]
    types = None
    if u.type_ids is not None and v.type_ids is not None:
        types = [np.concatenate(pair) for pair in zip(u.type_ids, v.type_ids, strict=True)]
    of = (u.truncation, v.truncation)
    cut = Truncation(
        2 * len(ids), *(sum(getattr(each, name) for each in of) for name in ("rows_cut", "tokens", "tokens_cut"))
    )
    whole = None if u.whole is None or v.whole is None else u.whole + v.whole
    return TextInputs(ids, types, cut, u.lengths, whole)


def _chunks(texts: Texts) -> Iterator[slice]:
    """The rows in groups of at most _CHUNK_ROWS, and of _CHUNK_LETTERS letters unless a row alone has more."""
    start = letters = 0
    for i, row in enumerate(zip(*texts, strict=True)):
        size = sum(map(len, row))
        if i > start and (i - start == _CHUNK_ROWS or letters + size > _CHUNK_LETTERS):
            yield slice(start, i)
            start, letters = i, 0
        letters += size
    if len(texts[0]) > start:
        yield slice(start, len(texts[0]))


@dataclass
class _Chunk:
    """Whole texts as token ids, before any is cut."""

    ids: list[Sequence[int]]
    types: list[Sequence[int]]  # segment ids, where the encoder takes them
    encodings: list[Any] | None  # of the tokenizers library, where it made them

    def cut(self, tokenizer: Any, long: list[int], texts: list[list[str]], max_length: int) -> None:
        """Cuts the texts at `long` to `max_length`; special tokens stay."""
        if self.encodings is not None:
            for i in long:
                # The tokenizers library cuts a long pair in minutes and gigabytes: it makes every piece that it leaves out.
                kept = _kept(self.encodings[i], max_length, from_end=tokenizer.truncation_side == "left")
                for rows in (self.ids, self.types):
                    if rows:
                        rows[i] = [rows[i][k] for k in kept]
            return
        # Slow tokenizers: which tokens go is left to the tokenizer.
        cut = tokenizer(
            *[[column[i] for i in long] for column in texts],
            truncation="longest_first", max_length=max_length, return_attention_mask=False,
        )  # fmt: skip
        for rows, key in ((self.ids, "input_ids"), (self.types, "token_type_ids")):
            if rows:
                for i, row in zip(long, cut[key], strict=True):
                    rows[i] = row


def _kept(encoding: Any, max_length: int, *, from_end: bool) -> list[int]:
    """The positions of the tokens that "longest_first" keeps of a text or pair: all special ones, and of each text what fits.

    The rule is that of `truncate_encodings` in tokenizers 0.23: the longer text is cut until both are equally long, then both.
    """
    # Which text each token is of, -1 for a special one; a "[SEP]" that somebody has typed is a token of the text.
    special = np.array(encoding.special_tokens_mask, dtype=bool)
    one = 0 if encoding.n_sequences == 1 else np.array([-1 if text is None else text for text in encoding.sequence_ids])
    which = np.where(special, -1, one)
    places = [np.flatnonzero(which == text) for text in (0, 1)]
    room = max_length - int(special.sum())
    shorter = min(map(len, places))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    sizes = (longer, shorter) if len(places[0]) > len(places[1]) else (shorter, longer)
    kept = [found[len(found) - size :] if from_end else found[:size] for found, size in zip(places, sizes, strict=True)]
    return sorted(np.concatenate([np.flatnonzero(which == -1), *kept]).tolist())


def _encoded(tokenizer: Any, texts: list[list[str]]) -> _Chunk:
    """The texts, or pairs of texts, uncut; through the tokenizers library itself where it can: half the time."""
    # A slow tokenizer is Python code and has no backend.
    if not getattr(tokenizer, "is_fast", False):
        whole = tokenizer(*texts, add_special_tokens=True, truncation=False, return_attention_mask=False, verbose=False)
        return _Chunk(list(whole["input_ids"]), list(whole.get("token_type_ids", [])), None)
    backend = tokenizer.backend_tokenizer
    # Whole texts, since what is cut is counted and said before training.
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
    has_types = "token_type_ids" in tokenizer.model_input_names
    types = [encoding.type_ids for encoding in encodings] if has_types else []
    return _Chunk([encoding.ids for encoding in encodings], types, encodings)
