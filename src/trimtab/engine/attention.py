"""Attention within each text of a packed batch, in a few large calls instead of one per text.

On a CPU plain matrix products and softmax, over pieces that fit the cache, beat the fused kernel of
scaled_dot_product_attention: for 4 texts of 256 tokens in bfloat16 (12 heads of 32) 2.1 ms against 3.5 forward and 3.3
against 11.3 backward. On a GPU it is one call of torch's flash kernel, which takes texts of any length side by side.
"""

# Shapes: T tokens of the batch, N heads, D width of a head; a block has n times L places and q queries (see layout.py).

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .dropout import MASKS, Mask
from .layout import Block, Layout, joined

PIECE_SCORES = 1 << 20  # scores in one piece: 2 MB in bfloat16
KEPT_SCORES = 16 << 20  # a layer's attention weights are kept for backward up to this many, else computed again


@dataclass
class Call:
    """One attention call: everything but the tensors."""

    layout: Layout
    scaling: float  # of the scores, in front of softmax
    rate: float = 0.0  # of dropout on the attention weights
    window: int | None = None  # tokens see those nearer than this
    first: bool = False  # only the first token of each text asks; the other rows of the answer are 0


@dataclass
class _Piece:
    """Some blocks of one width: where their rows lie, and what dropout does to them."""

    block: Block
    blocks: slice  # which of the n in `block`
    keys: slice  # rows of keys and values
    queries: slice  # rows of queries
    n: int  # blocks times heads
    heads: int
    dropout: Mask | None = None

    def mask(self, call: Call, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """What to add to the scores of each block, or None where every place sees every other."""
        mask = self.block.mask(call.window, dtype, device)
        return None if mask is None else mask[self.blocks]


@dataclass
class Kept:
    """What backward must know of a call, beside its tensors."""

    call: Call
    heads: int
    pieces: list[_Piece]


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """softmax(q k' scaling) v within each text, (1, T, N, D), from q, k and v (1, N, T, D)."""
    if q.device.type == "cpu":
        return _Attention.apply(q, k, v, call)  # pyright: ignore[reportReturnType]
    # Not x[0], whose backward pass would fill a table with zeros first.
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (q, k, v))
    # Here every token asks, `call.first` or not: whoever sets that reads the rows of first tokens and no others.
    # The flash kernels know no float32.
    flash = q.dtype in (torch.bfloat16, torch.float16) and has_flash(q.device, q.shape[-1])
    return (_attend_flash if flash else attend_blocks)(q, k, v, call)[None]


@functools.cache
def has_flash(device: torch.device, width: int) -> bool:
    """Whether the card has the flash kernels, from compute capability 8.0 on, and they take heads of that width."""
    return torch.cuda.get_device_capability(device) >= (8, 0) and width % 8 == 0 and width <= 256


def _attend_flash(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """The same for (T, N, D) in one call for all texts (GPU, half precision).

    torch's operator and not its front `torch.nn.attention.varlen`, which knows no dropout.
    """
    ends, longest = call.layout.ends(), call.layout.longest
    # Counted by torch as how many tokens to either side are seen; ours says nearer than.
    side = None if call.window is None else call.window - 1
    return torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, call.rate, False, False,
        scale=call.scaling, window_size_left=side, window_size_right=side,
    )[0]  # fmt: skip


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """The same for (T, N, D) by torch's own scaled_dot_product_attention, once per block width (GPU in float32)."""
    (tokens, heads, width), layout = q.shape, call.layout
    index = layout.gather(heads, heads, queries=False)
    rows = [x.reshape(-1, width).index_select(0, index) for x in (q, k, v)]
    answers, base = [], 0
    for block in layout.blocks():
        n, length = block.tokens.shape
        # A block's rows go head by head, so a stretch of them is (n, N, L, D) without a copy.
        part = slice(base, base + n * heads * length)
        base = part.stop
        inputs = [x[part].view(n, heads, length, width) for x in rows]
        mask = block.mask(call.window, q.dtype, q.device)
        answer = functional.scaled_dot_product_attention(
            *inputs, attn_mask=mask, dropout_p=call.rate, scale=call.scaling
        )
        answers.append(answer.reshape(-1, width))
    return torch.cat(answers).index_select(0, layout.scatter(heads).view(-1)).view(tokens, heads, width)


