"""What rows ask for beyond temperature, top_k, top_p and min_p, on the GPU: nothing here waits for the device.

A step draws all its rows as if nobody asked for more. Then the rows whose logits are to be changed draw once more,
from float32 copies, so that no other row notices; then the rows that asked for log-probabilities get them, from the
logits as they came. Both cost the rows that ask, and every launch has a shape that is known before.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s, Int64s, LogprobRows, SlotSetup
from engine.config import EnginePlan
from engine.execution.gpu.sampling_layout import MAX_COPIES
from engine.execution.gpu.sampling_tables import Joining, SamplingTables
from engine.execution.gpu.staging import Staging
from engine.execution.logprobs import DrawnLogprobs
from engine.execution.slot_tables import SlotTables
from engine.execution.slot_work import BAD_WORDS, BIAS, PENALTIES, RANDOM, RULES, SlotWork
from engine.kernels.drawn_tokens import replace_drawn
from engine.kernels.logit_rules import add_biases, ban_bad_words, copy_masked
from engine.kernels.logprobs_triton import LogprobScratch, logprob_scratch, logprobs_into, unpacked
from engine.kernels.penalties_triton import penalize
from engine.kernels.sampling import SlotParameters
from engine.kernels.sampling_triton import sample

_RESULT_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraWork:
    """What some rows of a step ask for; the tensors are int32 on the device once the step's numbers were sent."""

    changed: Int64s  # [C] rows whose logits are changed, as indices into the step's sampled rows
    kinds: int  # the union over them
    rows: Tensor  # [C] where their logits and tokens stand
    slots: Tensor  # [C]
    positions: Tensor  # [C]
    scored: Int32s  # [R] rows that want log-probabilities
    scored_rows: Tensor  # [R] where their logits and tokens stand
    num_top: int  # alternatives that any of them wants


@dataclass(frozen=True, slots=True, kw_only=True)
class SentLogprobs:
    """Log-probabilities on their way to pinned memory, which is used again three steps later."""

    rows: Int32s
    packed: Tensor  # [R, 2 + 2 k]

    def to_host(self) -> LogprobRows:
        return DrawnLogprobs(rows=self.rows, tokens=unpacked(self.packed.clone())).to_host()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    copies: Tensor  # float32 [C, V] changed logits
    counts: Tensor  # int32 [C, V] of tokens, for penalties: zero between steps
    packed: Tensor  # int32 [S * (2 + 2 max_logprobs)] log-probabilities of a step
    scratch: LogprobScratch


class GpuSampler:
    def __init__(self, plan: EnginePlan, tables: SlotTables) -> None:
        self.work = SlotWork(plan)
        self._history = tables.history
        self._tables = SamplingTables(plan, tables.device)
        self._memory = _allocate(plan, tables.device)
        pinned = tables.device.type == "cuda"
        size = len(self._memory.packed)
        self._sent = [torch.zeros(size, dtype=torch.int32, pin_memory=pinned) for _ in range(_RESULT_TURNS)]
        self._turn = 0

    @property
    def parameters(self) -> SlotParameters:
        return self._tables.parameters

    def num_sent(self, setup: SlotSetup) -> int:
        """At most so many numbers does `join` put for the row."""
        return self._tables.num_sent(setup)

    def join(self, setups: list[SlotSetup], staging: Staging) -> Joining:
        """Rows take slots; to be installed on the device after the next send."""
        for setup in setups:
            self.work.install(setup)
        return self._tables.put(setups, staging)

    def install(self, joining: Joining) -> None:
        self._tables.install(joining)

    def extra_work(
        self, slots: Int64s, positions: Int64s, staging: Staging, *, places: Int32s | None = None
    ) -> ExtraWork | None:
        """What the rows ask for when they draw tokens for these positions; it goes out with the next send.

        Row i's logits and token stand at places[i], or else at i.
        """
        kinds = self.work.kinds[slots]
        changed = np.flatnonzero(((kinds & (RULES | PENALTIES)) != 0) | self.work.early(slots, positions))
        scored = np.flatnonzero(self.work.num_logprobs[slots] >= 0).astype(np.int32)
        if not len(changed) and not len(scored):
            return None
        rows = np.arange(len(slots)) if places is None else places
        numbers = (rows[changed], slots[changed], positions[changed], rows[scored])
        put = [staging.put(of.astype(np.int32)) for of in numbers]
        return ExtraWork(
            changed=changed,
            kinds=int(np.bitwise_or.reduce(kinds[changed], initial=0)),
            rows=put[0],
            slots=put[1],
            positions=put[2],
            scored=scored,
            scored_rows=put[3],
            num_top=int(self.work.num_logprobs[slots].max()),
        )

    def is_random(self, slots: Int64s, extra: ExtraWork | None) -> bool:
        """Whether a row that draws but once is not greedy."""
        kinds = self.work.kinds[slots if extra is None else np.delete(slots, extra.changed)]
        return bool(np.bitwise_or.reduce(kinds, initial=0) & RANDOM)

    def do(self, extra: ExtraWork, logits: Tensor, drawn: Tensor) -> SentLogprobs | None:
        """Correct what the step drew (`drawn` [S, 2] int32, token and 1 where it failed) from its logits [S, V]."""
        most = len(self._memory.copies)
        parts = zip(*(of.split(most) for of in (extra.rows, extra.slots, extra.positions)), strict=True)
        for rows, slots, positions in parts if len(extra.changed) else ():
            self._draw_again(extra.kinds, rows, slots, positions, logits, drawn)
        if not len(extra.scored):
            return None
        packed = self._score(extra.scored_rows, extra.num_top, logits, drawn)
        return SentLogprobs(rows=extra.scored, packed=self._send(packed))

    def _draw_again(
        self, kinds: int, rows: Tensor, slots: Tensor, positions: Tensor, logits: Tensor, drawn: Tensor
    ) -> None:
        """Biases and bans, then penalties, then the draw."""
        tables, copies = self._tables, self._memory.copies[: len(rows)]
        copy_masked(logits, rows, slots, positions, tables.rules, copies)
        if kinds & BIAS:
            add_biases(slots, tables.rules, copies)
        if kinds & BAD_WORDS:
            ban_bad_words(slots, positions, self._history, tables.rules, copies)
        if kinds & PENALTIES:
            penalize(slots, positions, self._history, tables.penalties, self._memory.counts[: len(rows)], copies)
        tokens, failed = sample(copies, slots, positions, tables.parameters)
        replace_drawn(drawn, self._history, rows, slots, positions, tokens, failed)

    def _score(self, rows: Tensor, num_top: int, logits: Tensor, drawn: Tensor) -> Tensor:
        width = 2 + 2 * num_top
        packed = self._memory.packed[: len(rows) * width].view(len(rows), width)
        logprobs_into(packed, logits, rows, drawn[:, 0], num_top, self._memory.scratch)
        return packed

    def _send(self, packed: Tensor) -> Tensor:
        self._turn = (self._turn + 1) % _RESULT_TURNS
        sent = self._sent[self._turn][: packed.numel()].view(packed.shape)
        sent.copy_(packed, non_blocking=True)
        return sent


def _allocate(plan: EnginePlan, device: torch.device) -> _Memory:
    slots, size = plan.max_num_seqs, plan.vocab_size
    most = min(slots, MAX_COPIES)
    return _Memory(
        copies=torch.empty(most, size, dtype=torch.float32, device=device),
        counts=torch.zeros(most, size, dtype=torch.int32, device=device),
        packed=torch.empty(slots * (2 + 2 * plan.max_logprobs), dtype=torch.int32, device=device),
        scratch=logprob_scratch(slots, size, device),
    )
