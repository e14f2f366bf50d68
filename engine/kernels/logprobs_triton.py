"""Log-probabilities on the GPU, in one pass over the logits of the rows that ask.

    scan   every run of 64 logits: its maximum, the sum of its weights, and how many are above the token's
    pick   the row's log-probability and rank; the k runs with the largest maxima, which hold the k largest logits
    top    these logits' k largest, one after the other

Of equal logits the lower id comes first, of runs with equal maxima too: then a token outside the k runs has at least
one before it in each of them.
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.logprobs import TokenLogprobs, token_logprobs
from engine.kernels.ordered_triton import least_kept, ordered, value_of
from engine.kernels.runs_triton import load_runs, top_and_sum
from engine.kernels.sampling import RUN
from engine.kernels.tuning import CHOOSE_RUNS_WARPS, TOP_LOGITS, WEIGH_RUNS

_RUN = tl.constexpr(RUN)
_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)
_MOST_ID = tl.constexpr(2147483647)
_NOTHING = tl.constexpr(-(2**63))

MOST_TOP = max(size for size, _ in TOP_LOGITS)
_SLICE = 64  # rows at a time where more alternatives are asked for than the kernel is good at


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobScratch:
    """What the launches of one step leave for the next one. S rows of R runs."""

    maxima: Tensor  # [S, R] float32
    sums: Tensor  # [S, R] float32
    above: Tensor  # [S, R] int32
    runs: Tensor  # [S, MOST_TOP] int32
    totals: Tensor  # [S] float32: log of the sum of all exponentials


def logprob_scratch(max_rows: int, size: int, device: torch.device) -> LogprobScratch:
    def numbers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    num_runs = triton.cdiv(size, RUN)
    return LogprobScratch(
        maxima=numbers(max_rows, num_runs, dtype=torch.float32),
        sums=numbers(max_rows, num_runs, dtype=torch.float32),
        above=numbers(max_rows, num_runs),
        runs=numbers(max_rows, MOST_TOP),
        totals=numbers(max_rows, dtype=torch.float32),
    )


def logprobs_into(
    out: Tensor, logits: Tensor, rows: Tensor, tokens: Tensor, num_top: int, scratch: LogprobScratch
) -> None:
    """out[i] = what `unpacked` takes apart, of tokens[rows[i]] in logits[rows[i]].

    out [n, 2 + 2 num_top] int32, logits [S, V], rows [n] int32 (negative: padding), tokens [S] int32.
    """
    num_rows, size = len(rows), logits.shape[1]
    assert out.shape == (num_rows, 2 + 2 * num_top) and out.is_contiguous() and 0 <= num_top <= size
    assert logits.stride(1) == 1 and num_rows <= len(scratch.maxima)
    if num_top > MOST_TOP:
        for piece, some in zip(out.split(_SLICE), rows.split(_SLICE), strict=True):
            logprobs_into_twin(piece, logits, some, tokens, num_top)
        return
    s, num_runs = scratch, triton.cdiv(size, RUN)
    candidates, warps = next(row for row in TOP_LOGITS if num_top <= row[0])
    line = (logits, logits.stride(0), rows)
    _scan[(num_rows, triton.cdiv(num_runs, WEIGH_RUNS.size))](
        *line, tokens, tokens.stride(0), s.maxima, s.sums, s.above, num_runs, SIZE=size, RUNS=WEIGH_RUNS.size,
        num_warps=WEIGH_RUNS.warps,
    )  # fmt: skip
    _pick[(num_rows,)](
        *line, tokens, tokens.stride(0), s.maxima, s.sums, s.above, s.runs, s.totals, out, num_top, NUM_RUNS=num_runs,
        BLOCK=triton.next_power_of_2(num_runs), MOST=MOST_TOP, num_warps=CHOOSE_RUNS_WARPS,
    )  # fmt: skip
    if num_top:
        _top[(num_rows,)](
            *line, s.runs, s.totals, out, num_top, SIZE=size, NUM_RUNS=num_runs, CANDIDATES=candidates, MOST=MOST_TOP,
            num_warps=warps,
        )  # fmt: skip


def unpacked(packed: Tensor) -> TokenLogprobs:
    """[n, 2 + 2 k] int32: a row's log-probability (as bits), rank, k most likely ids and their log-probabilities."""
    num_top = (packed.shape[1] - 2) // 2
    floats = packed.view(torch.float32)
    return TokenLogprobs(
        logprobs=floats[:, 0],
        ranks=packed[:, 1],
        top_ids=packed[:, 2 : 2 + num_top],
        top_logprobs=floats[:, 2 + num_top :],
    )


def logprobs_into_twin(out: Tensor, logits: Tensor, rows: Tensor, tokens: Tensor, num_top: int) -> None:
    """Padding is scored as if it were row 0."""
    row = rows.clamp_min(0).long()
    scored, parts = token_logprobs(logits[row].float(), tokens[row].long(), num_top), unpacked(out)
    parts.logprobs.copy_(scored.logprobs)
    parts.ranks.copy_(scored.ranks)
    parts.top_ids.copy_(scored.top_ids)
    parts.top_logprobs.copy_(scored.top_logprobs)


