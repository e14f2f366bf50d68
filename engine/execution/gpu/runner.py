"""Runs a model's steps on one GPU, a step ahead of the loop: nothing in `launch` waits for the device.

Tokens, block tables and sampling parameters of each slot live on the device; a step sends what changed and, for each
of its rows, slot and position. Steps of decode rows only are two graph launches; steps with prompt chunks run eagerly.
Rows that ask for what the graphs do not do (penalties, biases, log-probabilities ...) are drawn by `Sampler`.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s, Int64s, ScheduledBatch, StepResult
from engine.config import EnginePlan
from engine.execution.cache import allocate_cache
from engine.execution.gpu.attention import Chunks, DecodeRows, GpuAttention
from engine.execution.gpu.graphs import DecodeGraphs, first_sizes
from engine.execution.gpu.staging import Staging, joined
from engine.execution.inputs import StepRows, rows_in_order, sampled_rows
from engine.execution.logprobs import DrawnLogprobs, PromptLogprobs
from engine.execution.prompt_logprobs import PromptPart, prompt_parts, score_prompt
from engine.execution.sampler import Sampler
from engine.execution.slot_sampling import RANDOM
from engine.execution.slot_tables import SlotTables
from engine.kernels.argmax_triton import argmax
from engine.kernels.decode_attention import decode_scratch
from engine.kernels.prefill_attention import tile_map, tokens_per_tile
from engine.kernels.sampling_triton import sample
from engine.kernels.step_state import give_blocks, install_tokens, locate, remember
from engine.kernels.tuning import DECODE, decode_config, prefill_config
from engine.models.decoder import Decoder, StepInputs
from engine.models.shape import ModelShape

_FREE_NUMBERS = 4 * 2**20  # int32 numbers of one send beyond slots and positions: prompts above all
_RESULT_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Out:
    """A launched step: its results on their way to pinned memory."""

    tokens: Int32s  # [S, 2] a view of pinned memory: ids, and 1 where a row failed
    copied: torch.cuda.Event
    logprobs: DrawnLogprobs | None
    prompt_logprobs: list[PromptLogprobs]

    def to_host(self) -> StepResult:
        self.copied.synchronize()
        tokens = self.tokens
        return StepResult(
            tokens=tokens[:, 0].copy(),
            failed=tokens[:, 1] != 0,
            logprobs=None if self.logprobs is None else self.logprobs.to_host(),
            prompt_logprobs=[part.to_host() for part in self.prompt_logprobs],
        )


class GpuRunner:
    """The `Runner` of CUDA devices."""

    depth = 1

    def __init__(self, decoder: Decoder, shape: ModelShape, plan: EnginePlan, dtype: torch.dtype) -> None:
        self._device = torch.device(plan.device)
        self._plan = plan
        self._shape = shape
        self._decoder = decoder
        self._stream = torch.cuda.Stream(self._device)
        most = plan.max_num_seqs
        with self._on_stream():
            self._tables = SlotTables(plan, self._device)
            self._sampler = Sampler(plan, self._tables)
            self._cache = allocate_cache(shape, plan, dtype)
            self._staging = Staging(fixed=2 * most, free=_FREE_NUMBERS, device=self._device)
            self._slots, self._positions = self._staging.device[: 2 * most].view(2, most)
            self._logits = torch.empty(most, shape.vocab_size, dtype=dtype, device=self._device)
            # [S, 2], so that what is sent of it is one run: a copy of anything else would wait for the device
            self._drawn = torch.zeros(most, 2, dtype=torch.int32, device=self._device)
            self._scratch = decode_scratch(
                max_rows=most,
                max_programs=max(config.programs for _, config in DECODE),
                num_heads=shape.num_heads,
                num_kv_heads=shape.num_kv_heads,
                head_dim=shape.head_dim,
                device=self._device,
            )
            self._slots.fill_(-1)
        self._pinned = [torch.zeros(most, 2, dtype=torch.int32, pin_memory=True) for _ in range(_RESULT_TURNS)]
        self._turn = 0
        self._launched: deque[_Out] = deque()
        self._graphs = DecodeGraphs(most, self._forward_rows, self._draw_greedy, self._draw_random)

    def capture_first(self) -> None:
        """Before the engine is ready."""
        with self._on_stream():
            for size in first_sizes(self._plan.max_num_seqs):
                self._graphs.capture(size)

    def prepare(self) -> bool:
        """One more graph; False: all are there."""
        with self._on_stream():
            return self._graphs.capture_next()

    def launch(self, batch: ScheduledBatch) -> None:
        with self._on_stream():
            self._install(batch)
            rows = rows_in_order(batch)
            out = self._mixed_step(batch, rows) if len(batch.chunk_slots) else self._decode_step(rows)
            self._launched.append(out)

    def collect(self) -> StepResult:
        return self._launched.popleft().to_host()

    def _on_stream(self) -> "_StreamScope":
        return _StreamScope(self._device, self._stream)

    # --- what changed ------------------------------------------------------------------------------------------------

    def _install(self, batch: ScheduledBatch) -> None:
        setups = batch.setups
        for setup in setups:
            self._sampler.install(setup)
        first = 0
        while first < len(setups):  # nearly always one turn: a send takes four million tokens
            last, total = first, 0
            while last < len(setups) and (last == first or total + len(setups[last].tokens) <= _FREE_NUMBERS // 2):
                total += len(setups[last].tokens)
                last += 1
            self._install_tokens(batch, first, last)
            first = last
        if len(batch.block_ids):
            self._staging.begin()
            put = [self._staging.put(part) for part in (batch.block_slots, batch.block_columns, batch.block_ids)]
            self._staging.send()
            give_blocks(self._tables.blocks, put[0], put[1], put[2])

    def _install_tokens(self, batch: ScheduledBatch, first: int, last: int) -> None:
        group = batch.setups[first:last]
        lengths = np.array([len(setup.tokens) for setup in group], np.int32)
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        slots = np.array([setup.slot for setup in group], np.int32)
        self._staging.begin()
        numbers = (slots, starts, lengths, joined([setup.tokens for setup in group]))
        put = [self._staging.put(part) for part in numbers]
        self._staging.send()
        install_tokens(self._tables.history, put[0], put[1], put[2], put[3], int(lengths.max()))

    # --- steps of decode rows only -----------------------------------------------------------------------------------

    def _decode_step(self, rows: StepRows) -> _Out:
        count = len(rows.slots)
        found = self._graphs.find(count)
        size = count if found is None else found[0]
        self._stage_rows(rows.slots, rows.starts, size)
        if found is None:
            self._forward_rows(size)
        else:
            found[1].forward.replay()
        positions = rows.starts + 1
        if self._sampler.asks_for_more(rows.slots, positions):
            return self._draw_by_sampler(self._logits[:count].float(), rows.slots, positions, [])
        is_random = bool(np.bitwise_or.reduce(self._sampler.slots.work[rows.slots]) & RANDOM)
        if found is None:
            (self._draw_random if is_random else self._draw_greedy)(size)
        else:
            (found[1].random if is_random else found[1].greedy).replay()
        return self._send_out(count)

    def _stage_rows(self, slots: Int64s, positions: Int64s, size: int) -> None:
        most, count = self._plan.max_num_seqs, len(slots)
        fixed = self._staging.begin()
        fixed[:count], fixed[count:size] = slots, -1
        fixed[most : most + count], fixed[most + count : most + size] = positions, 0
        self._staging.send()

    def _forward_rows(self, size: int) -> None:
        """Slots and positions to logits; captured."""
        slots, positions = self._slots[:size], self._positions[:size]
        tokens, places, seq_lens, _ = self._locate(slots, positions)
        attention = GpuAttention(
            slots=places,
            tables=self._tables.blocks,
            window=self._shape.sliding_window,
            decode=self._decode_rows(slots, seq_lens),
            chunks=None,
        )
        attention.plan()
        inputs = StepInputs(tokens=tokens, positions=positions, attention=attention, wanted=None)
        self._decoder.logits_into(self._decoder.hidden(inputs, self._cache), self._logits[:size])

    def _draw_greedy(self, size: int) -> None:
        """Logits to tokens where every row is greedy; captured."""
        tokens, failed = argmax(self._logits[:size])
        self._keep_drawn(tokens, failed, self._slots[:size], self._positions[:size] + 1)

    def _draw_random(self, size: int) -> None:
        """Logits to tokens, each row by its slot's parameters; captured."""
        slots, positions = self._slots[:size], self._positions[:size] + 1
        tokens, failed = sample(self._logits[:size], slots, positions, self._sampler.slots.parameters())
        self._keep_drawn(tokens, failed, slots, positions)

    def _keep_drawn(self, tokens: Tensor, failed: Tensor, slots: Tensor, positions: Tensor) -> None:
        remember(self._tables.history, slots, positions, tokens)
        self._drawn[: len(tokens), 0] = tokens
        self._drawn[: len(tokens), 1] = failed

    # --- steps with prompt chunks ------------------------------------------------------------------------------------

    def _mixed_step(self, batch: ScheduledBatch, rows: StepRows) -> _Out:
        num_decode = len(batch.decode_slots)
        sampled = sampled_rows(batch)
        parts = prompt_parts(batch, rows, self._sampler.slots.prompt_len)
        wanted = np.concatenate([(rows.first + rows.lengths - 1)[sampled], *(part.tokens for part in parts)])
        slots, positions = rows.slots[sampled], rows.ends[sampled]
        self._staging.begin()
        put = self._put_mixed(batch, rows, num_decode)
        wanted_there, slots_there = self._put(wanted), self._put(slots)
        positions_there = self._put(positions)
        self._staging.send()
        tokens, places, seq_lens, _ = self._locate(put.token_slots, put.positions)
        attention = GpuAttention(
            slots=places,
            tables=self._tables.blocks,
            window=self._shape.sliding_window,
            decode=self._decode_rows(put.token_slots[:num_decode], seq_lens[:num_decode]) if num_decode else None,
            chunks=put.chunks,
        )
        attention.plan()
        inputs = StepInputs(tokens=tokens, positions=put.positions, attention=attention, wanted=wanted_there)
        hidden = self._decoder.hidden(inputs, self._cache)
        prompt_logprobs = self._score_prompts(parts, hidden[len(sampled) :])
        count = len(sampled)
        if count == 0:
            return self._send_out(0, prompt_logprobs)
        logits = self._logits[:count]
        self._decoder.logits_into(hidden[:count], logits)
        if self._sampler.asks_for_more(slots, positions):
            return self._draw_by_sampler(logits.float(), slots, positions, prompt_logprobs)
        tokens, failed = sample(logits, slots_there, positions_there, self._sampler.slots.parameters())
        self._keep_drawn(tokens, failed, slots_there, positions_there)
        return self._send_out(count, prompt_logprobs)

    def _put_mixed(self, batch: ScheduledBatch, rows: StepRows, num_decode: int) -> "_MixedInputs":
        lengths, ends = batch.chunk_lengths, batch.chunk_starts + batch.chunk_lengths
        starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
        shape = self._shape
        config = prefill_config(num_tokens=int(lengths.sum()), head_dim=shape.head_dim)
        tile_tokens = tokens_per_tile(config=config, num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads)
        num_tiles = int((-(-lengths // tile_tokens)).sum())
        tiles = tile_map(lengths, ends, tile_tokens=tile_tokens, num_tiles=num_tiles)
        chunks = Chunks(
            slots=self._put(batch.chunk_slots),
            query_starts=self._put(starts),
            seq_lens=self._put(ends),
            tiles=self._put(tiles.reshape(-1)).view(2, num_tiles),
            config=config,
        )
        token_slots = np.repeat(rows.slots, rows.lengths)
        positions = np.arange(len(token_slots)) + np.repeat(rows.starts - rows.first, rows.lengths)
        return _MixedInputs(token_slots=self._put(token_slots), positions=self._put(positions), chunks=chunks)

    def _put(self, numbers: Int32s | Int64s) -> Tensor:
        return self._staging.put(numbers.astype(np.int32, copy=False))

    def _score_prompts(self, parts: list[PromptPart], hidden: Tensor) -> list[PromptLogprobs]:
        sizes = [len(part.tokens) for part in parts]
        split = torch.split(hidden, sizes) if parts else ()
        return [
            score_prompt(part, of_part, self._decoder.logits, self._tables)
            for part, of_part in zip(parts, split, strict=True)
        ]

    # --- both --------------------------------------------------------------------------------------------------------

    def _locate(self, slots: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return locate(slots, positions, self._tables.history, self._tables.blocks, self._plan.block_size)

    def _decode_rows(self, slots: Tensor, seq_lens: Tensor) -> DecodeRows:
        config = decode_config(num_rows=len(slots))
        return DecodeRows(slots=slots, seq_lens=seq_lens, config=config, scratch=self._scratch)

    def _draw_by_sampler(
        self, logits: Tensor, slots: Int64s, positions: Int64s, prompt_logprobs: list[PromptLogprobs]
    ) -> _Out:
        drawn = self._sampler.draw(logits, slots, positions)
        self._tables.write(slots, positions, drawn.tokens)
        self._drawn[: len(slots), 0] = drawn.tokens
        self._drawn[: len(slots), 1] = drawn.failed
        return self._send_out(len(slots), prompt_logprobs, drawn.logprobs)

    def _send_out(
        self, count: int, prompt_logprobs: list[PromptLogprobs] | None = None, logprobs: DrawnLogprobs | None = None
    ) -> _Out:
        self._turn = (self._turn + 1) % _RESULT_TURNS
        pinned = self._pinned[self._turn][:count]
        pinned.copy_(self._drawn[:count], non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return _Out(tokens=pinned.numpy(), copied=copied, logprobs=logprobs, prompt_logprobs=prompt_logprobs or [])


@dataclass(frozen=True, slots=True, kw_only=True)
class _MixedInputs:
    token_slots: Tensor  # int32 [N]
    positions: Tensor  # int32 [N]
    chunks: Chunks


class _StreamScope:
    """The runner's device, stream and inference mode, whatever thread calls."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._scopes = (torch.inference_mode(), torch.cuda.device(device), torch.cuda.stream(stream))

    def __enter__(self) -> None:
        for scope in self._scopes:
            scope.__enter__()

    def __exit__(self, *error: object) -> None:
        for scope in reversed(self._scopes):
            scope.__exit__(None, None, None)
