"""Norm of q and k heads, RoPE and the write to the KV cache, on the GPU in one launch.

qkv row    | q 0 | q 1 | ... | k 0 | k 1 | ... | v 0 | v 1 | ... |
program    |--- some heads, of any kind ---|
goes to    | q out [N, q heads, D]     | cache[slot], whose keys and values are one run |
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from engine.kernels.early import early
from engine.kernels.rotary import HeadLayout, HeadNorms
from engine.kernels.tuning import ROTARY


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, norms: HeadNorms | None, cache: Tensor, slots: Tensor, heads: HeadLayout
) -> Tensor:
    """As the wrapper says; a token whose slot is negative is rotated but not stored. qkv stays as it is."""
    assert qkv.stride(1) == 1
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    assert cache.is_contiguous()
    assert heads.head_dim % 2 == 0
    q = torch.empty(len(qkv), heads.num_heads, heads.head_dim, dtype=qkv.dtype, device=qkv.device)
    if not len(qkv):
        return q
    q_weight, k_weight, eps = (cos, cos, 0.0) if norms is None else norms
    num_heads = heads.num_heads + 2 * heads.num_kv_heads
    _rotate_and_store_kernel[(len(qkv), triton.cdiv(num_heads, ROTARY.size))](
        qkv,
        cos,
        sin,
        q_weight,
        k_weight,
        q,
        cache,
        slots,
        qkv.stride(0),
        eps,
        Q_HEADS=heads.num_heads,
        KV_HEADS=heads.num_kv_heads,
        DIM=heads.head_dim,
        HALF_BLOCK=triton.next_power_of_2(heads.head_dim // 2),
        HEADS=ROTARY.size,
        NORM=norms is not None,
        LARGEST=torch.finfo(cache.dtype).max,
        num_warps=ROTARY.warps,
        **early(qkv.device, num_rows=len(qkv)),
    )
    return q


@triton.jit
def _rotate_and_store_kernel(
    qkv,
    cos,
    sin,
    q_weight,
    k_weight,
    q_out,
    cache,
    slots,
    row_stride,
    eps,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
    NORM: tl.constexpr,
    LARGEST: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        cuda.gdc_wait()
        cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, HALF_BLOCK)
    HALF: tl.constexpr = DIM // 2
    real = (head < Q_HEADS + 2 * KV_HEADS)[:, None] & (column < HALF)[None, :]
    # A pair is (i, i + half).
    places = head[:, None] * DIM + column[None, :]
    first = tl.load(qkv + row * row_stride + places, mask=real, other=0.0).to(tl.float32)
    second = tl.load(qkv + row * row_stride + places + HALF, mask=real, other=0.0).to(tl.float32)
    # The sines' first half is stored negated, so the second is read.
    cosine = tl.load(cos + row * DIM + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + row * DIM + HALF + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    slot = tl.load(slots + row).to(tl.int64)
    is_value = (head >= Q_HEADS + KV_HEADS)[:, None]
    if NORM:
        is_q = (head < Q_HEADS)[:, None]
        factor = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / DIM + eps)[:, None]
        factor = tl.where(is_value, 1.0, factor)
        first *= factor * _head_weight(q_weight, k_weight, column, is_q, is_value, HALF)
        second *= factor * _head_weight(q_weight + HALF, k_weight + HALF, column, is_q, is_value, HALF)
    turned = tl.where(is_value, first, first * cosine - second * sine)
    second = tl.where(is_value, second, second * cosine + first * sine)
    to_q = real & (head < Q_HEADS)[:, None]
    q_places = q_out + row * (Q_HEADS * DIM) + places
    tl.store(q_places, turned.to(q_out.dtype.element_ty), mask=to_q)
    tl.store(q_places + HALF, second.to(q_out.dtype.element_ty), mask=to_q)
    to_cache = real & (tl.where(slot >= 0, head, -1) >= Q_HEADS)[:, None]
    cache_places = cache + slot * (2 * KV_HEADS * DIM) + places - Q_HEADS * DIM
    tl.store(cache_places, _finite(turned, LARGEST).to(cache.dtype.element_ty), mask=to_cache)
    tl.store(cache_places + HALF, _finite(second, LARGEST).to(cache.dtype.element_ty), mask=to_cache)


@triton.jit
def _head_weight(q_weight, k_weight, column, is_q, is_value, HALF: tl.constexpr):
    """One half of the norm's weights for each head: 1 for values, which have none."""
    of_q = tl.load(q_weight + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    of_k = tl.load(k_weight + column, mask=column < HALF, other=0.0).to(tl.float32)[None, :]
    return tl.where(is_value, 1.0, tl.where(is_q, of_q, of_k))


@triton.jit
def _finite(values, LARGEST: tl.constexpr):
    """A NaN must not outlive its row: others read the block later, behind a mask, and 0 * NaN is NaN."""
    values = tl.where(values == values, values, 0.0)
    return tl.minimum(tl.maximum(values, -LARGEST), LARGEST)
