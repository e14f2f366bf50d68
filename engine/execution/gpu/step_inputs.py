"""What a step reads of the CPU's numbers: fixed places, for CUDA graphs read the same ones in every step. Numpy only.

A decode step has sampled rows only. A mixed step has tokens too: one for each decode row, then those of the chunks; a
sampled row is then drawn after one of them. A graph's step is padded to its size by rows and tokens of slot -1.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from engine.batch import Int32s, ScheduledBatch
from engine.kernels.prefill_attention import tile_map

MAX_GRAPH_CHUNKS = 16
MAX_GRAPH_TOKENS = 512  # of chunks, in a mixed step that has a graph
MAX_GRAPH_TILES = MAX_GRAPH_TOKENS + MAX_GRAPH_CHUNKS  # even with one token a tile

Array = TypeVar("Array")  # Int32s on the CPU, Tensor on the device


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedInputs(Generic[Array]):
    """One int32 buffer, cut up the same way on both sides; M = max_num_seqs."""

    slots: Array  # [M] of sampled rows
    positions: Array  # [M] of the tokens that they are drawn after
    wanted: Array  # [M] the places of these among the step's tokens
    token_slots: Array  # [M + MAX_GRAPH_TOKENS]
    token_positions: Array  # [M + MAX_GRAPH_TOKENS]
    chunk_slots: Array  # [MAX_GRAPH_CHUNKS]
    chunk_starts: Array  # [MAX_GRAPH_CHUNKS + 1] among the chunks' tokens
    chunk_ends: Array  # [MAX_GRAPH_CHUNKS] keys at the chunk's end
    tiles: Array  # [2 * MAX_GRAPH_TILES]


def _sizes(most: int) -> dict[str, int]:
    return {
        "slots": most,
        "positions": most,
        "wanted": most,
        "token_slots": most + MAX_GRAPH_TOKENS,
        "token_positions": most + MAX_GRAPH_TOKENS,
        "chunk_slots": MAX_GRAPH_CHUNKS,
        "chunk_starts": MAX_GRAPH_CHUNKS + 1,
        "chunk_ends": MAX_GRAPH_CHUNKS,
        "tiles": 2 * MAX_GRAPH_TILES,
    }


def num_fixed(most: int) -> int:
    """int32 numbers of a `FixedInputs` for at most that many rows."""
    return sum(_sizes(most).values())


def cut_up(buffer: Array, most: int) -> FixedInputs[Array]:
    """Views of a buffer of `num_fixed(most)` numbers."""
    parts: dict[str, Array] = {}
    first = 0
    for name, size in _sizes(most).items():
        parts[name] = buffer[first : first + size]  # type: ignore[index]  # tensors and arrays are both cut like this
        first += size
    return FixedInputs(**parts)


def fill_decode(fixed: FixedInputs[Int32s], batch: ScheduledBatch, size: int) -> None:
    """A decode step, padded to `size` rows."""
    count = len(batch.decode_slots)
    fixed.slots[:count], fixed.slots[count:size] = batch.decode_slots, -1
    fixed.positions[:count], fixed.positions[count:size] = batch.decode_positions, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSize:
    """Of a mixed graph: decode rows, tokens of chunks; and the tiles of its attention over these."""

    rows: int
    tokens: int
    tiles: int
    tile_tokens: int

    @property
    def num_sampled(self) -> int:
        return self.rows + MAX_GRAPH_CHUNKS


def fill_mixed(fixed: FixedInputs[Int32s], batch: ScheduledBatch, size: MixedSize, drawn: int) -> Int32s:
    """A mixed step, padded to its graph; `drawn` is the size of the graph that samples.

    Answers where the step's sampled rows stand among the `size.num_sampled` of the graph.
    """
    count, num_chunks = len(batch.decode_slots), len(batch.chunk_slots)
    starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(batch.chunk_lengths, dtype=np.int32)])
    total, ends = int(starts[-1]), batch.chunk_starts + batch.chunk_lengths
    fixed.token_slots[: size.rows + size.tokens] = -1
    fixed.token_positions[: size.rows + size.tokens] = 0
    chunk_tokens = slice(size.rows, size.rows + total)
    fixed.token_slots[:count], fixed.token_positions[:count] = batch.decode_slots, batch.decode_positions
    fixed.token_slots[chunk_tokens] = np.repeat(batch.chunk_slots, batch.chunk_lengths)
    fixed.token_positions[chunk_tokens] = np.arange(total) + np.repeat(
        batch.chunk_starts - starts[:-1], batch.chunk_lengths
    )
    fixed.chunk_slots[:num_chunks] = batch.chunk_slots
    fixed.chunk_starts[: num_chunks + 1], fixed.chunk_starts[num_chunks + 1 :] = starts, total
    fixed.chunk_ends[:num_chunks], fixed.chunk_ends[num_chunks:] = ends, 0
    tiles = tile_map(batch.chunk_lengths, ends, tile_tokens=size.tile_tokens, num_tiles=size.tiles)
    fixed.tiles[: tiles.size] = tiles.reshape(-1)
    fixed.slots[:drawn], fixed.positions[:drawn], fixed.wanted[:drawn] = -1, 0, 0
    sampling = np.flatnonzero(batch.chunk_samples)
    places = np.concatenate([np.arange(count), size.rows + sampling]).astype(np.int32)
    fixed.slots[places] = np.concatenate([batch.decode_slots, batch.chunk_slots[sampling]])
    fixed.positions[places] = np.concatenate([batch.decode_positions, ends[sampling] - 1])
    fixed.wanted[places] = np.concatenate([np.arange(count), size.rows + starts[1:][sampling] - 1])
    return places
