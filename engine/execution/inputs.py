"""From a scheduled batch to the flat arrays the model reads. Numpy up to the last step."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.batch import Int64s, ScheduledBatch
from engine.execution.attention_groups import AttentionGrouper, runs
from engine.execution.slot_tables import SlotTables
from engine.kernels.paged_attention import AttentionInputs
from engine.models.decoder import StepInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """The rows of a step, decode rows before chunks. Row r's tokens stand at first[r] .. first[r] + lengths[r] - 1."""

    slots: Int64s  # [rows]
    starts: Int64s  # [rows] KV position of the first token
    lengths: Int64s  # [rows]
    first: Int64s  # [rows]
    order: Int64s  # [rows] in which they are computed
    parts: list[slice]  # of `order`: the groups for attention

    @property
    def ends(self) -> Int64s:
        return self.starts + self.lengths


def step_rows(batch: ScheduledBatch, grouper: AttentionGrouper) -> StepRows:
    slots = np.concatenate([batch.decode_slots, batch.chunk_slots]).astype(np.int64)
    starts = np.concatenate([batch.decode_positions, batch.chunk_starts]).astype(np.int64)
    lengths = np.concatenate([np.ones(len(batch.decode_slots), np.int64), batch.chunk_lengths])
    order, parts = grouper.order(lengths, starts + lengths)
    first = np.empty_like(starts)
    first[order] = np.cumsum(lengths[order]) - lengths[order]
    return StepRows(slots=slots, starts=starts, lengths=lengths, first=first, order=order, parts=parts)


def rows_in_order(batch: ScheduledBatch) -> StepRows:
    """The same where attention needs no groups: rows are computed in the order in which they came."""
    slots = np.concatenate([batch.decode_slots, batch.chunk_slots]).astype(np.int64)
    starts = np.concatenate([batch.decode_positions, batch.chunk_starts]).astype(np.int64)
    lengths = np.concatenate([np.ones(len(batch.decode_slots), np.int64), batch.chunk_lengths])
    first = np.cumsum(lengths) - lengths
    return StepRows(slots=slots, starts=starts, lengths=lengths, first=first, order=np.arange(len(slots)), parts=[])


def sampled_rows(batch: ScheduledBatch) -> Int64s:
    """Indices into the step's rows of those that get a token."""
    num_decodes = len(batch.decode_slots)
    return np.concatenate([np.arange(num_decodes), num_decodes + np.flatnonzero(batch.chunk_samples)])


def build_inputs(rows: StepRows, wanted: Int64s, tables: SlotTables, grouper: AttentionGrouper) -> StepInputs:
    """`wanted`: the places of the tokens whose hidden states are returned."""
    slots, starts, lengths, first = (of[rows.order] for of in (rows.slots, rows.starts, rows.lengths, rows.first))
    token_slots = torch.from_numpy(np.repeat(slots, lengths)).to(tables.device)
    positions = torch.from_numpy(runs(starts, lengths)).to(tables.device)
    groups = [grouper.group(slots[part], starts[part], lengths[part], int(first[part.start])) for part in rows.parts]
    return StepInputs(
        tokens=tables.tokens(token_slots, positions),
        positions=positions,
        attention=AttentionInputs(
            slots=tables.cache_slots(token_slots, positions), groups=groups, workspace=grouper.workspace
        ),
        wanted=torch.from_numpy(wanted).to(tables.device),
    )
