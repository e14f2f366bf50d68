"""Penalties on the GPU: a row costs its tokens so far, not the vocabulary.

    count   every token of the row's history raises its number in the row's counts
    apply   every token of the history takes its number away and leaves zero; who got it changes that logit

So each token is penalized once, whichever of its places comes first, and the counts are zero again for the next step.
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.tuning import PENALTIES, PENALTY_PARTS

_IN_PROMPT = tl.constexpr(1 << 30)  # beside the number of outputs, which is less


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyTables:
    """A number for each slot."""

    prompt_lens: Tensor  # int32
    repetition: Tensor  # float32; 1 = off
    presence: Tensor  # float32; 0 = off
    frequency: Tensor  # float32; 0 = off


def penalize(
    slots: Tensor, positions: Tensor, history: Tensor, tables: PenaltyTables, counts: Tensor, logits: Tensor
) -> None:
    """Penalize logits [S, V] float32 in place, row i by the first positions[i] tokens of history[slots[i]].

    counts [S, V] int32 is zero before and after. Negative slots are padding. `penalties.penalize` is the twin.
    """
    assert len(slots) == len(positions) == len(logits) and counts.shape == logits.shape
    assert logits.dtype == torch.float32 and logits.stride(1) == counts.stride(1) == 1
    grid, shapes = (len(slots), PENALTY_PARTS), {"PARTS": PENALTY_PARTS, "BLOCK": PENALTIES.size}
    t, rows = tables, (slots, positions, history, history.stride(0))
    penalties = (t.repetition, t.presence, t.frequency, t.prompt_lens)
    _count[grid](*rows, *penalties, counts, counts.stride(0), **shapes, num_warps=PENALTIES.warps)
    _apply[grid](
        *rows, t.repetition, t.presence, t.frequency, counts, counts.stride(0), logits, logits.stride(0), **shapes,
        num_warps=PENALTIES.warps, enable_fp_fusion=False,  # rounded as the twin rounds
    )  # fmt: skip


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _count(
    slots,
    positions,
    history,
    history_width,
    repetitions,
    presences,
    frequencies,
    prompt_lens,
    counts,
    count_stride,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    slot = tl.load(slots + index)
    if slot < 0:
        return
    if (tl.load(repetitions + slot) == 1.0) & (tl.load(presences + slot) == 0.0) & (tl.load(frequencies + slot) == 0.0):
        return
    length = tl.load(positions + index)
    prompt_len = tl.load(prompt_lens + slot)
    line = counts + index.to(tl.int64) * count_stride
    for start in range(tl.program_id(1) * BLOCK, length, PARTS * BLOCK):
        places = start + tl.arange(0, BLOCK)
        there = places < length
        ids = tl.load(history + slot.to(tl.int64) * history_width + places, mask=there, other=0)
        drawn = places >= prompt_len
        tl.atomic_add(line + ids, tl.full([BLOCK], 1, tl.int32), mask=there & drawn, sem="relaxed")
        tl.atomic_or(line + ids, tl.full([BLOCK], _IN_PROMPT, tl.int32), mask=there & (drawn == 0), sem="relaxed")


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _apply(
    slots,
    positions,
    history,
    history_width,
    repetitions,
    presences,
    frequencies,
    counts,
    count_stride,
    logits,
    logit_stride,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    slot = tl.load(slots + index)
    if slot < 0:
        return
    repetition, presence = tl.load(repetitions + slot), tl.load(presences + slot)
    frequency = tl.load(frequencies + slot)
    if (repetition == 1.0) & (presence == 0.0) & (frequency == 0.0):
        return
    length = tl.load(positions + index)
    line = index.to(tl.int64)
    for start in range(tl.program_id(1) * BLOCK, length, PARTS * BLOCK):
        places = start + tl.arange(0, BLOCK)
        there = places < length
        ids = tl.load(history + slot.to(tl.int64) * history_width + places, mask=there, other=0)
        number = tl.atomic_xchg(
            counts + line * count_stride + ids, tl.full([BLOCK], 0, tl.int32), mask=there, sem="relaxed"
        )
        ours = there & (number != 0)
        drawn = (number & (_IN_PROMPT - 1)).to(tl.float32)
        values = tl.load(logits + line * logit_stride + ids, mask=ours, other=0.0)
        divided = tl.div_rn(values, tl.full([BLOCK], 1.0, tl.float32) * repetition)
        values = tl.where(values > 0.0, divided, values * repetition)
        values -= drawn * frequency + tl.where(drawn > 0.0, presence, 0.0)
        tl.store(logits + line * logit_stride + ids, values, mask=ours)
