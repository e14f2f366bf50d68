"""What requests say of single tokens, on the GPU: the ids allowed, stop ids before min_tokens, biases, bad words.

All of it happens to float32 copies of the rows that ask: the logits stay as they are for log-probabilities and for the
other rows. What a slot's row asks for stands in tables of fixed width, so that the CPU sends it once, when it joins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels import logit_rules_triton as kernels
from engine.kernels.tuning import BAD_WORDS, BIASES, COPY_MASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTables:
    """A line for each of N slots; those with more than one column are parts of one table of wider lines."""

    prompt_lens: Tensor  # int32 [N]
    min_ends: Tensor  # int32 [N] the first position at which stop ids may be drawn
    limited: Tensor  # int32 [N] 1: only allowed ids may be drawn
    num_biases: Tensor  # int32 [N]
    num_words: Tensor  # int32 [N]
    allowed: Tensor  # int32 [N, V / 32] bit b of number i: token 32 i + b
    stops: Tensor  # int32 [N, V / 32] likewise
    bias_ids: Tensor  # int32 [N, B] no id twice
    bias_values: Tensor  # float32 [N, B]
    word_lasts: Tensor  # int32 [N, W] a bad word's last token
    word_counts: Tensor  # int32 [N, W] how many stand before that
    word_befores: Tensor  # int32 [N, W * BEFORE] those, the nearest first


def copy_masked(
    logits: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, tables: RuleTables, copies: Tensor
) -> None:
    """copies[i] = logits[rows[i]] in float32, -inf where slots[i]'s row may not draw at positions[i].

    NaN stands for what must fail the row, +inf included. Negative slots are padding: nothing is written for them.
    """
    size = logits.shape[1]
    assert logits.stride(1) == copies.stride(1) == 1 and copies.dtype == torch.float32
    assert rows.shape == slots.shape == positions.shape and copies.shape == (len(rows), size)
    assert tables.allowed.shape[1] == tables.stops.shape[1] == -(-size // 32)
    kernels.copy_masked[(len(rows), -(-size // COPY_MASKED.size))](
        logits, logits.stride(0), rows, slots, positions, tables.min_ends, tables.limited, tables.allowed,
        tables.stops, tables.allowed.stride(0), copies, copies.stride(0), size, BLOCK=COPY_MASKED.size,
        num_warps=COPY_MASKED.warps,
    )  # fmt: skip


def add_biases(slots: Tensor, tables: RuleTables, copies: Tensor) -> None:
    """copies[i] += the biases of slots[i]."""
    assert len(slots) == len(copies) and copies.stride(1) == 1
    assert tables.bias_ids.stride(0) == tables.bias_values.stride(0)
    kernels.add_biases[(len(slots),)](
        slots, tables.num_biases, tables.bias_ids, tables.bias_values, tables.bias_ids.stride(0), copies,
        copies.stride(0), BLOCK=BIASES.size, num_warps=BIASES.warps,
    )  # fmt: skip


def ban_bad_words(slots: Tensor, positions: Tensor, history: Tensor, tables: RuleTables, copies: Tensor) -> None:
    """copies[i] = -inf at the last token of each bad word whose others are the outputs just before positions[i]."""
    assert len(slots) == len(positions) == len(copies) and copies.stride(1) == 1
    assert tables.word_lasts.stride(0) == tables.word_counts.stride(0) == tables.word_befores.stride(0)
    kernels.ban_bad_words[(len(slots),)](
        slots, positions, tables.prompt_lens, history, history.stride(0), tables.num_words, tables.word_lasts,
        tables.word_counts, tables.word_befores, tables.word_lasts.stride(0), copies, copies.stride(0),
        WORDS=BAD_WORDS.size, BEFORE=tables.word_befores.shape[1] // tables.word_lasts.shape[1],
        num_warps=BAD_WORDS.warps,
    )  # fmt: skip


def copy_masked_twin(
    logits: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, tables: RuleTables, copies: Tensor
) -> None:
    live = slots >= 0
    slot, wide = slots[live].long(), logits[rows[live].long()].float()
    early = positions[live] < tables.min_ends[slot]
    size = logits.shape[1]
    banned = (tables.limited[slot] != 0)[:, None] & ~_bits(tables.allowed[slot], size)
    banned |= early[:, None] & _bits(tables.stops[slot], size)
    copies[live] = torch.where(wide < torch.inf, wide.masked_fill(banned, -torch.inf), torch.nan)


def add_biases_twin(slots: Tensor, tables: RuleTables, copies: Tensor) -> None:
    slot = slots.clamp_min(0).long()
    counts = torch.where(slots >= 0, tables.num_biases[slot], 0)
    entries = torch.arange(tables.bias_ids.shape[1], device=slots.device)
    row, entry = (entries < counts[:, None]).nonzero(as_tuple=True)
    copies[row, tables.bias_ids[slot[row], entry].long()] += tables.bias_values[slot[row], entry]


def ban_bad_words_twin(slots: Tensor, positions: Tensor, history: Tensor, tables: RuleTables, copies: Tensor) -> None:
    slot = slots.clamp_min(0).long()
    befores = tables.word_befores[slot].unflatten(1, (tables.word_lasts.shape[1], -1))
    counts = tables.word_counts[slot]
    back = torch.arange(befores.shape[2], device=slots.device)
    places = (positions[:, None] - 1 - back).clamp_min(0).long()
    written = history[slot[:, None], places]
    same = ((written[:, None, :] == befores) | (back >= counts[:, :, None])).all(-1)
    enough = counts <= (positions - tables.prompt_lens[slot])[:, None]
    num_words = torch.where(slots >= 0, tables.num_words[slot], 0)
    there = torch.arange(counts.shape[1], device=slots.device) < num_words[:, None]
    row, word = (same & enough & there).nonzero(as_tuple=True)
    ids = tables.word_lasts[slot[row], word].long()
    copies[row, ids] = torch.where(copies[row, ids].isnan(), torch.nan, -torch.inf)


def _bits(words: Tensor, size: int) -> Tensor:
    """int32 [n, W] -> bool [n, size]."""
    bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=words.device)
    return (bits & 1).bool().flatten(1)[:, :size]
