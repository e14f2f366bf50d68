"""A runner without a model: the next token is a function of seed and position, after any number of steps of delay.

It keeps its own copy of block tables and histories from what each batch says, and checks every batch against them as a
real device would suffer from it: KV written where another row's lives, tokens read that were never written.
"""

from collections import deque

import numpy as np

from engine.batch import Int32s, LogprobRows, ScheduledBatch, StepResult
from engine.config import EnginePlan


def token_at(seed: int, position: int, vocab_size: int) -> int:
    """The token at an absolute position of a row."""
    mixed = (seed * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    return ((mixed ^ (mixed >> 29)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF) % vocab_size


class FakeRunner:
    """Obeys the `Runner` protocol. `written[block, offset]` is the token whose KV lies there."""

    def __init__(self, plan: EnginePlan, *, depth: int = 0) -> None:
        self.depth = depth
        self._plan = plan
        self._tables = np.full((plan.max_num_seqs, plan.max_blocks_per_row), -1, np.int32)
        self._seeds = [0] * plan.max_num_seqs
        self._logprobs: list[int | None] = [None] * plan.max_num_seqs
        self._history = np.full((plan.max_num_seqs, plan.max_model_len + 1), -1, np.int32)
        self.written = np.full((plan.num_blocks, plan.block_size), -1, np.int32)
        self._out: deque[StepResult] = deque()
        self.num_prefilled = 0
        self.max_batch = 0

    def launch(self, batch: ScheduledBatch) -> None:
        """Compute at once, give out on `collect`."""
        assert 0 < batch.num_tokens <= self._plan.max_num_batched_tokens
        for setup in batch.setups:
            self._history[setup.slot] = -1
            self._history[setup.slot, : len(setup.tokens)] = setup.tokens
            self._tables[setup.slot] = -1
            self._seeds[setup.slot] = setup.seed
            self._logprobs[setup.slot] = setup.sampling.logprobs
        self._tables[batch.block_slots, batch.block_columns] = batch.block_ids
        sampled: list[tuple[int, int]] = []
        for slot, position in zip(batch.decode_slots.tolist(), batch.decode_positions.tolist(), strict=True):
            self._compute(slot, position, position + 1)
            sampled.append((slot, position + 1))
        chunks = zip(batch.chunk_slots, batch.chunk_starts, batch.chunk_lengths, batch.chunk_samples, strict=True)
        for slot, start, length, samples in chunks:
            self._compute(int(slot), int(start), int(start + length))
            self.num_prefilled += int(length)
            if samples:
                sampled.append((int(slot), int(start + length)))
        self.max_batch = max(self.max_batch, len(sampled))
        self._out.append(self._draw(sampled))

    def collect(self) -> StepResult:
        """The oldest step."""
        return self._out.popleft()

    def _compute(self, slot: int, start: int, end: int) -> None:
        size = self._plan.block_size
        for position in range(start, end):
            token = self._history[slot, position]
            assert token >= 0, "an input token is not known to the device"
            block = self._tables[slot, position // size]
            assert block >= 0, "a position has no block"
            self.written[block, position % size] = token
        for position in range(end):
            block = self._tables[slot, position // size]
            found = self.written[block, position % size]
            assert found == self._history[slot, position], "the KV of another token lies where this row reads"

    def _draw(self, sampled: list[tuple[int, int]]) -> StepResult:
        tokens: Int32s = np.zeros(len(sampled), np.int32)
        wanted = []
        for index, (slot, position) in enumerate(sampled):
            tokens[index] = token_at(self._seeds[slot], position, self._plan.vocab_size)
            self._history[slot, position] = tokens[index]
            if self._logprobs[slot] is not None:
                wanted.append(index)
        return StepResult(
            tokens=tokens, failed=np.zeros(len(tokens), np.bool_), logprobs=self._fake_logprobs(tokens, wanted)
        )

    def _fake_logprobs(self, tokens: Int32s, wanted: list[int]) -> LogprobRows | None:
        if not wanted:
            return None
        drawn = tokens[wanted]
        return LogprobRows(
            rows=np.array(wanted, np.int32),
            logprobs=-drawn.astype(np.float32),
            ranks=np.ones(len(wanted), np.int32),
            top_ids=np.stack([drawn, drawn + 1], axis=1).astype(np.int32),
            top_logprobs=-np.stack([drawn, drawn + 1], axis=1).astype(np.float32),
        )
