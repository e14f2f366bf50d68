"""Draws the next token of each row from its logits. A step in which no row asks for more costs an argmax.

In this order: log-probabilities from the raw logits; biases and bans; penalties; argmax for greedy rows; for the others
temperature, top_k, top_p, min_p, and the draw.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.batch import Int64s, SlotSetup
from engine.config import EnginePlan
from engine.execution.logit_rules import LogitRules
from engine.execution.logprobs import DrawnLogprobs
from engine.execution.slot_sampling import SlotSampling
from engine.execution.slot_tables import SlotTables
from engine.execution.slot_work import MIN_P, PENALTIES, RANDOM, RULES, TOP_K, TOP_P, SlotWork
from engine.kernels.logprobs import token_logprobs
from engine.kernels.penalties import penalize
from engine.kernels.sampling import draw, thresholds
from protocol.sampling import MAX_BAD_WORD_TOKENS

UInt8s = npt.NDArray[np.uint8]

_FILTERS = TOP_K | TOP_P | MIN_P


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    tokens: Tensor  # [S] int64
    failed: Tensor  # [S] bool
    logprobs: DrawnLogprobs | None


class Sampler:
    def __init__(self, plan: EnginePlan, tables: SlotTables) -> None:
        self._tables = tables
        self.work = SlotWork(plan)
        self._slots = SlotSampling(plan, tables.device)
        self._rules = LogitRules(plan, tables, MAX_BAD_WORD_TOKENS)

    def install(self, setup: SlotSetup) -> None:
        """Everything the slot's former row asked for is replaced."""
        self.work.install(setup)
        self._slots.install(setup)
        self._rules.install(setup)

    def draw(self, logits: Tensor, slots: Int64s, positions: Int64s) -> Drawn:
        """logits [S, V] float32, overwritten; `positions` [S] are where the drawn tokens will stand."""
        work = self.work.kinds[slots]
        union = int(np.bitwise_or.reduce(work))
        asked = np.flatnonzero(self.work.num_logprobs[slots] >= 0)
        raw = logits[self._device(asked)] if len(asked) else None  # a copy
        failed = ~logits.sum(-1).isfinite()
        if self._constrain(logits, union, slots, positions):
            failed |= logits.amax(-1) == -torch.inf  # no token is left that may be drawn
        if union & PENALTIES:
            self._penalize(logits, np.flatnonzero(work & PENALTIES), slots, positions)
        tokens = self._choose(logits, work, union, slots, positions)
        if raw is None:
            return Drawn(tokens=tokens, failed=failed, logprobs=None)
        num_top = int(self.work.num_logprobs[slots].max())
        scored = token_logprobs(raw, tokens[self._device(asked)], num_top)
        return Drawn(tokens=tokens, failed=failed, logprobs=DrawnLogprobs(rows=asked.astype(np.int32), tokens=scored))

    def _constrain(self, logits: Tensor, union: int, slots: Int64s, positions: Int64s) -> bool:
        """Apply what bans tokens; whether there was anything."""
        early = self.work.early(slots, positions)
        if union & RULES:
            self._rules.apply(logits, union, slots, positions, self.work.prompt_len[slots])
        if early.any():
            self._rules.ban_stops(logits, slots, early)
        return bool(union & RULES or early.any())

    def _penalize(self, logits: Tensor, rows: Int64s, slots: Int64s, positions: Int64s) -> None:
        row, slot = self._device(rows), self._device(slots[rows])
        lengths = positions[rows]
        logits[row] = penalize(
            logits[row],
            self._tables.history[slot, : int(lengths.max())],
            self._device(lengths),
            self._device(self.work.prompt_len[slots[rows]]),
            repetition=self._slots.number("repetition", slot),
            presence=self._slots.number("presence", slot),
            frequency=self._slots.number("frequency", slot),
        )

    def _choose(self, logits: Tensor, work: UInt8s, union: int, slots: Int64s, positions: Int64s) -> Tensor:
        if not union & RANDOM:
            return logits.argmax(-1)
        rows = np.flatnonzero(work & RANDOM)
        if len(rows) == len(slots):
            return self._draw_random(logits, union, slots, positions)
        tokens = logits.argmax(-1)
        row = self._device(rows)
        tokens[row] = self._draw_random(logits[row], union, slots[rows], positions[rows])
        return tokens

    def _draw_random(self, logits: Tensor, union: int, slots: Int64s, positions: Int64s) -> Tensor:
        slot, numbers = self._device(slots), self._slots
        scaled = logits.div_(numbers.number("temperature", slot)[:, None])
        keys = self._device(numbers.keys(slots, positions))
        if not union & _FILTERS:
            return draw(scaled, keys)
        least = thresholds(
            scaled,
            numbers.top_k(slot) if union & TOP_K else None,
            numbers.number("top_p", slot) if union & TOP_P else None,
            numbers.number("min_p", slot) if union & MIN_P else None,
        )
        return draw(scaled, keys, least)

    def _device(self, numbers: Int64s) -> Tensor:
        return torch.from_numpy(numbers).to(self._tables.device)
