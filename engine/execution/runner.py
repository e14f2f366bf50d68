"""Runs a model's steps with torch, on the CPU or one GPU: install, forward, sample, remember."""

import os
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from engine.batch import Runner, ScheduledBatch, StepResult
from engine.config import EnginePlan
from engine.execution.attention_groups import AttentionGrouper
from engine.execution.cache import allocate_cache
from engine.execution.inputs import build_inputs, flatten, sampled_rows
from engine.execution.plan import choose_max_model_len, make_plan
from engine.execution.precision import choose_device, choose_precision
from engine.execution.sampler import Sampler
from engine.execution.slot_tables import SlotTables
from engine.models.decoder import Decoder
from engine.models.shape import ModelShape
from engine.weights.load import Placement, load_weights, open_source
from protocol.launch import EngineConfig

ATTENTION_WORKSPACE_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}


class TorchRunner:
    """Every tensor it keeps is indexed by slot or block; a request is nothing to it."""

    depth = 0

    def __init__(self, decoder: Decoder, shape: ModelShape, plan: EnginePlan, dtype: torch.dtype) -> None:
        device = torch.device(plan.device)
        self._decoder = decoder
        self._tables = SlotTables(plan, device)
        self._sampler = Sampler()
        token_dims = (2, shape.num_kv_heads, shape.head_dim)
        self._cache = allocate_cache(shape, plan, dtype)
        self._grouper = AttentionGrouper(
            self._tables,
            heads_per_kv_head=shape.num_heads // shape.num_kv_heads,
            bytes_per_token=int(np.prod(token_dims)) * dtype.itemsize,
            workspace_bytes=ATTENTION_WORKSPACE_BYTES[device.type],
            sliding_window=shape.sliding_window,
            dtype=dtype,
        )
        self._results: deque[StepResult] = deque()

    def launch(self, batch: ScheduledBatch) -> None:
        with torch.inference_mode():
            self._results.append(self._step(batch))

    def collect(self) -> StepResult:
        return self._results.popleft()

    def _step(self, batch: ScheduledBatch) -> StepResult:
        for setup in batch.setups:
            self._tables.install(setup)
        self._tables.give_blocks(batch)
        rows = flatten(batch)
        sampled = sampled_rows(batch)
        last_tokens = (rows.first + rows.lengths - 1)[sampled]
        inputs = build_inputs(rows, last_tokens, self._tables, self._grouper)
        hidden = self._decoder.hidden(inputs, self._cache)
        if not len(sampled):
            return StepResult(tokens=np.empty(0, np.int32), failed=np.empty(0, np.bool_))
        drawn = self._sampler.draw(self._decoder.logits(hidden))
        slots, positions = (
            self._tables.to_device(rows.slots[sampled]),
            self._tables.to_device(rows.positions[last_tokens]),
        )
        self._tables.write_token(slots, positions + 1, drawn.tokens)
        return StepResult(tokens=drawn.tokens.to(torch.int32).cpu().numpy(), failed=drawn.failed.cpu().numpy())


def build_runner(
    config: EngineConfig, shape: ModelShape, report: Callable[[str, float], None]
) -> tuple[Runner, EnginePlan]:
    """Load the weights and set everything up; `report` is told each phase's name and seconds."""
    device = choose_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.num_threads or max(1, (os.cpu_count() or 2) - 1))
    precision = choose_precision(config.dtype, shape.dtype, device)
    max_model_len = choose_max_model_len(config, shape)
    started = time.perf_counter()
    placement = Placement(device=device, rounded=precision.rounded, compute=precision.compute)
    weights = load_weights(open_source(config, shape), shape, placement)
    report("weights", time.perf_counter() - started)
    started = time.perf_counter()
    plan = make_plan(config, shape, device, precision)
    decoder = Decoder(shape, weights, max_positions=max_model_len)
    runner = TorchRunner(decoder, shape, plan, precision.compute)
    report("KV cache", time.perf_counter() - started)
    return runner, plan