@triton.jit(do_not_specialize_on_alignment=["rows", "tokens"])
def _scan(
    logits,
    row_stride,
    rows,
    tokens,
    token_stride,
    maxima,
    sums,
    above,
    num_runs,
    SIZE: tl.constexpr,
    RUNS: tl.constexpr,
):
    index = tl.program_id(0)
    row = tl.load(rows + index).to(tl.int64)
    if row < 0:
        return
    line = logits + row * row_stride
    chosen = tl.load(line + tl.load(tokens + row * token_stride)).to(tl.float32)
    runs = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    values = load_runs(line, runs, runs < num_runs, SIZE)
    top, total = top_and_sum(values, _LOG2_E)
    tl.store(maxima + index * num_runs + runs, top, mask=runs < num_runs)
    tl.store(sums + index * num_runs + runs, total, mask=runs < num_runs)
    tl.store(above + index * num_runs + runs, tl.sum((values > chosen).to(tl.int32), 1), mask=runs < num_runs)


@triton.jit(do_not_specialize=["num_top"], do_not_specialize_on_alignment=["rows", "tokens", "out"])
def _pick(
    logits,
    row_stride,
    rows,
    tokens,
    token_stride,
    maxima,
    sums,
    above,
    picked,
    totals,
    out,
    num_top,
    NUM_RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
    MOST: tl.constexpr,
):
    index = tl.program_id(0)
    row = tl.load(rows + index).to(tl.int64)
    if row < 0:
        return
    runs = tl.arange(0, BLOCK)
    inside = runs < NUM_RUNS
    tops = tl.load(maxima + index * NUM_RUNS + runs, mask=inside, other=-float("inf"))
    top = tl.max(tops, 0)
    weights = tl.load(sums + index * NUM_RUNS + runs, mask=inside, other=0.0)
    total = top + _LN_2 * tl.log2(tl.sum(weights * tl.exp2((tops - top) * _LOG2_E), 0))
    tl.store(totals + index, total)
    chosen = tl.load(logits + row * row_stride + tl.load(tokens + row * token_stride)).to(tl.float32)
    place = out + index * (2 + 2 * num_top)
    tl.store(place, (chosen - total).to(tl.int32, bitcast=True))
    tl.store(place + 1, 1 + tl.sum(tl.load(above + index * NUM_RUNS + runs, mask=inside, other=0), 0))
    wanted = tl.minimum(num_top, NUM_RUNS)
    if wanted > 0:
        keys = ordered(tops, 0)
        low = tl.min(tl.where(inside, keys, _MOST_ID), 0).to(tl.int64)
        high = tl.max(tl.where(inside, keys, -_MOST_ID - 1), 0).to(tl.int64)
        bound = least_kept(keys, tl.where(inside, 1.0, 0.0), wanted.to(tl.float32), low, high).to(tl.int32)
        over, equal = inside & (keys > bound), inside & (keys == bound)
        num_over = tl.sum(over.to(tl.int32), 0)
        of_equal = num_over + tl.cumsum(equal.to(tl.int32), 0) - 1
        places = tl.where(over, tl.cumsum(over.to(tl.int32), 0) - 1, of_equal)
        tl.store(picked + index * MOST + places, runs, mask=over | (equal & (of_equal < wanted)))


@triton.jit(do_not_specialize=["num_top"], do_not_specialize_on_alignment=["rows", "out"])
def _top(
    logits,
    row_stride,
    rows,
    picked,
    totals,
    out,
    num_top,
    SIZE: tl.constexpr,
    NUM_RUNS: tl.constexpr,
    CANDIDATES: tl.constexpr,
    MOST: tl.constexpr,
):
    index = tl.program_id(0)
    row = tl.load(rows + index).to(tl.int64)
    if row < 0:
        return
    lanes = tl.arange(0, CANDIDATES)
    there = lanes < tl.minimum(num_top, NUM_RUNS)
    runs = tl.load(picked + index * MOST + lanes, mask=there, other=0)
    values = load_runs(logits + row * row_stride, runs, there, SIZE)
    ids = runs[:, None] * _RUN + tl.arange(0, _RUN)[None, :]
    # Value and id as one number: the largest is the most likely, of equals the one with the lowest id.
    left = (ordered(values, 0).to(tl.int64) << 32) | (ids ^ _MOST_ID).to(tl.int64)
    left = tl.where(there[:, None] & (ids < SIZE), left, _NOTHING)
    total = tl.load(totals + index)
    place = out + index * (2 + 2 * num_top) + 2
    for turn in range(0, num_top):
        best = tl.max(tl.max(left, 1), 0)
        tl.store(place + turn, (best & _MOST_ID).to(tl.int32) ^ _MOST_ID)
        logprob = value_of((best >> 32).to(tl.int32), 0) - total
        tl.store(place + num_top + turn, logprob.to(tl.int32, bitcast=True))
        left = tl.where(left == best, _NOTHING, left)
