"""Steps of rows that nobody asked for, to warm a runner up and to measure it before it has real ones. No torch.

Every fake row is set up anew in each of its steps. All columns of its block table name block 0: what attention reads
there means nothing, but is as finite as any row's. A real row that takes the slot replaces all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.batch import Int32s, ScheduledBatch, SlotSetup
from engine.config import EnginePlan
from protocol.sampling import Sampling

GREEDY = Sampling(seed=0, max_tokens=1, temperature=0.0)
RANDOM = Sampling(seed=0, max_tokens=1, temperature=0.8)
FILTERED = Sampling(seed=0, max_tokens=1, temperature=0.8, top_k=50, top_p=0.95, min_p=0.01)
_STOP_ID = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRow:
    """Computes `length` tokens behind `start` that are already there, and draws the one after them."""

    start: int
    length: int = 1
    sampling: Sampling = GREEDY
    prompt_logprobs: int = -1

    @property
    def end(self) -> int:
        return self.start + self.length


def everything(num_logprobs: int) -> Sampling:
    """All that a row can ask of the sampler; ids below 4, which every vocabulary has."""
    return Sampling(
        seed=0,
        max_tokens=8,
        min_tokens=4,
        temperature=0.8,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        repetition_penalty=1.1,
        logprobs=num_logprobs,
        logit_bias={1: 1.0},
        allowed_token_ids=(0, 1, 2, 3),
        bad_words=((2,), (1, 3)),
    )


def fake_step(plan: EnginePlan, decodes: Sequence[FakeRow], chunks: Sequence[FakeRow]) -> ScheduledBatch:
    """Decode rows take the first slots, chunks the next ones."""
    rows = [*decodes, *chunks]
    assert len(rows) <= plan.max_num_seqs
    assert sum(row.length for row in rows) <= plan.max_num_batched_tokens
    assert all(row.end <= plan.max_model_len for row in rows)
    counts = [-(-row.end // plan.block_size) for row in rows]
    return ScheduledBatch(
        step=0,
        setups=[_setup(slot, row) for slot, row in enumerate(rows)],
        block_slots=np.repeat(np.arange(len(rows), dtype=np.int32), counts),
        block_columns=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        block_ids=np.zeros(sum(counts), np.int32),
        decode_slots=np.arange(len(decodes), dtype=np.int32),
        decode_positions=_ints([row.start for row in decodes]),
        chunk_slots=np.arange(len(decodes), len(rows), dtype=np.int32),
        chunk_starts=_ints([row.start for row in chunks]),
        chunk_lengths=_ints([row.length for row in chunks]),
        chunk_samples=np.ones(len(chunks), np.bool_),
        chunk_prompt_logprobs=_ints([row.prompt_logprobs for row in chunks]),
    )


def _setup(slot: int, row: FakeRow) -> SlotSetup:
    return SlotSetup(
        slot=slot,
        sampling=row.sampling,
        seed=slot,
        prompt_len=row.end if row.prompt_logprobs >= 0 else max(1, row.end // 2),  # the rest are outputs to be counted
        stop_ids=(_STOP_ID,),
        tokens=np.zeros(row.end, np.int32),
    )


def _ints(numbers: list[int]) -> Int32s:
    return np.array(numbers, np.int32)
