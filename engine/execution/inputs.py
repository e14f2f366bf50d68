"""From a scheduled batch to the flat arrays the model reads. Everything is numpy but the last line of each part."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import ScheduledBatch
from engine.execution.attention_groups import AttentionGrouper
from engine.execution.slot_tables import SlotTables
from engine.kernels.paged_attention import AttentionInputs
from engine.models.decoder import StepInputs

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRows:
    """The rows of a step, decode rows before chunks; row r's tokens are first[r] .. first[r] + lengths[r] - 1."""

    slots: Ints  # [rows]
    starts: Ints  # [rows] KV position of the first token
    lengths: Ints  # [rows]
    first: Ints  # [rows] its place among the step's N tokens
    token_slots: Ints  # [N]
    positions: Ints  # [N]


def flatten(batch: ScheduledBatch) -> FlatRows:
    num_decodes = len(batch.decode_slots)
    slots = np.concatenate([batch.decode_slots, batch.chunk_slots]).astype(np.int64)
    starts = np.concatenate([batch.decode_positions, batch.chunk_starts]).astype(np.int64)
    lengths = np.concatenate([np.ones(num_decodes, np.int64), batch.chunk_lengths])
    first = np.cumsum(lengths) - lengths
    if len(batch.chunk_slots) == 0:
        return FlatRows(slots=slots, starts=starts, lengths=lengths, first=first, token_slots=slots, positions=starts)
    positions = np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
    return FlatRows(
        slots=slots,
        starts=starts,
        lengths=lengths,
        first=first,
        token_slots=np.repeat(slots, lengths),
        positions=positions,
    )


def sampled_rows(batch: ScheduledBatch) -> Ints:
    """Indices into the step's rows of those that get a token."""
    num_decodes = len(batch.decode_slots)
    return np.concatenate([np.arange(num_decodes), num_decodes + np.flatnonzero(batch.chunk_samples)])


def build_inputs(rows: FlatRows, logit_tokens: Ints, tables: SlotTables, grouper: AttentionGrouper) -> StepInputs:
    """`logit_tokens`: which of the N tokens logits are wanted of."""
    device = tables.device
    token_slots, positions = torch.from_numpy(rows.token_slots).to(device), torch.from_numpy(rows.positions).to(device)
    return StepInputs(
        tokens=tables.tokens(token_slots, positions),
        positions=positions,
        attention=AttentionInputs(
            slots=tables.cache_slots(token_slots, positions),
            groups=grouper.groups(rows.slots, rows.starts, rows.lengths, rows.first),
        ),
        logit_rows=torch.from_numpy(logit_tokens).to(device),
    )
