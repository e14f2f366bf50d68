"""Runs a model's steps on one GPU, a step ahead of the loop: nothing in `launch` waits for the device.

Tokens, block tables and sampling parameters of each slot live on the device; a step sends what changed and, for each
of its rows, slot and position. Steps of decode rows, and small ones with prompt chunks, are two graph launches; larger
ones run eagerly. What rows ask for beyond a plain draw (penalties, biases, log-probabilities ...) is `GpuSampler`'s.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s, ScheduledBatch, SlotSetup, StepResult
from engine.config import EnginePlan
from engine.execution.cache import allocate_cache
from engine.execution.gpu.attention import Chunks, DecodeRows, GpuAttention
from engine.execution.gpu.graphs import MixedGraph, StepGraphs, StepParts, mixed_sizes
from engine.execution.gpu.mixed_inputs import ChunkPlanner, MixedInputs, put
from engine.execution.gpu.sampler import ExtraWork, GpuSampler, SentLogprobs
from engine.execution.gpu.staging import Staging, joined
from engine.execution.gpu.step_inputs import MixedSize, cut_up, fill_decode, fill_mixed, num_fixed
from engine.execution.inputs import StepRows, rows_in_order, sampled_rows
from engine.execution.logprobs import PromptLogprobs
from engine.execution.prompt_logprobs import PromptPart, prompt_parts, score_prompt
from engine.execution.slot_tables import SlotTables
from engine.kernels.argmax_triton import argmax
from engine.kernels.decode_attention import decode_scratch
from engine.kernels.sampling_triton import sample
from engine.kernels.step_state import give_blocks, install_tokens, locate, remember
from engine.kernels.tuning import DECODE, decode_config
from engine.models.decoder import Decoder, StepInputs
from engine.models.shape import ModelShape

_FREE_NUMBERS = 4 * 2**20  # int32 numbers of one send beyond the fixed ones: prompts above all
_RESULT_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Out:
    """A launched step: its results on their way to pinned memory."""

    tokens: Int32s  # [rows, 2] a view of pinned memory: ids, and 1 where a row failed
    places: Int32s | None  # [S] of the step's sampled rows among these; None: they are the rows
    copied: torch.cuda.Event
    logprobs: SentLogprobs | None
    prompt_logprobs: list[PromptLogprobs]

    def to_host(self) -> StepResult:
        self.copied.synchronize()
        tokens = self.tokens if self.places is None else self.tokens[self.places]
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
        self._chunks = ChunkPlanner(shape, self._device, dtype)
        most = plan.max_num_seqs
        with self._enter():
            self._tables = SlotTables(plan, self._device)
            self._sampler = GpuSampler(plan, self._tables)
            self._cache = allocate_cache(shape, plan, dtype)
            self._staging = Staging(fixed=num_fixed(most), free=_FREE_NUMBERS, device=self._device)
            self._fixed = cut_up(self._staging.device, most)
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
        self._pinned = [torch.zeros(most, 2, dtype=torch.int32, pin_memory=True) for _ in range(_RESULT_TURNS)]
        self._copied = [torch.cuda.Event() for _ in range(_RESULT_TURNS)]
        self._turn = 0
        self._launched: deque[_Out] = deque()
        parts = StepParts(
            forward=self._forward_rows, greedy=self._draw_greedy, random=self._draw_random, mixed=self._forward_mixed
        )
        self._graphs = StepGraphs(most, parts, mixed_sizes(most, self._graph_tile_tokens))

    def capture_first(self) -> None:
        """Before the engine is ready."""
        with self._enter():
            self._pad_all()
            self._graphs.capture_first()

    def prepare(self) -> bool:
        """One more graph; False: all are there."""
        with self._enter():
            self._pad_all()
            return self._graphs.capture_next()

    def _pad_all(self) -> None:
        """Capturing runs the steps too: they are to read and write nobody's blocks."""
        self._staging.device.zero_()
        for padding in (self._fixed.slots, self._fixed.token_slots, self._fixed.tiles):
            padding.fill_(-1)

    def launch(self, batch: ScheduledBatch) -> None:
        with self._enter():
            self._install(batch)
            self._launched.append(self._mixed_step(batch) if len(batch.chunk_slots) else self._decode_step(batch))

    def _mixed_step(self, batch: ScheduledBatch) -> _Out:
        rows = rows_in_order(batch)
        parts = prompt_parts(batch, rows, self._sampler.work.prompt_len)
        graph = None if parts else self._graphs.find_mixed(batch)
        return self._eager_step(batch, rows, parts) if graph is None else self._graph_step(batch, rows, graph)

    def collect(self) -> StepResult:
        return self._launched.popleft().to_host()

    def _enter(self) -> torch.inference_mode:
        """On the runner's device and stream from here on, whatever thread this is: to switch back would cost 60 us."""
        if torch.cuda.current_stream(self._device) != self._stream:
            torch.cuda.set_device(self._device)
            torch.cuda.set_stream(self._stream)
        return torch.inference_mode()

    # --- what changed ------------------------------------------------------------------------------------------------

    def _install(self, batch: ScheduledBatch) -> None:
        setups = batch.setups
        first = 0
        while first < len(setups):  # nearly always one turn: a send takes four million numbers
            last, total = first, 0
            while last < len(setups) and (last == first or total + self._num_sent(setups[last]) <= _FREE_NUMBERS // 2):
                total += self._num_sent(setups[last])
                last += 1
            self._install_rows(setups[first:last])
            first = last

    def _num_sent(self, setup: SlotSetup) -> int:
        return len(setup.tokens) + self._sampler.num_sent(setup)

    def _install_rows(self, group: list[SlotSetup]) -> None:
        lengths = np.array([len(setup.tokens) for setup in group], np.int32)
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        slots = np.array([setup.slot for setup in group], np.int32)
        self._staging.begin()
        numbers = (slots, starts, lengths, joined([setup.tokens for setup in group]))
        put = [self._staging.put(part) for part in numbers]
        joining = self._sampler.join(group, self._staging)
        self._staging.send()
        install_tokens(self._tables.history, put[0], put[1], put[2], put[3], int(lengths.max()))
        self._sampler.install(joining)

    def _send(self, batch: ScheduledBatch) -> None:
        """What was filled and put for the step, and the blocks given out for it."""
        if not len(batch.block_ids):
            self._staging.send()
            return
        put = [self._staging.put(part) for part in (batch.block_slots, batch.block_columns, batch.block_ids)]
        self._staging.send()
        give_blocks(self._tables.blocks, put[0], put[1], put[2])

    # --- steps of decode rows only -----------------------------------------------------------------------------------

    def _decode_step(self, batch: ScheduledBatch) -> _Out:
        count = len(batch.decode_slots)
        graph = self._graphs.find(count)
        size = count if graph is None else graph.size
        fill_decode(cut_up(self._staging.begin(), self._plan.max_num_seqs), batch, size)
        slots, positions = batch.decode_slots.astype(np.int64), batch.decode_positions.astype(np.int64) + 1
        extra = self._sampler.extra_work(slots, positions, self._staging)
        self._send(batch)
        if graph is None:
            self._forward_rows(size)
        else:
            graph.forward.replay()
        is_random = self._sampler.is_random(slots, extra)
        if graph is None:
            (self._draw_random if is_random else self._draw_greedy)(size)
        else:
            (graph.random if is_random else graph.greedy).replay()
        return self._send_out(count, extra)

    def _forward_rows(self, size: int) -> None:
        """Slots and positions to logits; captured."""
        slots, positions = self._fixed.slots[:size], self._fixed.positions[:size]
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
        self._keep_drawn(tokens, failed, self._fixed.slots[:size], self._fixed.positions[:size] + 1)

    def _draw_random(self, size: int) -> None:
        """Logits to tokens, each row by its slot's parameters; captured."""
        slots, positions = self._fixed.slots[:size], self._fixed.positions[:size] + 1
        tokens, failed = sample(self._logits[:size], slots, positions, self._sampler.parameters)
        self._keep_drawn(tokens, failed, slots, positions)

    def _keep_drawn(self, tokens: Tensor, failed: Tensor, slots: Tensor, positions: Tensor) -> None:
        remember(self._tables.history, slots, positions, tokens)
        self._drawn[: len(tokens), 0] = tokens
        self._drawn[: len(tokens), 1] = failed

    # --- small steps with prompt chunks ------------------------------------------------------------------------------

    def _graph_tile_tokens(self, num_tokens: int) -> int:
        return self._chunks.tile_tokens(self._chunks.config(num_tokens, longest=self._plan.max_model_len))

    def _graph_step(self, batch: ScheduledBatch, rows: StepRows, graph: MixedGraph) -> _Out:
        fixed = cut_up(self._staging.begin(), self._plan.max_num_seqs)
        places = fill_mixed(fixed, batch, graph.size, graph.drawn.size)
        sampled = sampled_rows(batch)
        slots, positions = rows.slots[sampled], rows.ends[sampled]
        extra = self._sampler.extra_work(slots, positions, self._staging, places=places)
        self._send(batch)
        graph.forward.replay()
        (graph.drawn.random if self._sampler.is_random(slots, extra) else graph.drawn.greedy).replay()
        return self._send_out(graph.size.num_sampled, extra, places=places)

    def _forward_mixed(self, size: MixedSize) -> None:
        """Slots and positions to logits; captured."""
        num_tokens, fixed = size.rows + size.tokens, self._fixed
        chunks = Chunks(
            slots=fixed.chunk_slots,
            query_starts=fixed.chunk_starts,
            seq_lens=fixed.chunk_ends,
            tiles=fixed.tiles[: 2 * size.tiles].view(2, size.tiles),
            config=self._chunks.config(size.tokens, longest=self._plan.max_model_len),
        )
        step = MixedInputs(
            num_decode=size.rows,
            token_slots=fixed.token_slots[:num_tokens],
            positions=fixed.token_positions[:num_tokens],
            chunks=chunks,
            long=[],
        )
        hidden = self._hidden(step, fixed.wanted[: size.num_sampled])
        self._decoder.logits_into(hidden, self._logits[: size.num_sampled])

    # --- large steps with prompt chunks ------------------------------------------------------------------------------

    def _eager_step(self, batch: ScheduledBatch, rows: StepRows, parts: list[PromptPart]) -> _Out:
        sampled = sampled_rows(batch)
        wanted = np.concatenate([(rows.first + rows.lengths - 1)[sampled], *(part.tokens for part in parts)])
        slots, positions = rows.slots[sampled], rows.ends[sampled]
        self._staging.begin()
        mixed = self._chunks.put(batch, rows, self._staging)
        wanted_there, slots_there, positions_there = (
            put(self._staging, numbers) for numbers in (wanted, slots, positions)
        )
        extra = self._sampler.extra_work(slots, positions, self._staging)
        self._send(batch)
        hidden = self._hidden(mixed, wanted_there)
        prompt_logprobs = self._score_prompts(parts, hidden[len(sampled) :])
        count = len(sampled)
        if count == 0:
            return self._send_out(0, None, prompt_logprobs)
        logits = self._logits[:count]
        self._decoder.logits_into(hidden[:count], logits)
        tokens, failed = sample(logits, slots_there, positions_there, self._sampler.parameters)
        self._keep_drawn(tokens, failed, slots_there, positions_there)
        return self._send_out(count, extra, prompt_logprobs)

    def _score_prompts(self, parts: list[PromptPart], hidden: Tensor) -> list[PromptLogprobs]:
        sizes = [len(part.tokens) for part in parts]
        split = torch.split(hidden, sizes) if parts else ()
        return [
            score_prompt(part, of_part, self._decoder.logits, self._tables).sent()
            for part, of_part in zip(parts, split, strict=True)
        ]

    # --- both --------------------------------------------------------------------------------------------------------

    def _hidden(self, step: MixedInputs, wanted: Tensor) -> Tensor:
        """The final hidden states of the wanted tokens."""
        tokens, places, seq_lens, _ = self._locate(step.token_slots, step.positions)
        rows = slice(step.num_decode)
        attention = GpuAttention(
            slots=places,
            tables=self._tables.blocks,
            window=self._shape.sliding_window,
            decode=self._decode_rows(step.token_slots[rows], seq_lens[rows]) if step.num_decode else None,
            chunks=step.chunks,
            long=step.long,
        )
        attention.plan()
        inputs = StepInputs(tokens=tokens, positions=step.positions, attention=attention, wanted=wanted)
        return self._decoder.hidden(inputs, self._cache)

    def _locate(self, slots: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return locate(slots, positions, self._tables.history, self._tables.blocks, self._plan.block_size)

    def _decode_rows(self, slots: Tensor, seq_lens: Tensor) -> DecodeRows:
        config = decode_config(num_rows=len(slots))
        return DecodeRows(slots=slots, seq_lens=seq_lens, config=config, scratch=self._scratch)

    def _send_out(
        self,
        count: int,
        extra: ExtraWork | None,
        prompt_logprobs: list[PromptLogprobs] | None = None,
        *,
        places: Int32s | None = None,
    ) -> _Out:
        """All rows have drawn: what some ask for beyond that, then the results on their way."""
        logprobs = None if extra is None else self._sampler.do(extra, self._logits, self._drawn)
        self._turn = (self._turn + 1) % _RESULT_TURNS
        pinned, copied = self._pinned[self._turn][:count], self._copied[self._turn]
        pinned.copy_(self._drawn[:count], non_blocking=True)
        copied.record(self._stream)
        return _Out(
            tokens=pinned.numpy(),
            places=places,
            copied=copied,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs or [],
        )
