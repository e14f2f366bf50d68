"""Attention of a GPU step over the paged KV cache: a kernel for decode rows, one for chunks, cuDNN for long ones."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.kernels.decode_attention import DecodeScratch, decode_attention, plan_decode
from engine.kernels.long_prefill import long_prefill
from engine.kernels.prefill_attention import prefill_attention
from engine.kernels.tuning import LONG_PREFILL, DecodeConfig, PrefillConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """The prompt chunks of a step, R of them; all int32 on the device."""

    slots: Tensor  # [R]
    query_starts: Tensor  # [R + 1] among the step's chunk tokens
    seq_lens: Tensor  # [R] keys at the chunk's end
    tiles: Tensor  # [2, T] none of a long chunk
    config: PrefillConfig


@dataclass(frozen=True, slots=True)
class LongChunk:
    """A prompt chunk that cuDNN attends to."""

    slot: int
    tokens: slice  # of the step's chunk tokens
    before: int  # keys in front of it


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRows:
    """The decode rows of a step, which are its first tokens."""

    slots: Tensor  # int32 [B]
    seq_lens: Tensor  # int32 [B]
    config: DecodeConfig
    scratch: DecodeScratch


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAttention:
    """`engine.models.decoder.Attention` for the GPU."""

    slots: Tensor  # int32 [N] where each token's key and value are stored; negative: nowhere
    tables: Tensor  # int32 [max_num_seqs, blocks per row]
    window: int | None
    decode: DecodeRows | None
    chunks: Chunks | None
    long: list[LongChunk] = field(default_factory=list)

    def plan(self) -> None:
        """Once a step, before the first layer."""
        if self.decode is not None:
            rows = self.decode
            plan_decode(rows.seq_lens, rows.slots, rows.scratch, config=rows.config, window=self.window)

    def attend(self, q: Tensor, cache: Tensor) -> Tensor:
        """q [N, q heads, head_dim] -> [N, q heads * head_dim]."""
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        num_decode = 0 if self.decode is None else len(self.decode.slots)
        if self.decode is not None:
            rows = self.decode
            decode_attention(q[:num_decode], cache, self.tables, out[:num_decode], rows.scratch, config=rows.config)
        if self.chunks is not None:
            chunks = self.chunks
            prefill_attention(
                q[num_decode:],
                cache,
                self.tables,
                chunks.slots,
                chunks.query_starts,
                chunks.seq_lens,
                chunks.tiles,
                out[num_decode:],
                config=chunks.config,
                window=self.window,
            )
        for chunk in self.long:
            table = self.tables[chunk.slot]
            tokens = slice(num_decode + chunk.tokens.start, num_decode + chunk.tokens.stop)
            long_prefill(q[tokens], cache, table, chunk.before, out[tokens], config=LONG_PREFILL)
        return out.flatten(1)
