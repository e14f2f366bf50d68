"""A big paged cache of random numbers, and block tables that point at random blocks of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.kernel_benches.models import Heads

BLOCK = 16


@dataclass(slots=True)
class Pool:
    """Hands out every block once, then the first again: what is read is no longer in the GPU's cache by then."""

    cache: Tensor  # [blocks, 16, 2, kv heads, head_dim]
    order: Tensor  # int32 [blocks]
    at: int = 0

    def tables(self, lengths: list[int]) -> Tensor:
        """int32 [rows, W]"""
        width = -(-max(lengths) // BLOCK)
        tables = torch.zeros(len(lengths), width, dtype=torch.int32)
        for row, length in enumerate(lengths):
            count = -(-length // BLOCK)
            if self.at + count > len(self.order):
                self.at = 0
            tables[row, :count] = self.order[self.at : self.at + count]
            self.at += count
        return tables.cuda()


def make_pool(heads: Heads, num_bytes: int) -> Pool:
    num_blocks = num_bytes // (BLOCK * heads.kv_bytes)
    shape = (num_blocks, BLOCK, 2, heads.num_kv_heads, heads.head_dim)
    cache = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
    for first in range(0, num_blocks, 4096):
        cache[first : first + 4096].normal_()
    return Pool(cache, torch.randperm(num_blocks).int())


def random_queries(heads: Heads, num_tokens: int) -> Tensor:
    """[tokens, q heads, head_dim], as they lie in the output of the fused projection."""
    width = heads.num_heads + 2 * heads.num_kv_heads
    return torch.randn(num_tokens, width, heads.head_dim, device="cuda").bfloat16()[:, : heads.num_heads]
