"""The largest logit of each row on the GPU, in one pass over the logits: all that a greedy row costs."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.tuning import ARGMAX, ARGMAX_PROGRAMS


def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """logits [S, V] -> tokens [S] int32, the lowest of equals; failed [S] bool: a NaN, +inf, or nothing above -inf."""
    assert logits.stride(1) == 1
    num_rows, size = logits.shape
    block = ARGMAX.size
    blocks = triton.cdiv(size, block)
    # The parts of a row are fixed by the shapes: the same in every replay of a graph.
    per_part = triton.cdiv(blocks, max(1, min(blocks, triton.cdiv(ARGMAX_PROGRAMS, max(1, num_rows)))))
    parts = triton.cdiv(blocks, per_part)
    largest = torch.empty(num_rows, parts, dtype=torch.float32, device=logits.device)
    ids = torch.empty(num_rows, parts, dtype=torch.int32, device=logits.device)
    tokens = torch.empty(num_rows, dtype=torch.int32, device=logits.device)
    failed = torch.empty(num_rows, dtype=torch.int8, device=logits.device)
    if num_rows:
        _largest_of_part[(num_rows, parts)](
            logits, largest, ids, logits.stride(0), size, parts, BLOCK=block, BLOCKS=per_part, num_warps=ARGMAX.warps
        )
        _largest_of_row[(num_rows,)](
            largest, ids, tokens, failed, parts, BLOCK=triton.next_power_of_2(parts), num_warps=1
        )
    return tokens, failed.view(torch.bool)


@triton.jit
def _largest_of_part(logits, largest, ids, row_stride, size, parts, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    lanes = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    best_ids = tl.zeros([BLOCK], tl.int32)
    broken = tl.zeros([BLOCK], tl.int32)
    for index in range(BLOCKS):
        columns = (part * BLOCKS + index) * BLOCK + lanes
        places = logits + row.to(tl.int64) * row_stride + columns
        values = tl.load(places, mask=columns < size, other=-float("inf")).to(tl.float32)
        broken |= (values < float("inf")) == 0
        better = values > best
        best = tl.where(better, values, best)
        best_ids = tl.where(better, columns, best_ids)
    top = tl.max(best, 0)
    lowest = tl.min(tl.where(best == top, best_ids, size), 0)
    tl.store(largest + row * parts + part, tl.where(tl.max(broken, 0) > 0, float("inf"), top))
    tl.store(ids + row * parts + part, lowest)


@triton.jit
def _largest_of_row(largest, ids, tokens, failed, parts, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    values = tl.load(largest + row * parts + lanes, mask=lanes < parts, other=-float("inf"))
    of_part = tl.load(ids + row * parts + lanes, mask=lanes < parts, other=0)
    top = tl.max(values, 0)
    lowest = tl.min(tl.where(values == top, of_part, 2147483647), 0)
    bad = (top == float("inf")) | (top == -float("inf"))
    tl.store(tokens + row, tl.where(bad, 0, lowest))
    tl.store(failed + row, bad.to(tl.int8))
