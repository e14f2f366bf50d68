"""What happens to q, k and v between their projection and attention: norm of each head, RoPE, into the KV cache.

A layer's cache is [blocks, block size, 2, kv heads, head_dim], keys at 0 and values at 1, so that a token's keys and
values are one contiguous run, as they are in the projection's output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.rms_norm import rms_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """How a row of the fused projection divides: q heads, k heads, v heads."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


HeadNorms = tuple[Tensor, Tensor, float]  # weights [head_dim] of q and k, epsilon


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, norms: HeadNorms | None, cache: Tensor, slots: Tensor, heads: HeadLayout
) -> Tensor:
    """qkv [N, (q + 2 kv heads) * head_dim] -> rotated q [N, q heads, head_dim]; writes cache[slots] (token slots [N]).

    On a GPU a negative slot means that nothing is stored: rows that fill up a graph's size have one.

    cos, sin: [N, 1, head_dim], the first half of the sines negated.
    """
    assert qkv.shape[1] == (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    assert cache.shape[2:] == (2, heads.num_kv_heads, heads.head_dim)
    if qkv.is_cuda:
        from engine.kernels import rotary_triton  # here: only a GPU needs it, and importing it takes time

        return rotary_triton.rotate_and_store(qkv, cos, sin, norms, cache, slots, heads)
    return rotate_and_store_twin(qkv, cos, sin, norms, cache, slots, heads)


def rotate_and_store_twin(
    qkv: Tensor, cos: Tensor, sin: Tensor, norms: HeadNorms | None, cache: Tensor, slots: Tensor, heads: HeadLayout
) -> Tensor:
    split = heads.num_heads + heads.num_kv_heads
    rows = qkv.view(len(qkv), -1, heads.head_dim)
    qk, kv = rows[:, :split], rows[:, heads.num_heads :]
    if norms is not None:
        q_weight, k_weight, eps = norms
        qk[:, : heads.num_heads] = rms_norm(qk[:, : heads.num_heads], q_weight, eps)
        qk[:, heads.num_heads :] = rms_norm(qk[:, heads.num_heads :], k_weight, eps)
    # A pair is (i, i + half): with the halves swapped and half of the sines negated, one multiply-add rotates all.
    swapped = qk.view(*qk.shape[:2], 2, -1).flip(-2).flatten(-2)
    torch.addcmul(qk * cos, swapped, sin, out=qk)
    # A NaN must not outlive its row: others read the block later, behind a mask, and 0 * NaN is NaN.
    stored = kv.nan_to_num().to(cache.dtype).view(len(qkv), *cache.shape[2:])
    cache.flatten(0, 1).index_copy_(0, slots, stored)
    return rows[:, : heads.num_heads]