class _Attention(torch.autograd.Function):
    """The same on a CPU, with a backward pass of its own, so that nothing is laid out or kept twice.

    Forward, by piece: P = softmax(Q K' s), A = (P * M) V / (1 - p), with the dropout mask M of rate p. Backward, of a gradient G:
    dV = (P * M)' G / (1 - p), dP = M * (G V') / (1 - p), dS = P * (dP - rowsum(dP * P)), dQ = dS K s, dK = dS' Q s.
    Scales go into the products as their alpha; P is kept, or computed again where it would take too much memory.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
        heads, tokens = q.shape[1:3]
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        answer, ctx.kept, tensors = _answered(_rows_of_all(q, k, v, call), heads, call, any(ctx.needs_input_grad[:3]))
        ctx.save_for_backward(*tensors)
        return _back(answer, call, heads, tokens)[None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        call, (tokens, heads) = ctx.kept.call, grads[0].shape[1:3]
        changes = _changes(_rows(grads[0][0], call, queries=True), ctx.kept, ctx.saved_tensors)
        dq, dk, dv = (x.transpose(0, 1)[None] for x in _back_of_all(changes, call, heads, tokens).unbind(1))
        return dq, dk, dv, None


def attend_table(table: Tensor, heads: int, call: Call, keep: bool) -> tuple[Tensor, Kept | None, list[Tensor]]:
    """The same from the strips q, k and v of one table (T, 3 N D), and without a graph.

    Its answer is (T, N D), or (B, N D) of the first tokens where only those ask. With `keep`, what `table_gradient` needs.
    """
    rows = _gathered(table, heads, call)
    answer, kept, tensors = _answered(rows, heads, call, keep)
    index = call.layout.scatter(heads, call.first).view(-1)
    return answer.index_select(0, index).view(-1, table.shape[1] // 3), kept, tensors


def table_gradient(grad: Tensor, kept: Kept, tensors: Sequence[Tensor]) -> Tensor:
    """The gradient of the table (T, 3 N D) from that of the answer."""
    call, heads = kept.call, kept.heads
    width, tokens = grad.shape[1] // heads, sum(call.layout.lengths)
    index = call.layout.asked(heads, call.first)
    changes = _changes(grad.view(-1, width).index_select(0, index), kept, tensors)
    return _back_of_all(changes, call, heads, tokens).view(tokens, -1)


def _answered(rows: list[Tensor], heads: int, call: Call, keep: bool) -> tuple[Tensor, Kept | None, list[Tensor]]:
    """The queries' rows of the answer, from rows of q, k and v; with `keep`, what `_changes` needs."""
    q, k, v = rows
    pieces = list(_pieces(call, heads))
    # Recomputing costs a third more attention; keeping the weights of long texts costs gigabytes.
    small = sum(piece.n * _scores(piece) for piece in pieces) <= KEPT_SCORES
    answer, kept = torch.empty_like(q), []
    for piece in pieces:
        weights = _weights(q, k, piece, call)
        if call.rate > 0:
            # Bytes from the pass's own pool: drawing a mask for every piece took longer than its products.
            masks = MASKS.get()
            assert masks is not None
            piece.dropout = masks.mask(weights.shape, call.rate, weights.dtype)
        if keep and small:
            kept.append(weights)
        # Weights that are not kept may be written over.
        dropped, scale = _dropped(weights, piece, in_place=not small or not keep)
        _product(dropped, _part(v, piece.keys, piece.n), scale, answer[piece.queries])
    return (answer, Kept(call, heads, pieces), [*rows, *kept]) if keep else (answer, None, [])


def _changes(grad: Tensor, kept: Kept, tensors: Sequence[Tensor]) -> Tensor:
    """The gradients of the rows of q, k and v, one behind the other, from that of the answer's rows, which is written to."""
    (q, k, v, *all_weights), call = tensors, kept.call
    grad.index_fill_(0, call.layout.empty_rows(kept.heads, call.first), 0)  # empty places hold token 0, who asked once
    changes = q.new_empty(len(q) + len(k) + len(v), q.shape[1])
    dq, dk, dv = _parts_of_all(changes, call, kept.heads)
    for number, piece in enumerate(kept.pieces):
        # As in the formula of _Attention: dV, dP, dS, dQ, dK.
        weights = all_weights[number] if all_weights else _weights(q, k, piece, call)
        dropped, scale = _dropped(weights, piece, in_place=False)
        g = _part(grad, piece.queries, piece.n)
        _product(dropped.transpose(1, 2), g, scale, dv[piece.keys])
        change = _scaled(g, _part(v, piece.keys, piece.n).transpose(1, 2), scale)
        if piece.dropout is not None:
            change.mul_(piece.dropout.kept)  # its scale went into the product
        change = torch.ops.aten._softmax_backward_data(change, weights, -1, weights.dtype)
        _product(change, _part(k, piece.keys, piece.n), call.scaling, dq[piece.queries])
        _product(change.transpose(1, 2), _part(q, piece.queries, piece.n), call.scaling, dk[piece.keys])
    return changes


def _rows(x: Tensor, call: Call, *, queries: bool) -> Tensor:
    """x (T, N, D) laid out in blocks: (rows, D)."""
    tokens, heads, width = x.shape
    if x.stride(2) != 1 or x.stride(1) != width or x.stride(0) % width:
        x = x.contiguous()
    # Rows of q, k or v may be strips of one wider table (T, 3 N D): its rows are addressed without a copy.
    stride = x.stride(0) // width if tokens > 1 else heads
    table = x.as_strided(((tokens - 1) * stride + heads, width), (width, 1))
    return table.index_select(0, call.layout.gather(heads, stride, queries, call.first))


