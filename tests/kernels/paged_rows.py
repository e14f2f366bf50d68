"""Random rows over a paged cache in which everything that no row may read is NaN."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16


@dataclass(frozen=True, slots=True)
class PagedRows:
    cache: Tensor  # [blocks, 16, 2, kv heads, head_dim]
    block_tables: Tensor  # int32 [lines, W], in the order of the slots
    slots: Tensor  # int32 [R]
    seq_lens: Tensor  # int32 [R]


def paged_rows(
    lengths: list[int], kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, seed: int
) -> PagedRows:
    """Blocks and lines are given out in random order; table entries that no row owns name a poisoned block."""
    generator = torch.Generator().manual_seed(seed)
    width = max(-(-length // BLOCK) for length in lengths) + 2
    order = torch.randperm(len(lengths) * width + 1, generator=generator)
    slots = torch.randperm(len(lengths) + 2, generator=generator)[: len(lengths)]
    cache = torch.full((len(order), BLOCK, 2, kv_heads, head_dim), torch.nan)
    tables = torch.full((len(lengths) + 2, width), int(order[-1]), dtype=torch.int32)
    for row, length in enumerate(lengths):
        blocks = order[row * width : row * width + -(-length // BLOCK)]
        tables[slots[row], : len(blocks)] = blocks.int()
        for at, block in enumerate(blocks):
            size = min(BLOCK, length - at * BLOCK)
            cache[block, :size] = torch.randn(size, 2, kv_heads, head_dim, generator=generator)
    return PagedRows(
        cache=cache.to(device, dtype),
        block_tables=tables.to(device),
        slots=slots.int().to(device),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=device),
    )


def error(got: Tensor, expected: Tensor) -> float:
    """Relative to the size of what was expected; NaN where any number is."""
    return float((got.float() - expected).norm() / expected.norm().clamp_min(1e-6))
