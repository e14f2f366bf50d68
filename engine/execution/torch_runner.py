"""Runs a model's steps with torch, on the CPU or one GPU: install, forward, sample, remember.

Every tensor it keeps is indexed by slot or by block; it has no notion of a request.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int64s, ScheduledBatch, StepResult
from engine.config import EnginePlan
from engine.execution.attention_groups import AttentionGrouper
from engine.execution.cache import allocate_cache
from engine.execution.inputs import StepRows, build_inputs, sampled_rows, step_rows
from engine.execution.logprobs import DrawnLogprobs, PromptLogprobs
from engine.execution.prompt_logprobs import PromptPart, prompt_parts, score_prompt
from engine.execution.sampler import Sampler
from engine.execution.slot_tables import SlotTables
from engine.models.decoder import Decoder
from engine.models.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedStep:
    """A step's results on the device, to be fetched when they are collected."""

    tokens: Tensor  # [S]
    failed: Tensor  # [S]
    logprobs: DrawnLogprobs | None
    prompt_logprobs: list[PromptLogprobs]

    def to_host(self) -> StepResult:
        return StepResult(
            tokens=self.tokens.cpu().numpy().astype(np.int32),
            failed=self.failed.cpu().numpy(),
            logprobs=None if self.logprobs is None else self.logprobs.to_host(),
            prompt_logprobs=[part.to_host() for part in self.prompt_logprobs],
        )


class TorchRunner:
    """A GPU computes a launched step while the loop plans the next; on the CPU launching is computing."""

    def __init__(self, decoder: Decoder, shape: ModelShape, plan: EnginePlan, dtype: torch.dtype) -> None:
        device = torch.device(plan.device)
        self.depth = 0 if device.type == "cpu" else 1
        self._decoder = decoder
        self._tables = SlotTables(plan, device)
        self._sampler = Sampler(plan, self._tables)
        self._cache = allocate_cache(shape, plan, dtype)
        self._grouper = AttentionGrouper(self._tables, shape, dtype)
        self._launched: deque[LaunchedStep] = deque()

    def launch(self, batch: ScheduledBatch) -> None:
        with torch.inference_mode():
            self._launched.append(self._step(batch))

    def collect(self) -> StepResult:
        return self._launched.popleft().to_host()

    def prepare(self) -> bool:
        """Nothing: every step is as ready as the first."""
        return False

    def _step(self, batch: ScheduledBatch) -> LaunchedStep:
        self._install(batch)
        rows = step_rows(batch, self._grouper)
        sampled = sampled_rows(batch)
        parts = prompt_parts(batch, rows, self._sampler.work.prompt_len)
        last_tokens = (rows.first + rows.lengths - 1)[sampled]
        wanted = np.concatenate([last_tokens, *(part.tokens for part in parts)])
        hidden = self._decoder.hidden(build_inputs(rows, wanted, self._tables, self._grouper), self._cache)
        prompt_logprobs = self._score_prompts(parts, hidden[len(sampled) :])
        return self._sample(rows, sampled, hidden[: len(sampled)], prompt_logprobs)

    def _install(self, batch: ScheduledBatch) -> None:
        for setup in batch.setups:
            self._tables.install(setup)
            self._sampler.install(setup)
        self._tables.give_blocks(batch)

    def _sample(
        self, rows: StepRows, sampled: Int64s, hidden: Tensor, prompt_logprobs: list[PromptLogprobs]
    ) -> LaunchedStep:
        slots, positions = rows.slots[sampled], rows.ends[sampled]
        if not len(sampled):  # chunks only, none of which ends its prompt
            nothing = torch.empty(0, dtype=torch.int64)
            return LaunchedStep(tokens=nothing, failed=nothing.bool(), logprobs=None, prompt_logprobs=prompt_logprobs)
        drawn = self._sampler.draw(self._decoder.logits(hidden), slots, positions)
        self._tables.write(slots, positions, drawn.tokens)
        return LaunchedStep(
            tokens=drawn.tokens, failed=drawn.failed, logprobs=drawn.logprobs, prompt_logprobs=prompt_logprobs
        )

    def _score_prompts(self, parts: list[PromptPart], hidden: Tensor) -> list[PromptLogprobs]:
        if not parts:
            return []
        sizes = [len(part.tokens) for part in parts]
        return [
            score_prompt(part, of_part, self._decoder.logits, self._tables)
            for part, of_part in zip(parts, torch.split(hidden, sizes), strict=True)
        ]
