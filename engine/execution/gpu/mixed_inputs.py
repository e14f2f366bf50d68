"""A mixed step as the GPU reads it, and which kernel attends to which of its chunks: decided on the CPU."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Bools, Int32s, Int64s, ScheduledBatch
from engine.execution.gpu.attention import Chunks, LongChunk
from engine.execution.gpu.staging import Staging
from engine.execution.inputs import StepRows
from engine.kernels.long_prefill import are_long, has_long_prefill
from engine.kernels.prefill_attention import tile_map, tokens_per_tile
from engine.kernels.tuning import LONG_PREFILL, PrefillConfig, prefill_config
from engine.models.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedInputs:
    """On the device once the step's numbers were sent; all int32. The first tokens are those of decode rows."""

    num_decode: int
    token_slots: Tensor  # [N]
    positions: Tensor  # [N]
    chunks: Chunks | None  # None: all are long
    long: list[LongChunk]


class ChunkPlanner:
    """Which kernel attends to which chunk of one model, and with which block shapes."""

    def __init__(self, shape: ModelShape, device: torch.device, dtype: torch.dtype) -> None:
        self._shape = shape
        self._has_long = shape.sliding_window is None and has_long_prefill(device, dtype, head_dim=shape.head_dim)

    def put(self, batch: ScheduledBatch, rows: StepRows, staging: Staging) -> MixedInputs:
        token_slots = np.repeat(rows.slots, rows.lengths)
        positions = np.arange(len(token_slots)) + np.repeat(rows.starts - rows.first, rows.lengths)
        is_long = self._are_long(batch)
        return MixedInputs(
            num_decode=len(batch.decode_slots),
            token_slots=put(staging, token_slots),
            positions=put(staging, positions),
            chunks=None if is_long.all() else self._put_chunks(batch, is_long, staging),
            long=_long_chunks(batch, is_long),
        )

    def config(self, num_tokens: int, *, longest: int) -> PrefillConfig:
        """For chunks of so many tokens in all, the last of which sees `longest` keys."""
        shape = self._shape
        shared = shape.num_heads // shape.num_kv_heads
        return prefill_config(num_tokens=num_tokens, head_dim=shape.head_dim, longest=longest, shared=shared)

    def tile_tokens(self, config: PrefillConfig) -> int:
        shape = self._shape
        return tokens_per_tile(config=config, num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads)

    def _are_long(self, batch: ScheduledBatch) -> Bools:
        if not self._has_long:
            return np.zeros(len(batch.chunk_lengths), np.bool_)
        return are_long(batch.chunk_lengths, batch.chunk_starts + batch.chunk_lengths, config=LONG_PREFILL)

    def _put_chunks(self, batch: ScheduledBatch, is_long: Bools, staging: Staging) -> Chunks:
        """What is not long goes in one launch: long chunks have no tiles in it."""
        lengths, ends = batch.chunk_lengths, batch.chunk_starts + batch.chunk_lengths
        tiled = np.where(is_long, 0, lengths).astype(np.int32)
        config = self.config(int(tiled.sum()), longest=int(ends[~is_long].max()))
        tile_tokens = self.tile_tokens(config)
        num_tiles = int((-(-tiled // tile_tokens)).sum())
        tiles = tile_map(tiled, ends, tile_tokens=tile_tokens, num_tiles=num_tiles)
        return Chunks(
            slots=put(staging, batch.chunk_slots),
            query_starts=put(staging, _starts(lengths)),
            seq_lens=put(staging, ends),
            tiles=put(staging, tiles.reshape(-1)).view(2, num_tiles),
            config=config,
        )


def put(staging: Staging, numbers: Int32s | Int64s) -> Tensor:
    """As int32."""
    return staging.put(numbers.astype(np.int32, copy=False))


def _long_chunks(batch: ScheduledBatch, is_long: Bools) -> list[LongChunk]:
    starts = _starts(batch.chunk_lengths)
    return [
        LongChunk(int(batch.chunk_slots[i]), slice(int(starts[i]), int(starts[i + 1])), int(batch.chunk_starts[i]))
        for i in np.flatnonzero(is_long).tolist()
    ]


def _starts(lengths: Int32s) -> Int32s:
    """[C + 1] where each run begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
