"""Where the tokens of a packed batch lie in the blocks that attention works on.

Texts are laid side by side in blocks of one width, several short texts to a block; a block-diagonal mask keeps them
apart. Widths are multiples of 32: at others, torch's bfloat16 softmax on a CPU is 5 to 20 times slower.
"""

# Shapes: T tokens, B texts, N heads; n blocks of L places, q queries in a block; a row is a (block, head, place) triple.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDTH_STEP = 32  # places: block widths are multiples of it
NEW_WIDTH_SCORES = 8_000  # scores of a head that one more width must save to be worth its calls
EMPTY = -1  # the text number of an empty place, which holds token 0


@dataclass
class Block:
    """n blocks of one width."""

    tokens: np.ndarray  # (n, L) int64, numbers of tokens
    texts: np.ndarray  # (n, L) int64, numbers of texts
    queries: np.ndarray  # (n, q) int64: `tokens`, or the first token of each text
    query_texts: np.ndarray  # (n, q) int64
    masks: dict[Any, Tensor | None] = field(default_factory=dict)  # by window, dtype and device

    def mask(self, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """What to add to the scores, (n, 1, q, L): 0 inside a text and `window`, else -inf; None where all is 0.

        Empty queries see everything, because a row of -inf has no softmax; nobody reads their answers.
        """
        key = (window, dtype, device)
        if key not in self.masks:
            # The small index arrays travel and the large mask is made where it is used.
            query_texts, texts = (torch.from_numpy(of).to(device) for of in (self.query_texts, self.texts))
            blocked = query_texts[:, :, None] != texts[:, None, :]
            if window is not None:
                queries, tokens = (torch.from_numpy(of).to(device) for of in (self.queries, self.tokens))
                blocked |= (queries[:, :, None] - tokens[:, None, :]).abs() >= window
            blocked &= (query_texts != EMPTY)[:, :, None]
            mask = torch.zeros(blocked.shape, dtype=dtype, device=device).masked_fill_(blocked, float("-inf"))
            self.masks[key] = mask[:, None] if blocked.any() else None
        return self.masks[key]

    def with_first_queries(self) -> Block:
        """The same blocks with the first token of each text as the only queries."""
        first = (self.texts != EMPTY) & (np.diff(self.texts, axis=1, prepend=EMPTY) != 0)
        # Stable, so that the first tokens move to the front in their order; q is the most of any block.
        places = np.argsort(~first, axis=1, kind="stable")[:, : int(first.sum(1).max())]
        present = np.take_along_axis(first, places, 1)
        queries = np.where(present, np.take_along_axis(self.tokens, places, 1), 0)
        return Block(
            self.tokens, self.texts, queries, np.where(present, np.take_along_axis(self.texts, places, 1), EMPTY)
        )


class Layout:
    """The blocks of a packed batch, and the indices that bring its tokens there and back."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int], device: torch.device | str = "cpu"):
        self.starts, self.lengths = [int(s) for s in starts], [int(n) for n in lengths]
        self.longest = max(self.lengths, default=0)  # tokens of any text, at most
        self.device = torch.device(device)
        self._made: dict[Any, Any] = {}  # by key: every layer of a pass asks for the same

    @classmethod
    def on_device(cls, ends: Tensor, owners: Tensor, longest: int) -> Layout:
        """That of texts whose places only the device knows: for attention that needs no blocks.

        `ends` (B + 1,) int64 is where each text begins and the last one ends, `owners` (T,) int64 the text of each token.
        """
        layout = cls([], [], ends.device)
        layout.longest = longest
        layout._made |= {"ends": ends, "starts": ends[:-1], "owners": owners}
        return layout

    def first_rows(self) -> Tensor:
        """The first token of each text (B,) int64, on the device."""
        return self.once("starts", lambda: self._tensor(np.asarray(self.starts)))

    def ends(self) -> Tensor:
        """Where each text begins and the last one ends, (B + 1,) int32, on the device."""

        def ends() -> Tensor:
            return self._tensor(np.concatenate([[0], np.cumsum(self.lengths)]))

        return self.once("ends of int32", lambda: self.once("ends", ends).int())

    def means(self, hidden: Tensor) -> Tensor:
        """The mean (B, H) of each text's rows of `hidden` (T, H)."""

        def owners() -> Tensor:
            return self._tensor(np.repeat(np.arange(len(self.lengths)), self.lengths))

        lengths = self.ends().diff()
        sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, self.once("owners", owners), hidden)
        return sums / lengths[:, None]

    def blocks(self, first: bool = False) -> list[Block]:
        """The blocks, widest first; with `first`, only the first token of each text asks."""
        if first:
            return self.once("first", lambda: [block.with_first_queries() for block in self.blocks()])
        return self.once("blocks", self._fill_blocks)

    def gather(self, heads: int, stride: int, queries: bool, first: bool = False) -> Tensor:
        """For every row of the blocks, its row in a table of `stride` rows per token; int64, on the device."""

        def rows() -> Tensor:
            parts = []
            for block in self.blocks(first):
                tokens = block.queries if queries else block.tokens
                parts.append((tokens[:, None, :] * stride + np.arange(heads)[:, None]).ravel())
            return self._tensor(np.concatenate(parts))

        return self.once(("gather", heads, stride, queries and first), rows)

    def scatter(self, heads: int, first: bool = False) -> Tensor:
        """For every token (with `first`, every text), the rows of its heads in the blocks; (T or B, N) int64."""

        def rows() -> Tensor:
            found = np.empty((len(self.starts) if first else sum(self.lengths), heads), np.int64)
            base = 0
            for block in self.blocks(first):
                n, q = block.queries.shape
                # Block and place of every query that is a token and not filling.
                b, place = np.nonzero(block.query_texts != EMPTY)
                number = block.query_texts[b, place] if first else block.queries[b, place]
                found[number] = base + (b[:, None] * heads + np.arange(heads)) * q + place[:, None]
                base += n * heads * q
            return self._tensor(found)

        return self.once(("scatter", heads, first), rows)

    def asked(self, heads: int, first: bool) -> Tensor:
        """For every row of the queries, its row among the answers, which are those of `scatter`; int64, on the device."""
        if not first:
            return self.gather(heads, heads, queries=True)

        def rows() -> Tensor:
            texts = [np.maximum(block.query_texts, 0) for block in self.blocks(first)]  # empty places: any will do
            return self._tensor(
                np.concatenate([(t[:, None] * heads + np.arange(heads)[:, None]).ravel() for t in texts])
            )

        return self.once(("asked", heads), rows)

    def empty_rows(self, heads: int, first: bool = False) -> Tensor:
        """The rows of empty queries."""

        def rows() -> Tensor:
            parts = [np.repeat((b.query_texts == EMPTY)[:, None], heads, 1).ravel() for b in self.blocks(first)]
            return self._tensor(np.flatnonzero(np.concatenate(parts)))

        return self.once(("empty", heads, first), rows)

    def _fill_blocks(self) -> list[Block]:
        return [self._block(width, texts) for width, texts in _widths(self.lengths)]

    def _block(self, width: int, texts: list[int]) -> Block:
        """The Block of `width` that holds `texts`, which are given longest first."""
        bins = _first_fit(texts, self.lengths, width)
        # Empty places hold token 0, which is always there to be read; that they belong to no text is in `owners`.
        tokens, owners = np.zeros((len(bins), width), np.int64), np.full((len(bins), width), EMPTY)
        for row, members in enumerate(bins):
            place = 0
            for text in members:
                start, length = self.starts[text], self.lengths[text]
                tokens[row, place : place + length] = np.arange(start, start + length)
                owners[row, place : place + length] = text
                place += length
        return Block(tokens, owners, tokens, owners)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made at the first call with `key`."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _widths(lengths: list[int]) -> list[tuple[int, list[int]]]:
    """Texts by block width, widest first, so that scores are few, each width counting NEW_WIDTH_SCORES of them.

    Texts sorted by the narrowest width that holds them are cut into runs by dynamic programming; a run's blocks have the
    width of its longest text. A text of length l takes width^2 / floor(width / l) scores there.
    """
    classes: dict[int, list[int]] = {}
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        classes.setdefault(-(-lengths[text] // WIDTH_STEP) * WIDTH_STEP, []).append(text)
    # Ascending: a run of widths is as wide as its last one.
    widths = sorted(classes)
    best, begins = [0.0], [0]  # of the first j widths: the fewest scores, and where their last run begins
    for j in range(1, len(widths) + 1):
        width, scores, found = widths[j - 1], float(NEW_WIDTH_SCORES), []
        for i in range(j - 1, -1, -1):
            scores += sum(width**2 / (width // lengths[text]) for text in classes[widths[i]])
            found.append((best[i] + scores, i))
        fewest, begin = min(found)
        best.append(fewest)
        begins.append(begin)
    # From the widest width back, along the cuts that led to the fewest scores.
    runs, end = [], len(widths)
    while end:
        begin = begins[end]
        runs.append((widths[end - 1], [text for width in reversed(widths[begin:end]) for text in classes[width]]))
        end = begin
    return runs


def _first_fit(texts: list[int], lengths: list[int], width: int) -> list[list[int]]:
    """Bins of `width` tokens: each text, longest first, goes into the first bin with room."""
    bins: list[list[int]] = []
    room: list[int] = []
    first = 0  # bins before it have no room left for the shortest text: a group on a GPU has thousands of bins
    shortest = min((lengths[text] for text in texts), default=0)
    for text in texts:
        length = lengths[text]
        while first < len(bins) and room[first] < shortest:
            first += 1
        for i in range(first, len(bins)):
            if room[i] >= length:
                bins[i].append(text)
                room[i] -= length
                break
        else:
            bins.append([text])
            room.append(width - length)
    return bins


def joined(strips: Sequence[Tensor]) -> Tensor | None:
    """The table (T, sum of W) whose columns the (T, W) `strips` are, left to right and all of them; None if they are not."""
    first = strips[0]
    # Where the next strip must begin, in elements of the storage; and the width of the whole table.
    start, width = first.storage_offset(), sum(strip.shape[1] for strip in strips)
    storage, shape = first.untyped_storage().data_ptr(), (first.shape[0], width)
    for strip in strips:
        same_table = strip.untyped_storage().data_ptr() == storage and strip.shape[0] == shape[0]
        if not same_table or strip.storage_offset() != start or strip.stride() != (width, 1):
            return None
        start += strip.shape[1]
    return first.as_strided(shape, (width, 1))
