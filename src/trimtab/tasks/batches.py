"""Rows as tokens: tokenised once, counted where they are cut, and dealt into batches."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import generator
from .losses import label_tensor
from .task import Rows, Task

TOKENIZER_LOCK = threading.Lock()
"""Held while a tokenizer works: whether it cuts is a state of its own, and several threads may share it."""

# Handed to the tokenizer at once, which bounds the memory of what it makes of them: some 200 bytes a token.
_CHUNK_ROWS, _CHUNK_LETTERS = 1024, 4_000_000


@dataclass(frozen=True)
class Truncation:
    """What the length limit cuts from a split."""

    rows: int  # of the split
    rows_cut: int  # of those, longer than the limit
    tokens: int  # before cutting, special tokens included
    tokens_cut: int  # of those; special tokens are never cut

    def as_json(self) -> dict[str, int]:
        """The four counts by name, as scores.json has them."""
        return asdict(self)

    def line(self, split: str, max_length: int) -> str:
        """In plain words."""
        if not self.rows_cut:
            return f"{split}: no text is longer than {max_length} tokens"
        share = self.tokens_cut / self.tokens
        return (
            f"{split}: {self.rows_cut:,} of {self.rows:,} texts are longer than {max_length} tokens and are cut "
            f"({self.tokens_cut:,} of {self.tokens:,} tokens, {share:.1%})"
        )


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of N rows: int32 arrays of each row's ids, its segment ids where the encoder takes them, and its label."""

    ids: list[np.ndarray] = field(repr=False)
    type_ids: list[np.ndarray] | None = field(repr=False)
    labels: Tensor | None = field(repr=False)  # as `label_tensor` makes them
    truncation: Truncation
    firsts: np.ndarray | None = field(default=None, repr=False)  # (N,) of pairs apart: tokens of each row's first text

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens per row (N,)."""
        return np.fromiter((len(ids) for ids in self.ids), dtype=np.int64, count=len(self.ids))

    def take_tokens(self, rows: Sequence[int]) -> "Tokens":
        """The rows at `rows` as Tokens."""
        batch = self.take(rows)
        return Tokens(batch.ids, batch.type_ids, batch.labels, self.truncation, batch.firsts)

    def take(self, rows: Sequence[int]) -> "Batch":
        """The rows at `rows` as a Batch."""
        types = None if self.type_ids is None else [self.type_ids[i] for i in rows]
        labels = None if self.labels is None else self.labels[torch.as_tensor(np.asarray(rows))]
        firsts = None if self.firsts is None else self.firsts[np.asarray(rows, dtype=np.int64)]
        return Batch([self.ids[i] for i in rows], types, labels, firsts)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of Tokens, to be run at once."""

    ids: list[np.ndarray]
    type_ids: list[np.ndarray] | None
    labels: Tensor | None
    firsts: np.ndarray | None = None  # as in Tokens

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Token ids and segment ids of each text: one a row, or of pairs apart two, one behind the other."""
        if self.firsts is None:
            return self.ids, self.type_ids

        def cut(rows: list[np.ndarray]) -> list[np.ndarray]:
            assert self.firsts is not None
            return [part for row, first in zip(rows, self.firsts, strict=True) for part in (row[:first], row[first:])]

        return cut(self.ids), None if self.type_ids is None else cut(self.type_ids)

    def take(self, rows: Sequence[int]) -> "Batch":
        """The rows at `rows` of it."""
        types = None if self.type_ids is None else [self.type_ids[i] for i in rows]
        firsts = None if self.firsts is None else self.firsts[list(rows)]
        labels = None if self.labels is None else self.labels[list(rows)]
        return Batch([self.ids[i] for i in rows], types, labels, firsts)


def tokenize(
    task: Task, rows: Rows, tokenizer: Any, max_length: int, *, labelled: bool = True, apart: bool = False
) -> Tokens:
    """The Tokens of `rows`, cut to `max_length` tokens (of a pair, the longer text is cut first).

    With `apart`, the texts of a pair are two texts, each with its special tokens and up to so many tokens. Raises InputError
    where so few tokens hold nothing of a text.
    """
    if apart:
        return _apart(task, rows, tokenizer, max_length, labelled)
    n_texts = len(rows.texts)
    least = tokenizer.num_special_tokens_to_add(pair=n_texts > 1) + n_texts
    if max_length < least:
        what = "both texts" if n_texts > 1 else "a text"
        raise InputError(
            f"max_length={max_length} leaves no room for {what} beside this tokenizer's special tokens: give at least {least} "
            "(--max-length)"
        )
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    total = rows_cut = 0
    for chunk_of in _chunks(rows):
        texts = [column[chunk_of] for column in rows.texts]
        with TOKENIZER_LOCK:
            chunk = _encoded(tokenizer, texts)
            # Of whole texts, before any is cut: this is what Truncation counts.
            lengths = [len(row) for row in chunk.ids]
            long = [i for i, length in enumerate(lengths) if length > max_length]
            # Nearly always few: cutting everything anew would double the time of tokenising.
            if long:
                chunk.cut(tokenizer, long, texts, max_length)
        # Arrays of int32 take a fraction of the memory of lists of Python ints.
        ids += [np.asarray(row, dtype=np.int32) for row in chunk.ids]
        types += [np.asarray(row, dtype=np.int32) for row in chunk.types]
        total, rows_cut = total + sum(lengths), rows_cut + len(long)
    labels = label_tensor(task, rows) if labelled else None
    kept = sum(map(len, ids))
    return Tokens(ids, types or None, labels, Truncation(len(rows), rows_cut, total, total - kept))


def _apart(task: Task, rows: Rows, tokenizer: Any, max_length: int, labelled: bool) -> Tokens:
    """The Tokens of pairs whose texts are tokenised each by itself."""
    u, v = (
        tokenize(task, replace(rows, texts=(column,)), tokenizer, max_length, labelled=False) for column in rows.texts
    )
    ids = [np.concatenate(pair) for pair in zip(u.ids, v.ids, strict=True)]
    types = None
    if u.type_ids is not None and v.type_ids is not None:
        types = [np.concatenate(pair) for pair in zip(u.type_ids, v.type_ids, strict=True)]
    of = (u.truncation, v.truncation)
    cut = Truncation(
        2 * len(rows), *(sum(getattr(each, name) for each in of) for name in ("rows_cut", "tokens", "tokens_cut"))
    )
    return Tokens(ids, types, label_tensor(task, rows) if labelled else None, cut, u.lengths)


def _chunks(rows: Rows) -> Iterator[slice]:
    """The rows in groups of at most _CHUNK_ROWS, and of _CHUNK_LETTERS letters unless a row alone has more."""
    start = letters = 0
    for i, texts in enumerate(zip(*rows.texts, strict=True)):
        size = sum(map(len, texts))
        if i > start and (i - start == _CHUNK_ROWS or letters + size > _CHUNK_LETTERS):
            yield slice(start, i)
            start, letters = i, 0
        letters += size
    if len(rows) > start:
        yield slice(start, len(rows))


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


# Asked for at every step, and drawn once an epoch; callers share the arrays, so they must not write into them.
@lru_cache(maxsize=2)
def shuffled_batches(n_rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The row numbers of each batch of one epoch: a permutation from the stream "order" of `seed`, cut in pieces."""
    order = torch.randperm(n_rows, generator=generator(seed, "order", epoch)).numpy()
    return np.split(order, range(batch_size, n_rows, batch_size))


def token_groups(lengths: np.ndarray, rows: Sequence[int] | np.ndarray, most_tokens: int) -> list[np.ndarray]:
    """Cuts `rows`, longest first, into groups of at most `most_tokens` tokens together (one row alone may exceed it).

    No rows make no groups: a rank's share of a small batch may be empty.
    """
    numbers = np.asarray(rows, dtype=np.int64)
    # Similar lengths together make few widths of attention; the longest first shows at once whether memory suffices.
    ordered = numbers[np.argsort(-lengths[numbers], kind="stable")]
    cuts, filled = [], 0
    for i, length in enumerate(lengths[ordered].tolist()):
        if filled and filled + length > most_tokens:
            cuts.append(i)
            filled = 0
        filled += length
    return np.split(ordered, cuts) if len(ordered) else []
