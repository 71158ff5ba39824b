"""The Triton kernels of residual_norm_triton.py, in a file of their own because importing it needs Triton."""

# ruff: noqa: N803 (Triton's constants are written in capitals)
# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def mixed(x):
    """The hash lowbias32 of uint32 values: every bit of the answer depends on every bit of x."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def kept(seed_ptr, call, cut, places):
    """Whether dropout keeps the values at `places`: where 24 bits of their hash are at least `cut`."""
    seed = tl.load(seed_ptr)
    key = mixed(seed.to(tl.uint32) ^ mixed((seed >> 32).to(tl.uint32) + call.to(tl.uint32)))
    bits = mixed(mixed(places.to(tl.uint32)) ^ key)
    return (bits >> 8).to(tl.int32) >= cut


@triton.jit(do_not_specialize=["call", "cut"])
def forward(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, y_ptr, total_ptr, mean_ptr, scale_ptr, seed_ptr, call, cut, factor, width, eps,
    group_ptr, DROPS: tl.constexpr, HAS_BIAS: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of activations: their sum, its mean and one over its deviation, and the answer.

    With GROUPS weight and bias are tables, and `group_ptr` says which row of them is whose.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    places = row * width + columns
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    if DROPS:
        x = tl.where(kept(seed_ptr, call, cut, places), x * factor, 0.0)
    total = x + tl.load(residual_ptr + places, mask=inside, other=0.0).to(tl.float32)
    # Rounded first: backward computes with what is stored.
    stored = total.to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + places, stored, mask=inside)
    value = stored.to(tl.float32)
    mean = tl.sum(value, 0) / width
    centred = tl.where(inside, value - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(scale_ptr + row, scale)
    first = tl.load(group_ptr + row) * width if GROUPS else 0
    y = centred * scale * tl.load(weight_ptr + first + columns, mask=inside, other=0.0)
    if HAS_BIAS:
        y += tl.load(bias_ptr + first + columns, mask=inside, other=0.0)
    tl.store(y_ptr + places, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["call", "cut"])
def backward(
    grad_ptr, total_ptr, weight_ptr, mean_ptr, scale_ptr, dx_ptr, dresidual_ptr, dweight_ptr, dbias_ptr,
    seed_ptr, call, cut, factor, rows, width,
    DROPS: tl.constexpr, WANTS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of each program; its sums of what weight and bias want go to its own row of them."""
    program = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    dweight = tl.zeros((BLOCK,), tl.float32)
    dbias = tl.zeros((BLOCK,), tl.float32)
    for number in range(ROWS):
        row = program * ROWS + number
        # Behind the last row nothing is read or written. A comparison, since not every version takes a mask made with "and".
        wanted = columns < tl.where(row < rows, width, 0)
        places = row * width + columns
        grad = tl.load(grad_ptr + places, mask=wanted, other=0.0).to(tl.float32)
        value = tl.load(total_ptr + places, mask=wanted, other=0.0).to(tl.float32)
        there = tl.minimum(row, rows - 1)
        scale, mean = tl.load(scale_ptr + there), tl.load(mean_ptr + there)
        normed = tl.where(wanted, (value - mean) * scale, 0.0)
        scaled = grad * weight
        along = tl.sum(scaled * normed, 0) / width
        change = (scaled - tl.sum(scaled, 0) / width - normed * along) * scale
        tl.store(dresidual_ptr + places, change.to(dresidual_ptr.dtype.element_ty), mask=wanted)
        if DROPS:
            dx = tl.where(kept(seed_ptr, call, cut, places), change * factor, 0.0)
            tl.store(dx_ptr + places, dx.to(dx_ptr.dtype.element_ty), mask=wanted)
        if WANTS:
            dweight += grad * normed
            dbias += grad
    if WANTS:
        tl.store(dweight_ptr + program * width + columns, dweight, mask=inside)
        tl.store(dbias_ptr + program * width + columns, dbias, mask=inside)
