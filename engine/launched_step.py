"""A step as plain data from its plan to its collection, with its own copy of whose rows are in it. Decides nothing."""

from dataclasses import dataclass

import numpy as np

from engine.batch import Bools, Int32s, Int64s, ScheduledBatch, SlotSetup
from engine.kv_cache.manager import Growth
from engine.request import Row


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of one row's known tokens computed in one step; `samples`: it is the last one before a new token."""

    row: Row
    start: int
    length: int
    samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedStep:
    """A planned step with its own copy of whose rows are in it: collecting reads these, never the live arrays."""

    batch: ScheduledBatch
    slots: Int32s  # [S] sampled rows: decode rows, then chunks that sample
    uids: Int64s  # [S]
    numbers: Int64s  # [S]
    owners: Int32s  # [S]
    positions: Int32s  # [S] KV position of the row's last input token
    chunks: list[Chunk]


@dataclass(slots=True)
class DecodeSet:
    """Who decodes, ordered by owner. Holds until somebody joins, leaves or nears its end: most steps reuse it."""

    slots: Int32s  # [D]
    uids: Int64s
    numbers: Int64s
    owners: Int32s
    version: int  # of the membership it was made for
    steps_left: int  # launches until the first of the rows has none left


@dataclass(frozen=True, slots=True)
class ChunkArrays:
    """The step's chunks as the arrays of `ScheduledBatch`, all [C]."""

    slots: Int32s
    starts: Int32s
    lengths: Int32s
    samples: Bools
    prompt_logprobs: Int32s


def chunk_arrays(chunks: list[Chunk]) -> ChunkArrays:
    """A Python loop over the chunks."""
    return ChunkArrays(
        slots=np.array([chunk.row.slot for chunk in chunks], np.int32),
        starts=np.array([chunk.start for chunk in chunks], np.int32),
        lengths=np.array([chunk.length for chunk in chunks], np.int32),
        samples=np.array([chunk.samples for chunk in chunks], np.bool_),
        prompt_logprobs=np.array([_prompt_logprobs(chunk.row) for chunk in chunks], np.int32),
    )


NO_CHUNKS = chunk_arrays([])


def scheduled_batch(
    step: int,
    decode: DecodeSet,
    positions: Int32s,
    work: ChunkArrays,
    setups: list[SlotSetup],
    growths: list[Growth],
) -> ScheduledBatch:
    """What the runner is told."""
    return ScheduledBatch(
        step=step,
        setups=setups,
        block_slots=_joined([growth.slots for growth in growths]),
        block_columns=_joined([growth.columns for growth in growths]),
        block_ids=_joined([growth.ids for growth in growths]),
        decode_slots=decode.slots,
        decode_positions=positions,
        chunk_slots=work.slots,
        chunk_starts=work.starts,
        chunk_lengths=work.lengths,
        chunk_samples=work.samples,
        chunk_prompt_logprobs=work.prompt_logprobs,
    )


def _joined(arrays: list[Int32s]) -> Int32s:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _prompt_logprobs(row: Row) -> int:
    wanted = row.submit.prompt_logprobs
    return wanted if wanted is not None and row.wants_prompt_logprobs else -1
