"""Drives a runner as a scheduler would, one row at a time or many at once, with blocks handed out in random order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.batch import Int32s, Runner, ScheduledBatch, SlotSetup, StepResult
from engine.config import EnginePlan
from engine.execution.runner import build_runner
from engine.models.shape import read_shape
from protocol.launch import EngineConfig, ModelFiles
from protocol.sampling import Sampling

GREEDY = Sampling(seed=0, max_tokens=1000, temperature=0.0)


def engine_config(config_dir: Path, weights: Path | None = None, **changes: object) -> EngineConfig:
    settings: dict[str, object] = {
        "device": "cpu",
        "dtype": "float32",
        "num_threads": 1,
        "max_num_seqs": 8,
        "kv_cache_memory_bytes": 2**22,
    }
    return EngineConfig(
        rank=0,
        epoch=1,
        address="",
        hash_key=b"",
        supervisor_pid=1,
        control_fd=0,
        scoreboard_fd=0,
        model=ModelFiles(name="test", config_dir=str(config_dir), weights=str(weights or config_dir)),
        **(settings | changes),  # type: ignore[arg-type]
    )


@dataclass
class DrivenRow:
    slot: int
    tokens: list[int]
    prompt_len: int
    sampling: Sampling
    num_computed: int = 0
    failed: bool = False
    outputs: list[int] = field(default_factory=list)
    setup: SlotSetup | None = None


class Driver:
    def __init__(self, runner: Runner, plan: EnginePlan, seed: int = 0) -> None:
        self.runner, self.plan = runner, plan
        self._free = np.random.default_rng(seed).permutation(plan.num_blocks).tolist()
        self._given: dict[int, list[int]] = {}  # slot -> blocks it has
        self._blocks: list[tuple[int, int, int]] = []
        self._steps = 0

    def add(
        self,
        slot: int,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        outputs: Sequence[int] = (),
        stop_ids: tuple[int, ...] = (),
    ) -> DrivenRow:
        """A row whose prompt (and outputs of an earlier attempt) are not computed yet."""
        tokens = [*prompt, *outputs]
        row = DrivenRow(slot=slot, tokens=tokens, prompt_len=len(prompt), sampling=sampling)
        row.setup = SlotSetup(
            slot=slot,
            sampling=sampling,
            seed=sampling.seed,
            prompt_len=len(prompt),
            stop_ids=stop_ids,
            tokens=np.array(tokens, np.int32),
        )
        self._given[slot] = []
        return row

    def step(self, rows: Sequence[DrivenRow], *, chunk: int = 10**6, prompt_logprobs: int = -1) -> StepResult:
        """One step in which each row decodes, or computes at most `chunk` of its known tokens."""
        decodes = [row for row in rows if row.setup is None and row.num_computed == len(row.tokens) - 1]
        chunks = [row for row in rows if row not in decodes]
        setups = [row.setup for row in rows if row.setup is not None]
        lengths = [min(chunk, len(row.tokens) - row.num_computed) for row in chunks]
        ends = [row.num_computed + length == len(row.tokens) for row, length in zip(chunks, lengths, strict=True)]
        for row, length in [*((row, 1) for row in decodes), *zip(chunks, lengths, strict=True)]:
            self._give_blocks(row, row.num_computed + length)
        blocks = np.array(self._blocks, np.int32).reshape(-1, 3)
        self._blocks = []
        batch = ScheduledBatch(
            step=self._steps,
            setups=setups,
            block_slots=blocks[:, 0],
            block_columns=blocks[:, 1],
            block_ids=blocks[:, 2],
            decode_slots=_ints(row.slot for row in decodes),
            decode_positions=_ints(row.num_computed for row in decodes),
            chunk_slots=_ints(row.slot for row in chunks),
            chunk_starts=_ints(row.num_computed for row in chunks),
            chunk_lengths=_ints(lengths),
            chunk_samples=np.array(ends, np.bool_),
            chunk_prompt_logprobs=_ints(prompt_logprobs for _ in chunks),
        )
        self.runner.launch(batch)
        result = self.runner.collect()
        self._steps += 1
        for row, length in [*((row, 1) for row in decodes), *zip(chunks, lengths, strict=True)]:
            row.num_computed += length
            row.setup = None
        sampled = [*decodes, *(row for row, end in zip(chunks, ends, strict=True) if end)]
        for row, token, failed in zip(sampled, result.tokens.tolist(), result.failed.tolist(), strict=True):
            row.tokens.append(token)
            row.outputs.append(token)
            row.failed |= failed
        return result

    def generate(self, rows: Sequence[DrivenRow], count: int, *, chunk: int = 10**6) -> list[list[int]]:
        """Steps until every row has `count` outputs; a row that has them leaves."""
        while waiting := [row for row in rows if len(row.outputs) < count]:
            self.step(waiting, chunk=chunk)
        return [row.outputs for row in rows]

    def take_back(self, row: DrivenRow) -> None:
        """The row has left; its blocks are the next to be given out."""
        self._free += self._given.pop(row.slot)

    def _give_blocks(self, row: DrivenRow, num_tokens: int) -> None:
        given = self._given[row.slot]
        for column in range(len(given), -(-num_tokens // self.plan.block_size)):
            given.append(self._free.pop())
            self._blocks.append((row.slot, column, given[-1]))


def start(config: EngineConfig, seed: int = 0) -> Driver:
    runner, plan = build_runner(config, read_shape(config.model.config_dir), lambda _name, _seconds: None)
    return Driver(runner, plan, seed)


def _ints(numbers: object) -> Int32s:
    return np.array(list(numbers), np.int32)  # type: ignore[call-overload]
