"""The running rows as arrays indexed by slot, so that a step that changes no membership costs no Python per row.

tokens       [ p0 p1 p2 p3 | o0 o1 o2 .. ]      prompt_len = 4
num_known                          ^ 7          tokens that the CPU knows
num_launched                         ^ 8        tokens whose KV is computed or under way (run-ahead: one more)
num_collected                    ^ 6            tokens whose KV is certainly there
num_blocks   [  block 0  |  block 1  ]          enough for num_launched tokens
"""

import numpy as np

from engine.batch import Bools, Int32s
from engine.config import EnginePlan
from engine.request import Row

FREE = -1  # in `uid`
_NO_TOKEN = -1  # pads `stop_ids`


class Slots:
    """S = max_num_seqs slots. All arrays are [S] unless said otherwise."""

    def __init__(self, plan: EnginePlan) -> None:
        size = plan.max_num_seqs
        self.uid = np.full(size, FREE, np.int64)
        self.number = np.zeros(size, np.int64)
        self.owner = np.zeros(size, np.int32)
        self.num_known = np.zeros(size, np.int32)
        self.num_launched = np.zeros(size, np.int32)
        self.num_collected = np.zeros(size, np.int32)
        self.prompt_len = np.zeros(size, np.int32)
        self.max_total = np.zeros(size, np.int32)
        self.min_total = np.zeros(size, np.int32)  # an eos or stop id counts only beyond that many tokens
        self.logprob_width = np.full(size, -1, np.int32)  # -1: none wanted
        self.num_in_flight = np.zeros(size, np.int32)  # launched, uncollected steps with this row in them
        self.decoding: Bools = np.zeros(size, np.bool_)  # its prompt is launched as a whole, and it was not preempted
        self.num_blocks = np.zeros(size, np.int32)
        self.block_table = np.zeros((size, plan.max_blocks_per_row), np.int32)
        self.tokens = np.zeros((size, plan.max_model_len), np.int32)
        self.stop_ids = np.full((size, 4), _NO_TOKEN, np.int32)  # [S, W]; W grows with the widest row
        self.rows: list[Row | None] = [None] * size
        self.version = 0  # raised whenever the set of decoding rows changes
        self._free = list(range(size - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Slots that no row has."""
        return len(self._free)

    @property
    def num_running(self) -> int:
        """Slots that some row has."""
        return len(self.rows) - len(self._free)

    def join(self, row: Row, *, num_computed: int, stop_ids: tuple[int, ...]) -> int:
        """Give the row a slot; `num_computed` of its tokens are in the KV cache already."""
        slot = self._free.pop()
        sampling = row.submit.sampling
        self.rows[slot] = row
        row.slot = slot
        self.uid[slot] = row.uid
        self.number[slot] = row.number
        self.owner[slot] = row.owner
        self.num_known[slot] = row.num_known
        self.num_launched[slot] = self.num_collected[slot] = num_computed
        self.prompt_len[slot] = row.prompt_len
        self.max_total[slot] = row.max_total
        self.min_total[slot] = min(row.prompt_len + sampling.min_tokens, row.max_total)  # fits, whatever was asked
        self.logprob_width[slot] = -1 if sampling.logprobs is None else sampling.logprobs
        self.num_in_flight[slot] = 0
        self.decoding[slot] = False
        self.num_blocks[slot] = 0
        self.tokens[slot, : row.num_known] = row.tokens
        self._set_stop_ids(slot, stop_ids)
        return slot

    def leave(self, slot: int) -> None:
        """Free the slot. Its blocks must have been given back."""
        self.rows[slot] = None
        self.uid[slot] = FREE
        self.decoding[slot] = False
        self.version += 1
        self.num_blocks[slot] = 0
        self._free.append(slot)

    def set_decoding(self, slots: Int32s, *, decoding: bool) -> None:
        """These rows decode from the next step on, or no longer."""
        self.decoding[slots] = decoding
        self.version += 1

    def blocks_of(self, slot: int) -> Int32s:
        """The slot's block table, as long as it is filled."""
        table: Int32s = self.block_table[slot, : self.num_blocks[slot]]
        return table

    def known_of(self, slot: int) -> Int32s:
        """A copy of the slot's known tokens."""
        known: Int32s = self.tokens[slot, : self.num_known[slot]].copy()
        return known

    def _set_stop_ids(self, slot: int, stop_ids: tuple[int, ...]) -> None:
        width = self.stop_ids.shape[1]
        if len(stop_ids) > width:
            pad = ((0, 0), (0, len(stop_ids) - width))
            self.stop_ids = np.pad(self.stop_ids, pad, constant_values=_NO_TOKEN)
        self.stop_ids[slot] = _NO_TOKEN
        self.stop_ids[slot, : len(stop_ids)] = stop_ids

    def check(self) -> None:
        """Raise AssertionError unless slots, rows and free list agree."""
        taken = [slot for slot, row in enumerate(self.rows) if row is not None]
        assert sorted(taken + self._free) == list(range(len(self.rows))), "a slot is lost or given out twice"
        for slot in taken:
            row = self.rows[slot]
            assert row is not None and row.slot == slot and self.uid[slot] == row.uid, "slot and row differ"
            assert self.num_collected[slot] < self.num_known[slot] <= self.max_total[slot], "counts out of order"
            assert self.num_collected[slot] <= self.num_launched[slot] < self.max_total[slot], "counts out of order"
        assert (self.uid[self._free] == FREE).all(), "a free slot has a uid"
