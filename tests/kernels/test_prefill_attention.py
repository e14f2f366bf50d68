import random

import numpy as np
import pytest
import torch

from engine.kernels.prefill_attention import (
    dense_prefill,
    prefill_attention,
    prefill_attention_twin,
    tile_map,
    tokens_per_tile,
)
from engine.kernels.tuning import PrefillConfig, prefill_config
from tests.kernels.paged_rows import PagedRows, error, paged_rows

SMALL = PrefillConfig(queries=16, tile=16, warps=1, stages=2)


def attend(
    q: torch.Tensor, lengths: list[int], rows: PagedRows, window: int | None = None, spare_tiles: int = 3
) -> torch.Tensor:
    kv_heads = rows.cache.shape[3]
    tile_tokens = tokens_per_tile(config=SMALL, num_heads=q.shape[1], num_kv_heads=kv_heads)
    num_tiles = sum(-(-length // tile_tokens) for length in lengths) + spare_tiles
    tiles = tile_map(
        np.array(lengths, np.int32), rows.seq_lens.cpu().numpy(), tile_tokens=tile_tokens, num_tiles=num_tiles
    )
    out = torch.full(q.shape, torch.nan, dtype=q.dtype, device=q.device)
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=q.device)
    prefill_attention(
        q,
        rows.cache,
        rows.block_tables,
        rows.slots,
        starts,
        rows.seq_lens,
        torch.from_numpy(tiles).to(q.device),
        out,
        config=SMALL,
        window=window,
    )
    return out


@pytest.mark.parametrize("seed", range(14))
def test_random_chunks_agree_with_the_twin(seed: int, device: torch.device, half: torch.dtype) -> None:
    draw = random.Random(seed)
    head_dim = [64, 80, 96, 128][seed % 4]
    kv_heads, shared = draw.randint(1, 2), seed % 8 + 1
    lengths = [draw.choice([1, 2, 16, 17, draw.randint(1, 60)]) for _ in range(draw.randint(1, 4))]
    cached = [draw.choice([0, 0, 1, 16, draw.randint(0, 70)]) for _ in lengths]
    window = draw.choice([None, None, 1, 16, 40])
    dtype = half if seed % 3 else torch.float32
    rows = paged_rows([a + b for a, b in zip(lengths, cached, strict=True)], kv_heads, head_dim, dtype, device, seed)
    padding = draw.randint(0, 3)
    q = torch.randn(sum(lengths) + padding, kv_heads * shared, head_dim).to(device, dtype)

    out = attend(q, lengths, rows, window)

    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    expected = prefill_attention_twin(
        q, rows.cache, rows.block_tables, starts, rows.seq_lens, slots=rows.slots, window=window
    )
    assert error(out[: sum(lengths)], expected) < (1e-2 if dtype == half else 1e-4)
    assert out[sum(lengths) :].isnan().all()  # nothing is written beyond the chunks


def test_tiles_cover_every_token_once_longest_first() -> None:
    query_lens, seq_lens = np.array([5, 16, 1, 40], np.int32), np.array([105, 16, 1, 40], np.int32)
    tiles = tile_map(query_lens, seq_lens, tile_tokens=8, num_tiles=12)
    used = tiles[:, tiles[0] >= 0]
    assert sorted(zip(*used.tolist(), strict=True)) == [
        (row, first) for row, length in enumerate(query_lens) for first in range(0, length, 8)
    ]
    assert (tiles[0, used.shape[1] :] == -1).all()
    work = (seq_lens - query_lens)[used[0]] + used[1]
    assert (np.diff(work) <= 0).all()


@pytest.mark.parametrize("lengths", [[7, 7], [5, 1, 9]])
def test_chunks_without_a_prefix_agree_with_the_paged_twin(lengths: list[int], device: torch.device) -> None:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    q, k, v = (torch.randn(sum(lengths), heads, 64).to(device, dtype) for heads in (6, 2, 2))
    out = torch.full_like(q, torch.nan)
    dense_prefill(q, k, v, lengths, out)
    cache = torch.zeros(len(lengths), 16, 2, 2, 64, dtype=dtype, device=device)
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    for row, length in enumerate(lengths):
        cache[row, :length] = torch.stack((k, v), 1)[starts[row] : starts[row + 1]]
    tables = torch.arange(len(lengths), dtype=torch.int32, device=device)[:, None]
    expected = prefill_attention_twin(q, cache, tables, starts, starts.diff())
    assert error(out, expected) < (1e-4 if device.type == "cpu" else 1e-2)


def test_every_launch_has_a_config() -> None:
    for num_tokens in (1, 256, 257, 1 << 20):
        for head_dim in (64, 80, 128, 256):
            assert prefill_config(num_tokens=num_tokens, head_dim=head_dim).queries >= 16
