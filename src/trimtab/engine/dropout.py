"""Dropout whose masks cost little on a CPU.

torch draws one mask value at a time on the CPU, and at p = 0.1 that costs as much as a matrix product. Here eight values
come from each 64-bit draw: a value is kept where its byte is at least round(256 p), so the rate is p to 1/512 (and never
below 1/256), and kept values are divided by the true keeping rate, so the expectation is exact. The masks of one forward
pass are slices of one pool of zeros and ones; once the pool is used up, slices start at random places in it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

POOL_VALUES = 1 << 20  # fresh mask values of one forward pass, or two masks' worth if that is more
_DRAWN_AT_ONCE = 1 << 18  # values, at least: drawing 50,000 takes a third as long


@dataclass(frozen=True)
class Mask:
    """Which values one dropout keeps."""

    kept: Tensor  # 1 where kept and 0 where dropped; a slice of the pool, not to be written to
    scale: float  # 1 / the keeping rate


@dataclass
class _Pool:
    values: Tensor  # 0 or 1, drawn from the left as they are asked for
    drawn: int = 0
    taken: int = 0


class DropoutMasks:
    """The masks of one forward pass, seeded from torch's global generator.

    The first `limit` values are fresh. Later masks share values with those, but at unrelated places: every mask by itself
    is as random as a fresh one.
    """

    def __init__(self, limit: int = POOL_VALUES):
        self._limit = limit
        self._pools: dict[Any, _Pool] = {}  # by rate and dtype
        self._calls = 0  # of `drawn_on`

    @cached_property
    def _source(self) -> np.random.SFC64:
        """Made with the first mask, so that passes without dropout leave torch's generator alone."""
        return np.random.SFC64(int(torch.randint(2**62, (), dtype=torch.int64)))

    def drawn_on(self, device: torch.device) -> tuple[Tensor, int]:
        """A seed on a GPU, one int64 of its generator, and the number of the call: what our kernels draw their masks from.

        The seed is not read here, so that nothing waits for the card, and a recorded pass draws another at each replay.
        """
        if self._calls == 0:
            self._seed = torch.randint(2**62, (1,), dtype=torch.int64, device=device)
        self._calls += 1
        return self._seed, self._calls

    def mask(self, shape: torch.Size, rate: float, dtype: torch.dtype) -> Mask:
        """A mask of `shape` that drops values at `rate` (between 0 and 1)."""
        cut = min(255, max(1, round(256 * rate)))  # bytes below it are dropped
        count = shape.numel()
        pool = self._pools.get((cut, dtype))
        if pool is None or len(pool.values) < 2 * count:  # half of it lets slices start at many places
            larger = _Pool(torch.empty(max(self._limit, 2 * count), dtype=dtype))
            if pool is not None:  # what was drawn ahead comes first, so that masks do not depend on how much that was
                ahead = pool.values[pool.taken : pool.drawn]
                larger.values[: len(ahead)] = ahead
                larger.drawn = len(ahead)
            pool = self._pools[cut, dtype] = larger
        start = pool.taken
        is_fresh = start + count <= len(pool.values)
        pool.taken = start + count if is_fresh else len(pool.values)
        self._draw(pool, cut)
        if not is_fresh:
            start = int(self._source.random_raw()) % (len(pool.values) - count + 1)
        return Mask(pool.values[start : start + count].view(shape), 256 / (256 - cut))

    def _draw(self, pool: _Pool, cut: int) -> None:
        """Draws what was taken and is not there yet, and some more."""
        if pool.taken <= pool.drawn:
            return
        end = min(len(pool.values), max(pool.taken, pool.drawn + _DRAWN_AT_ONCE))
        count = end - pool.drawn
        drawn = self._source.random_raw((count + 7) // 8).view(np.uint8)[:count]
        # Straight into the pool's dtype: half the time of comparing first and converting then.
        torch.ge(torch.from_numpy(drawn), cut, out=pool.values[pool.drawn : end])
        pool.drawn = end


MASKS: ContextVar[DropoutMasks | None] = ContextVar("masks", default=None)
"""The masks of the forward pass that is running; None outside of one."""


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
    return torch.addcmul(x.new_zeros(()), x, mask.kept, value=mask.scale)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` with dropout at `rate`: torch's own on other devices and outside of a forward pass with MASKS."""
    masks = MASKS.get()
    if not training or rate == 0:
        return x
    if masks is None or x.device.type != "cpu" or rate >= 1:
        return functional.dropout(x, rate, training)
    return _Dropout.apply(x, masks.mask(x.shape, rate, x.dtype))  # pyright: ignore[reportReturnType]


def dropout_forward(module: nn.Dropout) -> Any:
    """The forward method that replaces `module`'s own."""

    def forward(x: Tensor) -> Tensor:
        return dropout(x, module.p, module.training)

    return forward
