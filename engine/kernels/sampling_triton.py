"""Draws a token for each row on the GPU with the parameters of its slot, greedy rows among random ones.

    weigh    every run of 64 logits: its maximum and the sum of its weights     one pass over the logits
    choose   greedy and unfiltered rows are done; for filtered ones the runs    maxima and sums only
             with the largest maxima, which hold every logit from a floor up
    filter   top_k, top_p, min_p among these, then the race; done, unless       at most half of FILTER_RUNS
             they are more, or the threshold lies below the floor
    search   filter again where they were more; the same over the whole row,    a pass for each three keys
             for rows that are still not done                                    that may be the threshold

Thresholds are found by narrowing over logits as integers: nothing is sorted, and every shape is fixed by [S, V], so
that a CUDA graph can hold it all.
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.noise_triton import gumbel, row_key, run_noise
from engine.kernels.ordered_triton import least_kept, ordered, ordered_up, value_of
from engine.kernels.runs_triton import load_runs, top_and_sum
from engine.kernels.sampling import RUN, SlotParameters
from engine.kernels.tuning import CHOOSE_RUNS_WARPS, FILTER_RUNS, SEARCH_RUNS, WEIGH_RUNS

_RUN = tl.constexpr(RUN)
_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)
_NONE = tl.constexpr(2147483647)
_DONE, _FILTER, _FILTER_WIDE, _SEARCH = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)

_SHIFTS = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scratch:
    """What the launches of one draw leave for the next one. S rows of R runs."""

    maxima: Tensor  # [S, R] float32
    sums: Tensor  # [S, R] float32: of exp((logit - the run's maximum) / temperature)
    runs: Tensor  # [S, FILTER_RUNS] int32
    num_runs: Tensor  # [S] int32
    floors: Tensor  # [S] int32: every logit whose key reaches it is in one of the runs
    tops: Tensor  # [S] float32: each row's largest logit
    masses: Tensor  # [S] float32: of the row, in weights relative to its largest logit's
    stages: Tensor  # [S] int32: which launch has the row to do next


def sample(logits: Tensor, slots: Tensor, positions: Tensor, parameters: SlotParameters) -> tuple[Tensor, Tensor]:
    """logits [S, V] -> tokens [S] int32, failed [S] bool (a NaN, +inf, or nothing above -inf: the token is 0).

    slots [S] int32: whose parameters a row has; negative: the row is none, nothing is written for it. positions [S]:
    where the drawn tokens will stand.
    """
    assert logits.stride(1) == 1
    num_rows, size = logits.shape
    assert slots.shape == positions.shape == (num_rows,)
    tokens = torch.empty(num_rows, dtype=torch.int32, device=logits.device)
    failed = torch.empty(num_rows, dtype=torch.int8, device=logits.device)
    if not num_rows:
        return tokens, failed.view(torch.bool)
    num_runs = triton.cdiv(size, RUN)
    p, scratch = parameters, _allocate(num_rows, num_runs, logits.device)
    s, shift, of_rows = scratch, _SHIFTS[logits.dtype], (p.seeds, positions)
    _weigh[(num_rows, triton.cdiv(num_runs, WEIGH_RUNS.size))](
        logits, logits.stride(0), slots, p.temperature, s.maxima, s.sums, num_runs, SIZE=size,
        RUNS=WEIGH_RUNS.size, num_warps=WEIGH_RUNS.warps,
    )  # fmt: skip
    row = (logits, logits.stride(0), slots, p.temperature, p.top_k, p.top_p, p.min_p, *of_rows, tokens)
    _choose[(num_rows,)](
        *row, failed, s.maxima, s.sums, s.runs, s.num_runs, s.floors, s.tops, s.masses, s.stages, SIZE=size,
        NUM_RUNS=num_runs, BLOCK=triton.next_power_of_2(num_runs), CANDIDATES=FILTER_RUNS.size, SHIFT=shift,
        num_warps=CHOOSE_RUNS_WARPS,
    )  # fmt: skip
    _filter[(num_rows,)](
        *row, s.runs, s.num_runs, s.floors, s.masses, s.stages, SIZE=size, CANDIDATES=FILTER_RUNS.size, SHIFT=shift,
        num_warps=FILTER_RUNS.warps,
    )  # fmt: skip
    _search[(num_rows,)](
        *row, s.runs, s.num_runs, s.floors, s.tops, s.masses, s.stages, SIZE=size, CANDIDATES=FILTER_RUNS.size,
        RUNS=SEARCH_RUNS.size, SHIFT=shift, num_warps=SEARCH_RUNS.warps,
    )  # fmt: skip
    return tokens, failed.view(torch.bool)


def _allocate(num_rows: int, num_runs: int, device: torch.device) -> _Scratch:
    def numbers(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return _Scratch(
        maxima=numbers(num_rows, num_runs, dtype=torch.float32),
        sums=numbers(num_rows, num_runs, dtype=torch.float32),
        runs=numbers(num_rows, FILTER_RUNS.size, dtype=torch.int32),
        num_runs=numbers(num_rows, dtype=torch.int32),
        floors=numbers(num_rows, dtype=torch.int32),
        tops=numbers(num_rows, dtype=torch.float32),
        masses=numbers(num_rows, dtype=torch.float32),
        stages=numbers(num_rows, dtype=torch.int32),
    )


@triton.jit(do_not_specialize_on_alignment=["slots"])
def _weigh(logits, row_stride, slots, temperatures, maxima, sums, num_runs, SIZE: tl.constexpr, RUNS: tl.constexpr):
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    temperature = tl.load(temperatures + slot)
    factor = _LOG2_E / tl.where(temperature > 0.0, temperature, 1.0)
    runs = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    values = load_runs(logits + row.to(tl.int64) * row_stride, runs, runs < num_runs, SIZE)
    top, total = top_and_sum(values, factor)
    tl.store(maxima + row * num_runs + runs, top, mask=runs < num_runs)
    tl.store(sums + row * num_runs + runs, total, mask=runs < num_runs)


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _choose(
    logits,
    row_stride,
    slots,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    seeds,
    positions,
    tokens,
    failed,
    maxima,
    sums,
    chosen,
    num_chosen,
    floors,
    all_tops,
    masses,
    stages,
    SIZE: tl.constexpr,
    NUM_RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
    CANDIDATES: tl.constexpr,
    SHIFT: tl.constexpr,
):
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    if slot < 0:
        tl.store(stages + row, _DONE)
        return
    line = logits + row.to(tl.int64) * row_stride
    runs = tl.arange(0, BLOCK)
    inside = runs < NUM_RUNS
    tops = tl.load(maxima + row * NUM_RUNS + runs, mask=inside, other=-float("inf"))
    totals = tl.load(sums + row * NUM_RUNS + runs, mask=inside, other=0.0)
    top = tl.max(tops, 0)
    broken = (tl.max((totals != totals).to(tl.int32), 0) > 0) | (top == -float("inf")) | (top == float("inf"))
    tl.store(failed + row, broken.to(tl.int8))
    if broken:
        tl.store(tokens + row, 0)
        tl.store(stages + row, _DONE)
        return
    temperature = tl.load(temperatures + slot)
    if temperature > 0.0:
        top_k = tl.load(top_ks + slot)
        filtered = ((top_k > 0) & (top_k < SIZE)) | (tl.load(top_ps + slot) < 1.0) | (tl.load(min_ps + slot) > 0.0)
        if filtered:
            keys = ordered(tops, SHIFT)
            floor = tl.min(tl.where(inside, keys, _NONE), 0).to(tl.int64)
            if NUM_RUNS > CANDIDATES:
                # Above the largest key that more runs reach than there is room for: equals of it stay out together.
                few = (top_k > 0) & (top_k <= CANDIDATES // 2)
                room = tl.where(few, CANDIDATES // 2, CANDIDATES) + 1.0
                floor = least_kept(keys, tl.where(inside, 1.0, 0.0), room, floor, ordered(top, SHIFT).to(tl.int64))
                floor += 1
            else:
                floor = ordered(tl.full([], -float("inf"), tl.float32), SHIFT).to(tl.int64)
            reached = inside & (keys >= floor.to(tl.int32))
            places = tl.cumsum(reached.to(tl.int32), 0) - 1
            tl.store(chosen + row * CANDIDATES + places, runs, mask=reached)
            count = tl.sum(reached.to(tl.int32), 0)
            tl.store(num_chosen + row, count)
            tl.store(floors + row, floor.to(tl.int32))
            tl.store(all_tops + row, top)
            factor = _LOG2_E / temperature
            tl.store(masses + row, tl.sum(totals * tl.exp2((tops - top) * factor), 0))
            tl.store(stages + row, tl.where(count > CANDIDATES // 2, _FILTER_WIDE, _FILTER))
        else:
            key = row_key(tl.load(seeds + slot), tl.load(positions + row))
            weights = _log_weights(tops, totals, temperature) + run_noise(key, runs)
            best = tl.max(weights, 0)
            winner = tl.min(tl.where(weights == best, runs, BLOCK), 0)
            token = _race_in_run(line, winner, SIZE, temperature, -float("inf"), key)
            tl.store(tokens + row, token)
            tl.store(stages + row, _DONE)
    else:
        winner = tl.min(tl.where(tops == top, runs, BLOCK), 0)
        ids = winner * _RUN + tl.arange(0, _RUN)
        values = tl.load(line + ids, mask=ids < SIZE, other=-float("inf")).to(tl.float32)
        tl.store(tokens + row, tl.min(tl.where(values == top, ids, _NONE), 0))
        tl.store(stages + row, _DONE)


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _filter(
    logits,
    row_stride,
    slots,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    seeds,
    positions,
    tokens,
    chosen,
    num_chosen,
    floors,
    masses,
    stages,
    SIZE: tl.constexpr,
    CANDIDATES: tl.constexpr,
    SHIFT: tl.constexpr,
):
    row = tl.program_id(0)
    if tl.load(stages + row) != _FILTER:
        return
    resolved = _filter_among(
        row, logits, row_stride, slots, temperatures, top_ks, top_ps, min_ps, seeds, positions, tokens,
        chosen, num_chosen, floors, masses, SIZE, CANDIDATES // 2, CANDIDATES, SHIFT,
    )  # fmt: skip
    tl.store(stages + row, tl.where(resolved, _DONE, _SEARCH))


@triton.jit
def _filter_among(
    row,
    logits,
    row_stride,
    slots,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    seeds,
    positions,
    tokens,
    chosen,
    num_chosen,
    floors,
    masses,
    SIZE: tl.constexpr,
    LANES: tl.constexpr,
    CANDIDATES: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The row's filters and its race among its chosen runs, at most LANES; False: its threshold lies below them."""
    slot = tl.load(slots + row)
    temperature = tl.load(temperatures + slot)
    factor = _LOG2_E / temperature
    line = logits + row.to(tl.int64) * row_stride
    lanes = tl.arange(0, LANES)
    present = lanes < tl.load(num_chosen + row)
    runs = tl.load(chosen + row * CANDIDATES + lanes, mask=present, other=0)
    values = load_runs(line, runs, present, SIZE)
    top = tl.max(tl.max(values, 1), 0)
    floor = tl.load(floors + row).to(tl.int64)
    keys, top_key = ordered(values, SHIFT), ordered(top, SHIFT).to(tl.int64)
    weights = tl.exp2((values - top) * factor)
    top_k, top_p, min_p = tl.load(top_ks + slot), tl.load(top_ps + slot), tl.load(min_ps + slot)
    bound, mass = floor, tl.load(masses + row)
    resolved = floor == floor
    by_count = (top_k > 0) & (top_k < SIZE)
    if by_count:
        there = (values > -float("inf")).to(tl.float32)
        wanted = top_k.to(tl.float32)
        resolved = tl.sum(tl.where(keys >= floor.to(tl.int32), there, 0.0)) >= wanted
        bound = least_kept(keys, there, wanted, floor, top_key)
        mass = tl.sum(tl.where(keys >= bound.to(tl.int32), weights, 0.0))
    if top_p < 1.0:
        wanted_mass = top_p * mass
        held = tl.sum(tl.where(keys >= bound.to(tl.int32), weights, 0.0))
        resolved = resolved & (by_count | (held >= wanted_mass))
        bound = least_kept(keys, weights, wanted_mass, bound, top_key)
    if min_p > 0.0:
        least = ordered_up(top + temperature * tl.log(min_p), SHIFT)
        resolved = resolved & (by_count | (top_p < 1.0) | (least >= floor))
        bound = tl.maximum(bound, least)
    if resolved:
        key = row_key(tl.load(seeds + slot), tl.load(positions + row))
        raced = _race_between_runs(values, keys, bound, runs, factor, temperature, key)
        best = tl.max(raced, 0)
        winner = tl.min(tl.where(raced == best, runs, _NONE), 0)
        token = _race_in_run(line, winner, SIZE, temperature, value_of(bound, SHIFT), key)
        tl.store(tokens + row, token)
    return resolved


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _search(
    logits,
    row_stride,
    slots,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    seeds,
    positions,
    tokens,
    chosen,
    num_chosen,
    floors,
    tops,
    masses,
    stages,
    SIZE: tl.constexpr,
    CANDIDATES: tl.constexpr,
    RUNS: tl.constexpr,
    SHIFT: tl.constexpr,
):
    row = tl.program_id(0)
    stage = tl.load(stages + row)
    if stage == _DONE:
        return
    if stage == _FILTER_WIDE:
        resolved = _filter_among(
            row, logits, row_stride, slots, temperatures, top_ks, top_ps, min_ps, seeds, positions, tokens,
            chosen, num_chosen, floors, masses, SIZE, CANDIDATES, CANDIDATES, SHIFT,
        )  # fmt: skip
        stage = tl.where(resolved, _DONE, _SEARCH)
    if stage == _SEARCH:
        _search_all(
            row, logits, row_stride, slots, temperatures, top_ks, top_ps, min_ps, seeds, positions, tokens, tops,
            masses, SIZE, RUNS, SHIFT,
        )  # fmt: skip


