"""Causal attention of prompt chunks over the paged KV cache, where the chunks' own keys and values already stand.

A program takes a tile: a few tokens of one chunk, times the query heads that share a kv head. Which tile is what comes
in a small map made on the CPU, longest work first, so that chunks of all lengths go in one launch.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import triton
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.kernels.prefill_attention_triton import prefill
from engine.kernels.tuning import PrefillConfig

Int32s = npt.NDArray[np.int32]

LOG2_E = 1.4426950408889634


def tokens_per_tile(*, config: PrefillConfig, num_heads: int, num_kv_heads: int) -> int:
    """The most query heads that share a kv head is `config.queries`."""
    return config.queries // int(triton.next_power_of_2(num_heads // num_kv_heads))


def tile_map(query_lens: Int32s, seq_lens: Int32s, *, tile_tokens: int, num_tiles: int) -> Int32s:
    """int32 [2, num_tiles]: each tile's chunk and first token in it; chunk -1: spare.

    query_lens [R] are the chunks' lengths, seq_lens [R] the keys that stand in the cache at their end.
    """
    counts = -(-query_lens // tile_tokens)
    total = int(counts.sum())
    assert total <= num_tiles
    rows = np.repeat(np.arange(len(counts)), counts)
    firsts = (np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)) * tile_tokens
    order = np.argsort(-((seq_lens - query_lens)[rows] + firsts), kind="stable")
    tiles = np.full((2, num_tiles), -1, np.int32)
    tiles[0, :total], tiles[1, :total] = rows[order], firsts[order]
    return tiles


def prefill_attention(
    q: Tensor,
    cache: Tensor,
    block_tables: Tensor,
    slots: Tensor | None,
    query_starts: Tensor,
    seq_lens: Tensor,
    tiles: Tensor,
    out: Tensor,
    *,
    config: PrefillConfig,
    window: int | None = None,
    scale: float | None = None,
) -> None:
    """q [N, q heads, head_dim]: chunk r's queries are q[query_starts[r] : query_starts[r + 1]], its keys the first
    seq_lens[r] of line slots[r] (None: r) of the block tables; into out, where no other row is written.

    cache [blocks, block size, 2, kv heads, head_dim]; all others int32: block_tables [lines, W], slots [R],
    query_starts [R + 1], seq_lens [R], tiles [2, T] from `tile_map` for `tokens_per_tile` of the same config.
    """
    num_heads, head_dim = q.shape[1:]
    num_kv_heads = cache.shape[3]
    shared = triton.next_power_of_2(num_heads // num_kv_heads)
    assert cache.is_contiguous() and cache.shape[2] == 2 and cache.shape[4] == head_dim and cache.dtype == q.dtype
    assert num_heads % num_kv_heads == 0 and q.stride()[1:] == (head_dim, 1) and config.queries >= shared
    assert out.shape == q.shape and out.is_contiguous()
    assert block_tables.stride(1) == 1 and len(query_starts) == len(seq_lens) + 1
    assert tiles.is_contiguous() and tiles.shape[0] == 2
    for numbers in (block_tables, query_starts, seq_lens, tiles):
        assert numbers.dtype == torch.int32
    assert slots is None or slots.dtype == torch.int32
    prefill[(num_kv_heads, tiles.shape[1])](
        q,
        cache,
        block_tables,
        slots,
        query_starts,
        seq_lens,
        tiles,
        out,
        (scale or head_dim**-0.5) * LOG2_E,
        block_tables.stride(0),
        Q_STRIDE=q.stride(0),
        BLOCK=cache.shape[1],
        KV_HEADS=num_kv_heads,
        SHARED=num_heads // num_kv_heads,
        SHARED_PAD=shared,
        DIM=head_dim,
        DIM_PAD=triton.next_power_of_2(head_dim),
        QUERIES=config.queries,
        TILE=config.tile,
        WINDOW=window,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def dense_prefill(
    q: Tensor, k: Tensor, v: Tensor, lengths: list[int], out: Tensor, *, scale: float | None = None
) -> None:
    """Chunks without a cached prefix, from the projection's own q [N, q heads, head_dim], k and v [N, kv heads, ...].

    One call for chunks of one length, else one for each: what torch ships takes no ragged rows at this rate.
    """
    if len(set(lengths)) == 1:
        _dense(q, k, v, out, len(lengths), scale)
        return
    ends = np.cumsum([0, *lengths]).tolist()
    for start, end in pairwise(ends):
        _dense(q[start:end], k[start:end], v[start:end], out[start:end], 1, scale)


def _dense(q: Tensor, k: Tensor, v: Tensor, out: Tensor, num_rows: int, scale: float | None) -> None:
    rows = [part.view(num_rows, -1, *part.shape[1:]).transpose(1, 2) for part in (q, k, v)]
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(backends, set_priority=True):
        attended = functional.scaled_dot_product_attention(
            rows[0], rows[1], rows[2], is_causal=True, scale=scale, enable_gqa=True
        )
    out.view(num_rows, -1, *out.shape[1:]).copy_(attended.transpose(1, 2))


def prefill_attention_twin(
    q: Tensor,
    cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    seq_lens: Tensor,
    *,
    slots: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same in plain torch and float32, all chunks padded to the longest."""
    lengths = query_starts.diff()
    tables = block_tables if slots is None else block_tables[slots.long()]
    kv = cache[tables.long()].flatten(1, 2).float()  # [R, keys, 2, kv heads, head_dim]
    place = torch.arange(int(lengths.max()), device=q.device)
    live = place < lengths[:, None]
    queries = q.new_zeros(*live.shape, *q.shape[1:], dtype=torch.float32)
    queries[live] = q[: int(query_starts[-1])].float()
    position = (seq_lens - lengths)[:, None, None] + place[:, None]  # [R, L, 1]
    keys = torch.arange(kv.shape[1], device=q.device)
    seen = keys <= position
    if window is not None:
        seen &= keys > position - window
    kv = kv.masked_fill((keys >= seq_lens[:, None])[:, :, None, None, None], 0.0)
    grouped = queries.view(*live.shape, cache.shape[3], -1, q.shape[2])
    scores = torch.einsum("blhgd,bthd->bhglt", grouped, kv[:, :, 0]) * (scale or q.shape[2] ** -0.5)
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
    return torch.einsum("bhglt,bthd->blhgd", weights, kv[:, :, 1]).flatten(2, 3)[live]
