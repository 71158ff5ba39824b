"""Tensors that are neighbouring strips of columns of one table, found again without a copy."""

# Shapes: T rows, W columns of a strip.

from collections.abc import Sequence

from torch import Tensor


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
