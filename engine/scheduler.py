"""Which tokens run in the next step: decode rows first, then prompts, within one token budget. No torch, no sockets.

Everything that happens to a row's place (admission, preemption, leaving) happens here; what came out of a step is
`engine.collector`'s business. With run-ahead a step is planned while the one before is still out: a row's last token
known by count is then not launched again, and what a row frees is reused at the earliest by the step after that one.
"""

import time
from dataclasses import dataclass

import numpy as np

from engine.batch import Int32s, Int64s, ScheduledBatch, SlotSetup
from engine.config import EnginePlan
from engine.kv_cache.block_pool import BlockPool
from engine.kv_cache.manager import Growth, KVCacheManager
from engine.request import Row, RowState
from engine.slots import Slots
from engine.waiting_queue import WaitingQueue


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


class Scheduler:
    """Slots, KV blocks and the waiting queue under one policy."""

    def __init__(
        self, plan: EnginePlan, *, hash_key: bytes, eos_ids: tuple[int, ...], enable_chunked_prefill: bool
    ) -> None:
        self.plan_sizes = plan
        self.slots = Slots(plan)
        self.pool = BlockPool(plan.num_blocks)
        self.cache = KVCacheManager(self.slots, self.pool, block_size=plan.block_size, hash_key=hash_key)
        self.waiting = WaitingQueue()
        self.num_preemptions = 0
        self._eos_ids = eos_ids
        self._chunked = enable_chunked_prefill
        self._prefilling: list[Row] = []  # RUNNING rows whose known tokens are not all launched, oldest first
        self._step = 0

    def add(self, row: Row) -> None:
        """A row begins to wait, unless it ended before (a sibling that was aborted while it was held)."""
        if row.state is not RowState.ENDED:
            self.waiting.push(row)

    def end(self, row: Row) -> None:
        """A row ends, wherever it is; what it had goes back at once. Nothing happens to a row that has ended."""
        if row.state is RowState.WAITING:
            self.waiting.end(row)
        elif row.state is RowState.RUNNING:
            self._give_blocks_back(row)
            self.slots.leave(row.slot)
        elif row.state is RowState.COLLECTING:
            self.slots.leave(row.slot)
        row.state = RowState.ENDED
        self.release_siblings(row)

    def release_siblings(self, row: Row) -> None:
        """The row's prompt is in the index, or will never be: the choices that waited for it may go."""
        siblings, row.siblings = row.siblings, []
        if row.state is RowState.ENDED and not row.started:
            living = [sibling for sibling in siblings if sibling.state is RowState.HELD]
            if living:
                living[0].siblings = living[1:]
            siblings = living[:1]
        for sibling in siblings:
            self.add(sibling)

    def requeue(self, row: Row) -> None:
        """A preempted row whose last launched step is in waits again, with every accepted token."""
        row.tokens = self.slots.known_of(row.slot)
        self.slots.leave(row.slot)
        self.waiting.push(row)

    def plan(self) -> LaunchedStep | None:
        """The next step, or None where no row can run. What it plans counts as launched."""
        num_preemptions = self.num_preemptions
        growths = [self._grow_decode_rows()]
        decode_slots = self._decode_slots()
        budget = self.plan_sizes.max_num_batched_tokens - len(decode_slots)
        chunks: list[Chunk] = []
        budget = self._continue_prefills(chunks, budget)
        setups: list[SlotSetup] = []
        if self.num_preemptions == num_preemptions:  # else the row just preempted would come back at once
            setups = self._admit(chunks, growths, budget)
        if not len(decode_slots) and not chunks:
            return None
        return self._launch(decode_slots, chunks, setups, growths)

    # --- decode rows ---

    def _decode_slots(self) -> Int32s:
        slots = self.slots
        return np.flatnonzero(slots.decoding & (slots.num_launched < slots.max_total - 1)).astype(np.int32)

    def _grow_decode_rows(self) -> Growth:
        while True:
            needy = self.cache.needy(self._decode_slots())
            if len(needy) <= self.pool.num_available:
                return self.cache.grow(needy)
            self._preempt(self._youngest())

    def _youngest(self) -> Row:
        running = (row for row in self.slots.rows if row is not None and row.state is RowState.RUNNING)
        return max(running, key=lambda row: row.order)

    def _preempt(self, row: Row) -> None:
        self.num_preemptions += 1
        self._give_blocks_back(row)
        self.slots.decoding[row.slot] = False
        row.state = RowState.COLLECTING
        if self.slots.num_in_flight[row.slot] == 0:
            self.requeue(row)

    def _give_blocks_back(self, row: Row) -> None:
        self.cache.release(row)
        if row in self._prefilling:
            self._prefilling.remove(row)

    # --- prompts ---

    def _continue_prefills(self, chunks: list[Chunk], budget: int) -> int:
        for row in list(self._prefilling):
            budget -= self._take_chunk(row, chunks, budget)
        return budget

    def _admit(self, chunks: list[Chunk], growths: list[Growth], budget: int) -> list[SlotSetup]:
        setups: list[SlotSetup] = []
        while budget > 0 and self.slots.num_free and (row := self.waiting.head()) is not None:
            # a block for each running row, or the newcomer would be preempted at their next boundary
            fit = self.cache.fit(row, reserve=self.slots.num_running)
            if fit is None:
                break
            num_computed = len(fit.shared) * self.plan_sizes.block_size
            if not self._chunked and row.num_known - num_computed > budget:
                break
            self.waiting.pop()
            setups.append(self._join(row, num_computed))
            growths.append(self.cache.admit(row, fit))
            self._prefilling.append(row)
            budget -= self._take_chunk(row, chunks, budget)
        return setups

    def _join(self, row: Row, num_computed: int) -> SlotSetup:
        if row.queued_s == 0.0:
            row.queued_s = time.monotonic() - row.arrived_at
            row.num_cached = min(num_computed, row.prompt_len)
        sampling = row.submit.sampling
        stop_ids = sampling.stop_token_ids if sampling.ignore_eos else self._eos_ids + sampling.stop_token_ids
        row.state = RowState.RUNNING
        slot = self.slots.join(row, num_computed=num_computed, stop_ids=stop_ids)
        return SlotSetup(
            slot=slot,
            sampling=sampling,
            seed=row.seed,
            prompt_len=row.prompt_len,
            stop_ids=stop_ids,
            tokens=row.tokens,
        )

    def _take_chunk(self, row: Row, chunks: list[Chunk], budget: int) -> int:
        start = int(self.slots.num_launched[row.slot])
        length = min(row.num_known - start, budget)
        if length <= 0:
            return 0
        samples = start + length == row.num_known
        chunks.append(Chunk(row, start, length, samples))
        self.slots.num_launched[row.slot] += length
        if samples:
            self._prefilling.remove(row)
        return length

    # --- the step as plain data ---

    def _launch(
        self, decode_slots: Int32s, chunks: list[Chunk], setups: list[SlotSetup], growths: list[Growth]
    ) -> LaunchedStep:
        slots = self.slots
        self._step += 1
        chunk_slots = np.array([chunk.row.slot for chunk in chunks], np.int32)
        starts = np.array([chunk.start for chunk in chunks], np.int32)
        lengths = np.array([chunk.length for chunk in chunks], np.int32)
        samples = np.array([chunk.samples for chunk in chunks], np.bool_)
        decode_positions = slots.num_launched[decode_slots]
        sampled = np.concatenate([decode_slots, chunk_slots[samples]])
        batch = ScheduledBatch(
            step=self._step,
            setups=setups,
            block_slots=np.concatenate([growth.slots for growth in growths]),
            block_columns=np.concatenate([growth.columns for growth in growths]),
            block_ids=np.concatenate([growth.ids for growth in growths]),
            decode_slots=decode_slots,
            decode_positions=decode_positions,
            chunk_slots=chunk_slots,
            chunk_starts=starts,
            chunk_lengths=lengths,
            chunk_samples=samples,
            chunk_prompt_logprobs=np.array([_prompt_logprobs(chunk.row) for chunk in chunks], np.int32),
        )
        slots.num_launched[decode_slots] += 1
        slots.num_in_flight[decode_slots] += 1
        slots.num_in_flight[chunk_slots] += 1
        slots.decoding[chunk_slots[samples]] = True
        return LaunchedStep(
            batch=batch,
            slots=sampled,
            uids=slots.uid[sampled],
            numbers=slots.number[sampled],
            owners=slots.owner[sampled],
            positions=np.concatenate([decode_positions, (starts + lengths - 1)[samples]]),
            chunks=chunks,
        )

    def check(self) -> None:
        """Raise AssertionError unless every invariant of slots, blocks and queue holds."""
        self.slots.check()
        self.waiting.check()
        self.cache.check()
        for row in self._prefilling:
            assert row.state is RowState.RUNNING, "a prefilling row does not run"
            assert self.slots.num_launched[row.slot] < row.num_known, "a prefilling row has nothing left"


def _prompt_logprobs(row: Row) -> int:
    wanted = row.submit.prompt_logprobs
    return wanted if wanted is not None and row.wants_prompt_logprobs else -1
