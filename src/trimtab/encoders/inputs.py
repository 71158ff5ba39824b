"""What a model reads: rows that an encoder has made into numbers, taken all at once or in pieces."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """The texts of some rows, each as int32 arrays of its token ids and, where the encoder takes them, of its segment ids.

    One text a row, or of pairs apart two, one behind the other.
    """

    ids: Sequence[np.ndarray]
    type_ids: Sequence[np.ndarray] | None = None
    texts_per_row: int = 1

    def __len__(self) -> int:
        """Texts."""
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text) for text in self.ids]

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths, n = self.lengths, self.texts_per_row
        return lengths if n == 1 else [sum(lengths[i : i + n]) for i in range(0, len(lengths), n)]

    def take(self, texts: Sequence[int]) -> ModelInputs:
        """The texts at `texts` of it, each as a row."""
        types = None if self.type_ids is None else [self.type_ids[i] for i in texts]
        return ModelInputs([self.ids[i] for i in texts], types)

    def take_rows(self, rows: Sequence[int]) -> ModelInputs:
        """The rows at `rows` of it."""
        n = self.texts_per_row
        return replace(self.take([n * i + k for i in rows for k in range(n)]), texts_per_row=n)


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


class Inputs(Protocol):
    """N rows as an encoder reads them: how long they are is known before any of them is decoded."""

    def __len__(self) -> int: ...
    @property
    def lengths(self) -> np.ndarray:
        """The length of each row (N,), in positions that the model reads."""
        ...

    @property
    def firsts(self) -> np.ndarray | None:
        """The length of the first text of each row (N,), where a row is two texts; None where it is one."""
        ...

    @property
    def truncation(self) -> Truncation:
        """What the length limit has cut from the rows."""
        ...

    @property
    def content(self) -> tuple[bytes, ...]:
        """All that decides what a model makes of the rows, for hashes."""
        ...

    @property
    def sha256(self) -> str:
        """Of the content, in hexadecimal."""
        ...

    def take(self, rows: Sequence[int]) -> ModelInputs:
        """The rows at `rows`, for a model."""
        ...

    def subset(self, rows: Sequence[int]) -> Self:
        """The rows at `rows`, as inputs."""
        ...

    def check(self, model: Any) -> None:
        """Raises InputError for what `model` has no embedding of."""
        ...


@dataclass(frozen=True, eq=False)
class TextInputs:
    """`Inputs` of texts: of each of N rows int32 arrays of its token ids and, where the encoder takes them, of its segment ids.

    Both texts of a pair apart stand in one array, one behind the other.
    """

    ids: list[np.ndarray] = field(repr=False)
    type_ids: list[np.ndarray] | None = field(repr=False)
    truncation: Truncation
    firsts: np.ndarray | None = field(default=None, repr=False)  # (N,) of pairs apart: tokens of each row's first text
    whole: np.ndarray | None = field(
        default=None, repr=False
    )  # (N,) tokens before cutting; None where tokens come from a cache

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row (N,)."""
        return self._lengths

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.fromiter((len(ids) for ids in self.ids), dtype=np.int64, count=len(self.ids))

    @property
    def content(self) -> tuple[bytes, ...]:
        """Token ids, lengths, those of first texts and segment ids."""
        # The empty array is for no rows, and for encoders without segment ids: there is nothing else to concatenate.
        ids, types = (np.concatenate([np.empty(0, np.int32), *(rows or [])]) for rows in (self.ids, self.type_ids))
        firsts = b"" if self.firsts is None else self.firsts.tobytes()
        return ids.tobytes(), self.lengths.tobytes(), firsts, types.tobytes()

    @property
    def sha256(self) -> str:
        """Of the content, each part with its length before it, in hexadecimal."""
        digest = hashlib.sha256()
        for part in self.content:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.hexdigest()

    def take(self, rows: Sequence[int]) -> ModelInputs:
        """The rows at `rows`, for a model."""
        ids, types = [self.ids[i] for i in rows], None
        if self.type_ids is not None:
            types = [self.type_ids[i] for i in rows]
        if self.firsts is None:
            return ModelInputs(ids, types)
        firsts = self.firsts[np.asarray(rows, dtype=np.int64)]
        return ModelInputs(_cut(ids, firsts), None if types is None else _cut(types, firsts), texts_per_row=2)

    def subset(self, rows: Sequence[int]) -> TextInputs:
        """The rows at `rows`, with the truncation of all."""
        types = None if self.type_ids is None else [self.type_ids[i] for i in rows]
        firsts = None if self.firsts is None else self.firsts[np.asarray(rows, dtype=np.int64)]
        return TextInputs([self.ids[i] for i in rows], types, self.truncation, firsts)

    def check(self, model: Any) -> None:
        """Raises InputError for tokens or segments that `model` has no embeddings of, which torch would stumble over."""
        backbone = model.base_model
        try:
            words = backbone.get_input_embeddings()
        except NotImplementedError:  # a family that has several
            return
        segments = (m for name, m in backbone.named_modules() if name.endswith("token_type_embeddings"))
        for what, table, ids in (("token", words, self.ids), ("segment", next(segments, None), self.type_ids)):
            known = getattr(table, "num_embeddings", None)  # families have tables of other kinds
            highest = max((int(each.max()) for each in ids or () if len(each)), default=0)
            if known is not None and highest >= known:
                raise InputError(
                    f"a text has {what} {highest}, and the encoder knows {known:,} of them, from 0: its tokenizer is not its "
                    "own, or had words added without resizing the model (model.resize_token_embeddings)"
                )


def _cut(rows: list[np.ndarray], firsts: np.ndarray) -> list[np.ndarray]:
    """Each row in two, the first part of the length in `firsts`."""
    return [part for row, first in zip(rows, firsts, strict=True) for part in (row[:first], row[first:])]


class SizedRows(Protocol):
    """Rows of which the length is known, and some can be taken."""

    @property
    def lengths(self) -> Sequence[int]: ...
    def take(self, rows: Sequence[int]) -> Self: ...


T = TypeVar("T", bound=SizedRows)


def pieces(batch: T, most_tokens: int | None, *, alike: bool) -> list[T]:
    """The batch in parts of consecutive rows, each of at most `most_tokens` tokens or of one row; whole where that is None.

    With `alike` those of a part have one length.
    """
    if most_tokens is None and not alike:
        return [batch]
    most = math.inf if most_tokens is None else most_tokens
    lengths = batch.lengths
    ends, tokens = [0], 0
    for i, length in enumerate(lengths):
        if i > ends[-1] and (tokens + length > most or (alike and length != lengths[i - 1])):
            ends.append(i)
            tokens = 0
        tokens += length
    if len(ends) == 1:
        return [batch]
    return [batch.take(range(*bounds)) for bounds in pairwise([*ends, len(lengths)])]
