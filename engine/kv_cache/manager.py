"""Rows' block tables over the pool: admission with prefix reuse, growth, release. Knows rows, but not when they run."""

from dataclasses import dataclass

import numpy as np

from engine.batch import Int32s
from engine.kv_cache.block_pool import BlockPool
from engine.request import Row
from engine.slots import Slots
from protocol.block_hash import extend_chain


@dataclass(frozen=True, slots=True)
class Fit:
    """How a waiting row would take its place: blocks found by prefix, and how many new ones it needs."""

    shared: list[int]
    num_new: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Blocks given out: block_table[slots, columns] = ids, all [n]."""

    slots: Int32s
    columns: Int32s
    ids: Int32s


_NONE = np.zeros(0, np.int32)
NO_GROWTH = Growth(_NONE, _NONE, _NONE)


class KVCacheManager:
    """Keeps the block tables in `Slots` and the counts in `BlockPool` in step."""

    def __init__(self, slots: Slots, pool: BlockPool, *, block_size: int, hash_key: bytes) -> None:
        self.pool = pool
        self._slots = slots
        self._block_size = block_size
        self._hash_key = hash_key
        self.prefix_queries = 0  # tokens looked up
        self.prefix_hits = 0  # tokens found

    def fit(self, row: Row, *, reserve: int) -> Fit | None:
        """Whether the row's known tokens fit now with `reserve` blocks left for others; None: not now.

        At least one token is left to compute, since the next one is drawn from its logits. A row that wants the
        log-probabilities of its prompt reads no shared block.
        """
        shared: list[int] = []
        if not row.wants_prompt_logprobs:
            usable = (row.num_known - 1) // self._block_size
            shared = self.pool.match(self._hashes(row)[:usable])
        num_new = -(-row.num_known // self._block_size) - len(shared)
        available = self.pool.num_available - self.pool.num_cached_among(shared)
        return Fit(shared, num_new) if num_new + reserve <= available else None

    def admit(self, row: Row, fit: Fit) -> Growth:
        """Fill the table of the row's new slot; `fit` must be fresh."""
        self.pool.hold(fit.shared)
        blocks = np.concatenate([np.array(fit.shared, np.int32), self.pool.allocate(fit.num_new)])
        count = len(blocks)
        self._slots.block_table[row.slot, :count] = blocks
        self._slots.num_blocks[row.slot] = count
        if not row.wants_prompt_logprobs:
            self.prefix_queries += row.num_known
            self.prefix_hits += len(fit.shared) * self._block_size
        return Growth(np.full(count, row.slot, np.int32), np.arange(count, dtype=np.int32), blocks)

    def needy(self, slots: Int32s) -> Int32s:
        """Those of the slots whose next token falls into a block that they do not have yet."""
        launched, capacity = self._slots.num_launched[slots], self._slots.num_blocks[slots] * self._block_size
        needy: Int32s = slots[launched == capacity]
        return needy

    def grow(self, slots: Int32s) -> Growth:
        """One more block for each of the slots; the pool must have as many."""
        columns = self._slots.num_blocks[slots]
        blocks = self.pool.allocate(len(slots))
        self._slots.block_table[slots, columns] = blocks
        self._slots.num_blocks[slots] += 1
        return Growth(slots, columns, blocks)

    def publish(self, row: Row, *, start: int, end: int) -> None:
        """Name the row's blocks that became full with its tokens start .. end - 1, all collected and accepted."""
        first, last = start // self._block_size, end // self._block_size
        self.pool.publish(self._slots.block_table[row.slot, first:last], self._hashes(row)[first:last])

    def release(self, row: Row) -> None:
        """Publish what the row has computed and give its blocks back. Takes its known tokens over from the slot."""
        row.tokens = self._slots.known_of(row.slot)
        computed = min(int(self._slots.num_collected[row.slot]), row.num_known)
        self.publish(row, start=0, end=computed)
        self.pool.release(self._slots.blocks_of(row.slot))
        self._slots.num_blocks[row.slot] = 0

    def distrust(self, row: Row) -> None:
        """Nobody is to read what the row, which has a slot, has read or written: not even `release` publishes it."""
        self.pool.forget(row.hashes)
        self._slots.num_collected[row.slot] = 0

    def _hashes(self, row: Row) -> list[bytes]:
        done = len(row.hashes)
        if done < row.num_known // self._block_size:
            parent = row.hashes[-1] if row.hashes else row.root
            rest = row.tokens[done * self._block_size :].tobytes()
            row.hashes.extend(extend_chain(self._hash_key, parent, rest, self._block_size))
        return row.hashes

    def check(self) -> None:
        """Raise AssertionError unless pool and tables agree and every table is long enough."""
        slots = self._slots
        taken = [slot for slot, row in enumerate(slots.rows) if row is not None]
        tables = [slots.blocks_of(slot) for slot in taken]
        held = np.concatenate(tables) if tables else np.zeros(0, np.int32)
        self.pool.check(held)
        for slot in taken:
            if slots.num_blocks[slot]:
                capacity = slots.num_blocks[slot] * self._block_size
                assert slots.num_launched[slot] <= capacity, "a launched token has no block"
