"""The kernels of long prefill: one puts a row's keys and values side by side, one merges attention over two halves."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["length"], do_not_specialize_on_alignment=["table"])
def gather(cache, table, out, length, TOKEN: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr):
    """Program (i, p) copies a piece of block i of the row; what lies beyond the row's keys becomes 0."""
    index = tl.program_id(0)
    place = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    inside = place < BLOCK * TOKEN
    there = inside & (index * BLOCK + place // TOKEN < length)
    block = tl.load(table + index, mask=index * BLOCK < length, other=0).to(tl.int64)
    values = tl.load(cache + block * (BLOCK * TOKEN) + place, mask=there, other=0.0)
    tl.store(out + index.to(tl.int64) * (BLOCK * TOKEN) + place, values, mask=inside)


@triton.jit
def merge(
    merged,
    part,
    logs,
    part_logs,
    token_stride,
    head_stride,
    log_token_stride,
    log_head_stride,
    HEADS: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
):
    """Program i weighs token i of both by their sums of exponentials."""
    token = tl.program_id(0).to(tl.int64)
    head, dim = tl.arange(0, HEADS_PAD), tl.arange(0, DIM_PAD)
    real = head < HEADS
    ours = real[:, None] & (dim < DIM)[None, :]
    of_log = token * log_token_stride + head * log_head_stride
    log_a = tl.load(logs + of_log, mask=real, other=0.0)
    log_b = tl.load(part_logs + of_log, mask=real, other=0.0)
    share = 1.0 / (1.0 + tl.exp(log_b - log_a))
    place = token * token_stride + head[:, None] * head_stride + dim[None, :]
    a = tl.load(merged + place, mask=ours, other=0.0).to(tl.float32)
    b = tl.load(part + place, mask=ours, other=0.0).to(tl.float32)
    tl.store(merged + place, (b + (a - b) * share[:, None]).to(merged.dtype.element_ty), mask=ours)
    top = tl.maximum(log_a, log_b)
    tl.store(logs + of_log, top + tl.log(tl.exp(log_a - top) + tl.exp(log_b - top)), mask=real)