@triton.jit
def _search_all(
    row,
    logits,
    row_stride,
    slots,
    temperatures,
    top_ks,
    top_ps,
    min_ps,
    seeds,
    positions,
    tokens,
    tops,
    masses,
    SIZE: tl.constexpr,
    RUNS: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """The row's filters and its race among all logits."""
    slot = tl.load(slots + row)
    temperature = tl.load(temperatures + slot)
    factor = _LOG2_E / temperature
    line = logits + row.to(tl.int64) * row_stride
    top_k, top_p, min_p = tl.load(top_ks + slot), tl.load(top_ps + slot), tl.load(min_ps + slot)
    top = tl.load(tops + row)
    high = ordered(top, SHIFT).to(tl.int64)
    bound = ordered_up(tl.full([], -3.4028234663852886e38, tl.float32), SHIFT)
    mass = tl.load(masses + row)
    if (top_k > 0) & (top_k < SIZE):
        bound = _row_bound(line, SIZE, top_k.to(tl.float32), bound, high, top, top, top, factor, RUNS, SHIFT, True)
        mass, _, _ = _row_amounts(line, SIZE, bound, bound, bound, top, factor, RUNS, SHIFT, False)
    if top_p < 1.0:
        # Below this the whole vocabulary would weigh less than what top_p leaves out.
        least = top + temperature * tl.log(0.5 * (1.0 - top_p) / SIZE)
        low = tl.maximum(bound, ordered(least, SHIFT).to(tl.int64))
        likely = _likely_bound(line, SIZE, (1.0 - top_p) * mass, low, high, top, factor, RUNS, SHIFT)
        spread = 0.05 * temperature
        bound = _row_bound(
            line, SIZE, top_p * mass, low, high, likely - spread, likely + spread, top, factor, RUNS, SHIFT, False
        )
    if min_p > 0.0:
        bound = tl.maximum(bound, ordered_up(top + temperature * tl.log(min_p), SHIFT))
    key = row_key(tl.load(seeds + slot), tl.load(positions + row))
    best = tl.full([RUNS], -float("inf"), tl.float64)
    winners = tl.zeros([RUNS], tl.int32)
    for start in range(0, SIZE, RUNS * _RUN):
        runs = start // _RUN + tl.arange(0, RUNS)
        values = load_runs(line, runs, runs * _RUN < SIZE, SIZE)
        raced = _race_between_runs(values, ordered(values, SHIFT), bound, runs, factor, temperature, key)
        winners = tl.where(raced > best, runs, winners)
        best = tl.maximum(raced, best)
    won = tl.max(best, 0)
    winner = tl.min(tl.where(best == won, winners, _NONE), 0)
    tl.store(tokens + row, _race_in_run(line, winner, SIZE, temperature, value_of(bound, SHIFT), key))


@triton.jit
def _log_weights(tops, totals, temperature):
    """Of runs, in float64; -inf for a run without weight."""
    logs = tops / temperature + _LN_2 * tl.log2(tl.maximum(totals, 1e-30))
    return tl.where(totals > 0.0, logs, -float("inf")).to(tl.float64)


@triton.jit
def _race_between_runs(values, keys, bound, runs, factor, temperature, key):
    """Each run's log weight over what reaches the bound, plus noise."""
    kept = tl.where(keys >= bound.to(tl.int32), values, -float("inf"))
    top, total = top_and_sum(kept, factor)
    return _log_weights(top, total, temperature) + run_noise(key, runs)


@triton.jit
def _race_in_run(line, run, SIZE: tl.constexpr, temperature, least, key):
    """The token of a run that wins among those that reach `least`; the lowest of equals."""
    ids = run * _RUN + tl.arange(0, _RUN)
    values = tl.load(line + ids, mask=ids < SIZE, other=-float("inf")).to(tl.float32)
    values = tl.where(values >= least, values / temperature, -float("inf"))
    raced = values.to(tl.float64) + gumbel(key, ids)
    best = tl.max(raced, 0)
    return tl.min(tl.where(raced == best, ids, _NONE), 0)


@triton.jit
def _likely_bound(line, SIZE: tl.constexpr, left_out, low, high, top, factor, RUNS: tl.constexpr, SHIFT: tl.constexpr):
    """About the logit below which the row weighs `left_out`, from runs that stand evenly in it: the tail is many."""
    EVERY: tl.constexpr = max(1, SIZE // (RUNS * _RUN))
    values = load_runs(line, tl.arange(0, RUNS) * EVERY, tl.arange(0, RUNS) * (EVERY * _RUN) < SIZE, SIZE)
    values = tl.where(values >= value_of(low, SHIFT), values, -float("inf"))
    keys, weights = ordered(values, SHIFT), tl.exp2((values - top) * factor)
    above = tl.sum(weights) - left_out / EVERY
    return value_of(least_kept(keys, weights, above, low, high), SHIFT)


@triton.jit
def _row_bound(
    line,
    SIZE: tl.constexpr,
    wanted,
    low,
    high,
    first,
    last,
    top,
    factor,
    RUNS: tl.constexpr,
    SHIFT: tl.constexpr,
    COUNT: tl.constexpr,
):
    """The largest key in [low, high] from which upwards there are `wanted` logits, or weighs so much; low if none does.

    Every pass over the row tries three keys; for weights at first those of `first`, `last` and the value between them.
    """
    passes = 0
    while low < high:
        # For weights values first: half of all integers stand for magnitudes below 1.
        if passes > 0:
            first = 0.75 * value_of(low, SHIFT) + 0.25 * value_of(high, SHIFT)
            last = 0.25 * value_of(low, SHIFT) + 0.75 * value_of(high, SHIFT)
        a = ordered(first, SHIFT).to(tl.int64)
        b = ordered(0.5 * first + 0.5 * last, SHIFT).to(tl.int64)
        c = ordered(last, SHIFT).to(tl.int64)
        if (passes > 5) | COUNT:
            a, b, c = low + ((high - low) >> 2), low + ((high - low) >> 1), high - ((high - low) >> 2)
        a = tl.minimum(tl.maximum(a, low + 1), high)
        b = tl.minimum(tl.maximum(b, a), high)
        c = tl.minimum(tl.maximum(c, b), high)
        of_a, of_b, of_c = _row_amounts(line, SIZE, a, b, c, top, factor, RUNS, SHIFT, COUNT)
        next_high = tl.where(of_a < wanted, a - 1, tl.where(of_b < wanted, b - 1, tl.where(of_c < wanted, c - 1, high)))
        low = tl.where(of_c >= wanted, c, tl.where(of_b >= wanted, b, tl.where(of_a >= wanted, a, low)))
        high = next_high
        passes += 1
    return low


@triton.jit
def _row_amounts(
    line, SIZE: tl.constexpr, a, b, c, top, factor, RUNS: tl.constexpr, SHIFT: tl.constexpr, COUNT: tl.constexpr
):
    """How many logits of the row reach each of three keys, or their weight."""
    least_a, least_b, least_c = value_of(a, SHIFT), value_of(b, SHIFT), value_of(c, SHIFT)
    of_a = tl.zeros([RUNS, _RUN], tl.float32)
    of_b = tl.zeros([RUNS, _RUN], tl.float32)
    of_c = tl.zeros([RUNS, _RUN], tl.float32)
    for start in range(0, SIZE, RUNS * _RUN):
        runs = start // _RUN + tl.arange(0, RUNS)
        values = load_runs(line, runs, runs * _RUN < SIZE, SIZE)
        weights = 1.0 if COUNT else tl.exp2((values - top) * factor)
        of_a += tl.where(values >= least_a, weights, 0.0)
        of_b += tl.where(values >= least_b, weights, 0.0)
        of_c += tl.where(values >= least_c, weights, 0.0)
    return tl.sum(of_a), tl.sum(of_b), tl.sum(of_c)
