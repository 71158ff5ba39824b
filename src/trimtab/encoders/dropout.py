"""Dropout whose masks cost little on a CPU: random bytes drawn once per forward pass and cut up.

torch draws one mask value at a time on the CPU, and at p = 0.1 that costs as much as a matrix product. Here eight mask
values come from each 64-bit draw: a value is kept where its byte is at least round(256 p), so the rate is p to 1/512,
and the kept values are divided by the true keeping rate, so the expectation is exact.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

POOL_BYTES = 16 << 20  # fresh random bytes of one forward pass; beyond that, earlier ones are cut up anew
REMEMBERED_VALUES = 0


class Noise:
    """Random bytes for the masks of one forward pass, seeded from torch's global generator.

    The first `limit` bytes asked for are fresh. Later requests (the attention weights of long texts) are slices of
    those at random offsets: two masks may then share bytes, but at unrelated places.
    """

    def __init__(self, limit: int = POOL_BYTES):
        seed = int(torch.randint(2**62, (), dtype=torch.int64))
        self._source = np.random.SFC64(seed)
        self._limit = limit
        self._pool: np.ndarray | None = None  # (limit,), filled from the left as it is asked for
        self._filled = 0

    def take(self, count: int) -> Tensor:
        """`count` random bytes, as uint8 (count,)."""
        if count > self._limit:
            return torch.from_numpy(self._drawn(count))
        if self._pool is None:
            self._pool = np.empty(self._limit, np.uint8)
        start = self._filled
        if start + count > self._limit:
            self._fill(self._limit)
            start = int(self._source.random_raw()) % (self._limit - count + 1)
        else:
            self._fill(start + count)
        return torch.from_numpy(self._pool[start : start + count])

    def _fill(self, end: int) -> None:
        if end > self._filled:
            assert self._pool is not None
            self._pool[self._filled : end] = self._drawn(end - self._filled)
            self._filled = end

    def _drawn(self, count: int) -> np.ndarray:
        return self._source.random_raw((count + 7) // 8).view(np.uint8)[:count]


NOISE: ContextVar[Noise | None] = ContextVar("noise", default=None)
"""The noise of the forward pass that is running; None outside of one."""


class Mask:
    """Which values one dropout keeps. Small masks are remembered as numbers, large ones as the bytes they come from."""

    def __init__(self, bits: Tensor, rate: float):
        self._bits, self._cut = bits, max(1, round(256 * rate))  # bytes below the cut are dropped
        self._kept: Tensor | None = None
        self.scale = 256 / (256 - self._cut)  # 1 / the keeping rate

    def kept(self, dtype: torch.dtype) -> Tensor:
        """1 where kept and 0 where dropped; not to be written to."""
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        kept = torch.ge(self._bits, self._cut, out=torch.empty(self._bits.shape, dtype=dtype))  # half of .to(dtype)'s time
        if kept.numel() <= REMEMBERED_VALUES:
            self._kept = kept
        return kept


def draw_mask(shape: torch.Size, rate: float, noise: Noise) -> Mask:
    """A fresh mask of `shape` that drops values at `rate`."""
    return Mask(noise.take(shape.numel()).view(shape), rate)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return masked(x, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return masked(grads[0], ctx.mask), None


def masked(x: Tensor, mask: Mask) -> Tensor:
    """`x` with 0 where `mask` drops and the rest scaled, in one pass."""
    return torch.addcmul(x.new_zeros(()), x, mask.kept(x.dtype), value=mask.scale)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` with dropout at `rate`: torch's own on other devices and outside of a forward pass with NOISE."""
    noise = NOISE.get()
    if not training or rate == 0:
        return x
    if noise is None or x.device.type != "cpu" or rate >= 0.99:
        return functional.dropout(x, rate, training)
    return _Dropout.apply(x, draw_mask(x.shape, rate, noise))  # pyright: ignore[reportReturnType]


def forward_of(module: nn.Dropout) -> Any:
    """The forward method that replaces `module`'s own."""

    def forward(x: Tensor) -> Tensor:
        return dropout(x, module.p, module.training)

    return forward