def _rows_of_all(q: Tensor, k: Tensor, v: Tensor, call: Call) -> list[Tensor]:
    """q, k and v laid out in blocks: at one stroke where they are strips of one table, as from a shared linear map."""
    heads = q.shape[1]
    table = joined([x.reshape(len(x), -1) for x in (q, k, v)])
    if table is None:
        return [_rows(q, call, queries=True), _rows(k, call, queries=False), _rows(v, call, queries=False)]
    return _gathered(table, heads, call)


def _gathered(table: Tensor, heads: int, call: Call) -> list[Tensor]:
    """The strips q, k and v of one table (T, 3 N D) laid out in blocks."""

    def index() -> Tensor:
        asking = call.layout.gather(heads, 3 * heads, True, call.first)
        seen = call.layout.gather(heads, 3 * heads, False)
        return torch.cat([asking, seen + heads, seen + 2 * heads])

    index_of_all = call.layout.once(("gather of all", heads, call.first), index)
    rows = table.view(-1, table.shape[1] // (3 * heads)).index_select(0, index_of_all)
    return _parts_of_all(rows, call, heads)


def _parts_of_all(rows: Tensor, call: Call, heads: int) -> list[Tensor]:
    """The rows of q, k and v, one behind the other, as three tables."""
    asked = sum(block.queries.size for block in call.layout.blocks(call.first)) * heads
    seen = (len(rows) - asked) // 2
    return list(rows.split([asked, seen, seen]))


def _back_of_all(rows: Tensor, call: Call, heads: int, tokens: int) -> Tensor:
    """The rows of q, k and v, one behind the other, as one table (T, 3, N, D)."""
    if call.first:  # fewer queries than keys
        dq, dk, dv = _parts_of_all(rows, call, heads)
        places, shape = call.layout.scatter(heads).view(-1), (tokens, heads, rows.shape[1])
        seen = (x.index_select(0, places).view(shape) for x in (dk, dv))
        return torch.stack([_back(dq, call, heads, tokens), *seen], 1)

    def index() -> Tensor:
        places = call.layout.scatter(heads)
        return torch.cat([places + i * (len(rows) // 3) for i in range(3)], 1).view(-1)

    table = rows.index_select(0, call.layout.once(("scatter of all", heads), index))
    return table.view(tokens, 3, heads, -1)


def _back(rows: Tensor, call: Call, heads: int, tokens: int) -> Tensor:
    """The queries' rows of the blocks as (T, N, D)."""
    found = rows.index_select(0, call.layout.scatter(heads, call.first).view(-1)).view(-1, heads, rows.shape[1])
    if not call.first:
        return found
    # The other tokens did not ask: their rows are 0, and nothing behind reads them.
    return found.new_zeros(tokens, heads, rows.shape[1]).index_copy_(0, call.layout.first_rows(), found)


def _pieces(call: Call, heads: int) -> Iterator[_Piece]:
    """The blocks of the layout in pieces of at most PIECE_SCORES scores, where a block is not larger."""
    key = query = 0
    for block in call.layout.blocks(call.first):
        (n, length), asked = block.tokens.shape, block.queries.shape[1]
        # Whole blocks only: a block's mask and its heads stay together.
        step = max(1, PIECE_SCORES // (heads * asked * length))
        for start in range(0, n, step):
            stop = min(n, start + step)
            count = (stop - start) * heads
            yield _Piece(
                block,
                slice(start, stop),
                slice(key, key + count * length),
                slice(query, query + count * asked),
                count,
                heads,
            )
            key, query = key + count * length, query + count * asked


def _scores(piece: _Piece) -> int:
    """Of one block and head."""
    return piece.block.queries.shape[1] * piece.block.tokens.shape[1]


def _weights(q: Tensor, k: Tensor, piece: _Piece, call: Call) -> Tensor:
    """P = softmax(Q K' s) of a piece, (blocks times heads, q, L)."""
    scores = _scaled(_part(q, piece.queries, piece.n), _part(k, piece.keys, piece.n).transpose(1, 2), call.scaling)
    mask = piece.mask(call, scores.dtype, scores.device)
    if mask is not None:
        # One mask for all heads of a block: -inf where a place is of another text, or empty.
        scores.view(len(mask), piece.heads, *scores.shape[1:]).add_(mask)
    return torch.softmax(scores, -1)


def _dropped(weights: Tensor, piece: _Piece, *, in_place: bool) -> tuple[Tensor, float]:
    """The weights with 0 where dropout drops, and what to multiply their products by."""
    if piece.dropout is None:
        return weights, 1.0
    kept = piece.dropout.kept
    return (weights.mul_(kept) if in_place else weights * kept), piece.dropout.scale


def _part(rows: Tensor, part: slice, n: int) -> Tensor:
    """Some rows (n times L, D) as a batch of n matrices (n, L, D)."""
    return rows[part].view(n, -1, rows.shape[1])


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """a b scale, in one call: with beta=0 the first argument is not read."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


def _product(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    """Writes a b scale into the rows `out`."""
    # Into rows that are there: an answer of its own would be copied once more.
    target = out.view(a.shape[0], a.shape[1], b.shape[2])
    torch.baddbmm(target, a, b, beta=0, alpha=scale, out=target)
