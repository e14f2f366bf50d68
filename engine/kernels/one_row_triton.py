"""The kernel of `one_row`: some rows of the matrix a program, with what comes before and after the product in it.

On Hopper a launch need not wait for the one before it to end (programmatic dependent launch): a program first asks for
its part of the matrix, which nobody writes, and only then waits for the row that it is multiplied with.
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from triton.language.extra import cuda


@triton.jit
def one_row(
    x,
    weight,
    bias,
    norm,
    out,
    eps,
    SIZE_IN: tl.constexpr,
    SIZE_OUT: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    GATED: tl.constexpr,
    ADD: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Program p makes numbers p * ROWS ... of out [SIZE_OUT]; with NORM a piece is the whole of x [SIZE_IN]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = row < SIZE_OUT
    piece = tl.arange(0, PIECE)
    line = weight + row.to(tl.int64)[:, None] * SIZE_IN + piece[None, :]
    UP: tl.constexpr = SIZE_OUT * SIZE_IN  # from a gate's row to its up's
    inside = real[:, None] & (piece < SIZE_IN)[None, :]
    part = tl.load(line, mask=inside, other=0.0, eviction_policy="evict_first")
    if GATED:
        up_part = tl.load(line + UP, mask=inside, other=0.0, eviction_policy="evict_first")
    if EARLY:
        cuda.gdc_wait()
        cuda.gdc_launch_dependents()
    values = tl.load(x + piece, mask=piece < SIZE_IN, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.load(norm + piece, mask=piece < SIZE_IN, other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(values * values, 0) / SIZE_IN + eps)
        values = (values * factor * scale).to(x.dtype.element_ty).to(tl.float32)
    acc = values[None, :] * part.to(tl.float32)
    for at in range(PIECE, SIZE_IN, PIECE):
        inside = real[:, None] & (at + piece < SIZE_IN)[None, :]
        part = tl.load(line + at, mask=inside, other=0.0, eviction_policy="evict_first")
        values = tl.load(x + at + piece, mask=at + piece < SIZE_IN, other=0.0).to(tl.float32)
        acc += values[None, :] * part.to(tl.float32)
    product = tl.sum(acc, 1)
    if BIAS:
        product += tl.load(bias + row, mask=real, other=0.0).to(tl.float32)
    result = product.to(out.dtype.element_ty)
    if GATED:
        gate = result.to(tl.float32)
        up = tl.sum(values[None, :] * up_part.to(tl.float32), 1).to(out.dtype.element_ty).to(tl.float32)
        result = (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty)
    if ADD:
        held = tl.load(out + row, mask=real, other=0.0).to(tl.float32)
        result = (result.to(tl.float32) + held).to(out.dtype.element_ty)
    tl.store(out + row, result, mask=real)
