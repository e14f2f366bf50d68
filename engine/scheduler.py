"""Which tokens run in the next step: decode rows first, then prompts, within one token budget. No torch, no sockets.

Everything that happens to a row's place (admission, preemption, leaving) happens here; what came out of a step is
`engine.collector`'s business. With run-ahead a step is planned while the one before is still out: a row's last token
known by count is then not launched again, and what a row frees is reused at the earliest by the step after that one.
"""

import time
from dataclasses import dataclass

import numpy as np

from engine.batch import Int32s, SlotSetup
from engine.config import EnginePlan
from engine.kv_cache.block_pool import BlockPool
from engine.kv_cache.manager import NO_GROWTH, Fit, Growth, KVCacheManager
from engine.launched_step import NO_CHUNKS, Chunk, DecodeSet, LaunchedStep, chunk_arrays, scheduled_batch
from engine.request import Row, RowState
from engine.slots import Slots
from engine.waiting_queue import WaitingQueue


@dataclass(frozen=True, slots=True)
class Unfit:
    """The head of the queue, and the room and prefix index that it did not fit into."""

    row: Row
    room: int
    published: int


class Scheduler:
    """Slots, KV blocks and the waiting queue under one policy."""

    def __init__(
        self, plan: EnginePlan, *, hash_key: bytes, eos_ids: tuple[int, ...], enable_chunked_prefill: bool
    ) -> None:
        self._sizes = plan
        self.slots = Slots(plan)
        self.pool = BlockPool(plan.num_blocks)
        self.cache = KVCacheManager(self.slots, self.pool, block_size=plan.block_size, hash_key=hash_key)
        self.waiting = WaitingQueue()
        self.num_preemptions = 0
        self.num_collecting = 0  # rows in that state
        self._eos_ids = eos_ids
        self._chunked = enable_chunked_prefill
        self._prefilling: list[Row] = []  # RUNNING rows whose known tokens are not all launched, oldest first
        self._decode_set: DecodeSet | None = None
        self._unfit: Unfit | None = None
        self._step = 0

    def add(self, rows: list[Row]) -> None:
        """The rows of one request begin to wait; later choices until the first one's prompt is computed."""
        self.waiting.push(rows[0])
        for sibling in rows[1:]:
            self.waiting.hold(sibling)
        rows[0].siblings = rows[1:]

    def end(self, row: Row) -> None:
        """A row ends, wherever it is; what it had goes back at once. Nothing happens to a row that has ended."""
        if row.state in (RowState.WAITING, RowState.HELD):
            self.waiting.end(row)
        elif row.state is RowState.RUNNING:
            self._give_blocks_back(row)
            self.slots.leave(row.slot)
        elif row.state is RowState.COLLECTING:
            self.num_collecting -= 1
            self.slots.leave(row.slot)
        row.state = RowState.ENDED
        self.release_siblings(row)

    def fail(self, row: Row) -> None:
        """A row's logits were not finite: it ends, and its blocks are not reused, since they may be to blame."""
        self.cache.distrust(row)
        self.end(row)

    def release_siblings(self, row: Row) -> None:
        """The row's prompt is in the index, or will never be: the choices that waited for it may go."""
        siblings = [sibling for sibling in row.siblings if sibling.state is RowState.HELD]
        row.siblings = []
        if row.state is RowState.ENDED and not row.started and siblings:
            siblings[0].siblings = siblings[1:]  # computes the prompt in its place
            siblings = siblings[:1]
        for sibling in siblings:
            self.waiting.push(sibling)

    def requeue(self, row: Row) -> None:
        """A preempted row whose last launched step is in waits again, with every accepted token."""
        row.tokens = self.slots.known_of(row.slot)
        self.num_collecting -= 1
        self.slots.leave(row.slot)
        self.waiting.push(row)

    def plan(self) -> LaunchedStep | None:
        """The next step, or None where no row can run. What it plans counts as launched."""
        decode, growth = self._grow_decode_rows()
        growths = [growth]
        budget = self._sizes.max_num_batched_tokens - len(decode.slots)
        chunks: list[Chunk] = []
        budget = self._continue_prefills(chunks, budget)
        # a preempted row whose last step is out does not wait yet: a younger one is not to take its place meanwhile
        setups = [] if self.num_collecting else self._admit(chunks, growths, budget)
        if not len(decode.slots) and not chunks:
            return None
        return self._launch(decode, chunks, setups, growths)

    # --- decode rows ---

    def _decoding(self) -> DecodeSet:
        """Rows that decode in the next step; a row whose last token is launched already is none of them."""
        held, slots = self._decode_set, self.slots
        if held is not None and held.version == slots.version and held.steps_left > 0:
            return held
        found = np.flatnonzero(slots.decoding & (slots.num_launched < slots.max_total - 1))
        where: Int32s = found[np.argsort(slots.owner[found], kind="stable")].astype(np.int32)
        left = slots.max_total[where] - 1 - slots.num_launched[where]
        self._decode_set = DecodeSet(
            slots=where,
            uids=slots.uid[where],
            numbers=slots.number[where],
            owners=slots.owner[where],
            version=slots.version,
            steps_left=int(left.min(initial=2**31 - 1)),
        )
        return self._decode_set

    def _grow_decode_rows(self) -> tuple[DecodeSet, Growth]:
        while True:
            decode = self._decoding()
            needy = self.cache.needy(decode.slots)
            if len(needy) <= self.pool.num_available:
                return decode, self.cache.grow(needy) if len(needy) else NO_GROWTH
            self._preempt(self._youngest())

    def _youngest(self) -> Row:
        running = (row for row in self.slots.rows if row is not None and row.state is RowState.RUNNING)
        return max(running, key=lambda row: row.order)

    def _preempt(self, row: Row) -> None:
        self.num_preemptions += 1
        self._give_blocks_back(row)
        self.slots.set_decoding(np.array([row.slot]), decoding=False)
        self.num_collecting += 1
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
            fit = self._fit(row)
            if fit is None:
                break
            num_computed = len(fit.shared) * self._sizes.block_size
            if row.num_known - num_computed > budget and not self._may_be_cut(budget):
                break
            self.waiting.pop()
            setups.append(self._join(row, num_computed))
            growths.append(self.cache.admit(row, fit))
            self._prefilling.append(row)
            budget -= self._take_chunk(row, chunks, budget)
        return setups

    def _fit(self, row: Row) -> Fit | None:
        """The row's place, with a block left for each running row, or it would be preempted at their next boundary.

        Looking it up costs Python per block, and the head of the queue may wait for many steps: one that did not fit
        is looked up again only when there is more room, or more in the prefix index, than there was then.
        """
        reserve = self.slots.num_running
        room, published = self.pool.num_available - reserve, self.pool.num_published
        unfit = self._unfit
        if unfit is not None and unfit.row is row and room <= unfit.room and published == unfit.published:
            return None
        fit = self.cache.fit(row, reserve=reserve)
        self._unfit = Unfit(row, room, published) if fit is None else None
        return fit

    def _may_be_cut(self, budget: int) -> bool:
        """Without chunked prefill only a prompt that is too long even for a step of its own runs in pieces."""
        return self._chunked or budget == self._sizes.max_num_batched_tokens

    def _join(self, row: Row, num_computed: int) -> SlotSetup:
        if row.queued_s is None:
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

    # --- the step ---

    def _launch(
        self, decode: DecodeSet, chunks: list[Chunk], setups: list[SlotSetup], growths: list[Growth]
    ) -> LaunchedStep:
        slots = self.slots
        self._step += 1
        positions = slots.num_launched[decode.slots]
        work = chunk_arrays(chunks) if chunks else NO_CHUNKS
        batch = scheduled_batch(self._step, decode, positions, work, setups, growths)
        slots.num_launched[decode.slots] = positions + np.int32(1)
        slots.num_in_flight[decode.slots] += 1
        decode.steps_left -= 1
        if not chunks:
            return LaunchedStep(
                batch=batch,
                slots=decode.slots,
                uids=decode.uids,
                numbers=decode.numbers,
                owners=decode.owners,
                positions=positions,
                chunks=chunks,
            )
        slots.num_in_flight[work.slots] += 1
        ending = work.slots[work.samples]
        last_positions = (work.starts + work.lengths - 1)[work.samples]
        launched = LaunchedStep(
            batch=batch,
            slots=np.concatenate([decode.slots, ending]),
            uids=np.concatenate([decode.uids, slots.uid[ending]]),
            numbers=np.concatenate([decode.numbers, slots.number[ending]]),
            owners=np.concatenate([decode.owners, slots.owner[ending]]),
            positions=np.concatenate([positions, last_positions]),
            chunks=chunks,
        )
        slots.set_decoding(ending, decoding=True)
        return launched

    def check(self) -> None:
        """Raise AssertionError unless every invariant of slots, blocks and queue holds."""
        self.slots.check()
        self.cache.check()
        placed = [row for row in self.slots.rows if row is not None]
        self.waiting.check(placed)
        for row in placed:
            prefills = row in self._prefilling
            left = bool(self.slots.num_launched[row.slot] < row.num_known)
            decodes = bool(self.slots.decoding[row.slot])
            if row.state is RowState.RUNNING:
                assert prefills == left != decodes, "a running row prefills while it has known tokens, then decodes"
            else:
                assert not (prefills or decodes), "a collecting row is still scheduled"
        collecting = [row for row in placed if row.state is RowState.COLLECTING]
        assert len(collecting) == self.num_collecting, "num_collecting differs from the slots"
