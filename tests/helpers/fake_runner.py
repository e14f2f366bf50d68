"""A runner without a model: the next token is a function of seed and position.

A step is computed when it is collected, as late as can be, so that whatever changes a launched batch is seen. It keeps
its own copy of block tables and histories from what each batch says, and checks every batch against them as a real
device would suffer from it: KV written where another row's lives, tokens read that were never written.
"""

from collections import deque

import numpy as np

from engine.batch import Int32s, LogprobRows, PromptLogprobRows, ScheduledBatch, SlotSetup, StepResult
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
        self._setups: list[SlotSetup | None] = [None] * plan.max_num_seqs
        self._history = np.full((plan.max_num_seqs, plan.max_model_len + 1), -1, np.int32)
        self.written = np.full((plan.num_blocks, plan.block_size), -1, np.int32)
        self._launched: deque[ScheduledBatch] = deque()
        self.bad_seeds: set[int] = set()  # rows with these seeds have logits that are not finite
        self.num_prefilled = 0
        self.max_batch = 0

    def launch(self, batch: ScheduledBatch) -> None:
        """Only remember it."""
        assert 0 < batch.num_tokens <= self._plan.max_num_batched_tokens
        self._launched.append(batch)
        assert len(self._launched) <= self.depth + 1, "more steps are out than the runner said"

    def prepare(self) -> bool:
        """Nothing to prepare."""
        return False

    def collect(self) -> StepResult:
        """Compute the oldest step."""
        batch = self._launched.popleft()
        self._install(batch)
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
        return self._draw(sampled, self._score_prompts(batch))

    def _install(self, batch: ScheduledBatch) -> None:
        for setup in batch.setups:
            self._history[setup.slot] = -1
            self._history[setup.slot, : len(setup.tokens)] = setup.tokens
            self._tables[setup.slot] = -1
            self._setups[setup.slot] = setup
        self._tables[batch.block_slots, batch.block_columns] = batch.block_ids

    def _setup(self, slot: int) -> SlotSetup:
        setup = self._setups[slot]
        assert setup is not None, "a slot runs that nobody took"
        return setup

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

    def _draw(self, sampled: list[tuple[int, int]], prompt_logprobs: list[PromptLogprobRows]) -> StepResult:
        tokens: Int32s = np.zeros(len(sampled), np.int32)
        failed = np.zeros(len(sampled), np.bool_)
        wanted = []
        for index, (slot, position) in enumerate(sampled):
            setup = self._setup(slot)
            tokens[index] = token_at(setup.seed, position, self._plan.vocab_size)
            failed[index] = setup.seed in self.bad_seeds
            self._history[slot, position] = tokens[index]
            if setup.sampling.logprobs is not None:
                wanted.append(index)
        logprobs = self._fake_logprobs(tokens, wanted)
        return StepResult(tokens=tokens, failed=failed, logprobs=logprobs, prompt_logprobs=prompt_logprobs)

    def _score_prompts(self, batch: ScheduledBatch) -> list[PromptLogprobRows]:
        """The log-probability of a prompt token is its own negative."""
        found = []
        for chunk in np.flatnonzero(batch.chunk_prompt_logprobs >= 0).tolist():
            slot, start = int(batch.chunk_slots[chunk]), int(batch.chunk_starts[chunk])
            end = min(start + int(batch.chunk_lengths[chunk]), self._setup(slot).prompt_len - 1)
            tokens = self._history[slot, start + 1 : end + 1]
            shape = (len(tokens), int(batch.chunk_prompt_logprobs[chunk]))
            if len(tokens):
                found.append(
                    PromptLogprobRows(
                        chunk=chunk,
                        first=start + 1,
                        logprobs=-tokens.astype(np.float32),
                        ranks=np.ones(len(tokens), np.int32),
                        top_ids=np.zeros(shape, np.int32),
                        top_logprobs=np.zeros(shape, np.float32),
                    )
                )
        return found

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
