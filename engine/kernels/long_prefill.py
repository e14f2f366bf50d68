"""Attention of one long prompt chunk by cuDNN, which runs big products at a rate that Triton does not reach.

cuDNN takes no paged cache and no queries that begin behind the keys, so the row's keys and values are gathered first,
a chunk behind a prefix is several calls (pieces of the prefix; causal within the rest), and their results are merged by
their sums of exponentials. cuDNN builds a plan for each new shape, so there are few: the causal call begins before the
chunk and ends behind it, at round multiples, and what it computes there is dropped; pieces have few lengths too.
"""

import numpy as np
import numpy.typing as npt
import torch
import triton
from torch import Tensor

from engine.kernels.long_prefill_triton import gather, merge
from engine.kernels.tuning import LongPrefillConfig

_PIECE = 4096  # elements that one program copies


def has_long_prefill(device: torch.device, dtype: torch.dtype, *, head_dim: int) -> bool:
    """Where it was measured to pay and cuDNN has it; windows are not for it."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device)[0] == 9
        and dtype in (torch.float16, torch.bfloat16)
        and head_dim <= 128
        and head_dim % 8 == 0
    )


def are_long(
    lengths: npt.NDArray[np.int32], seq_lens: npt.NDArray[np.int32], *, config: LongPrefillConfig
) -> npt.NDArray[np.bool_]:
    """Which chunks of `lengths` tokens, `seq_lens` keys at their end, `long_prefill` is for."""
    wide = lengths.astype(np.int64)
    pairs = wide * (seq_lens - wide) + wide * (wide + 1) // 2
    long: npt.NDArray[np.bool_] = (lengths >= config.least_queries) & (pairs >= config.least_pairs)
    return long


def long_prefill(
    q: Tensor,
    cache: Tensor,
    table: Tensor,
    before: int,
    out: Tensor,
    *,
    config: LongPrefillConfig,
    scale: float | None = None,
) -> None:
    """q [L, q heads, head_dim] over the row's first before + L keys, its own among them, into out of q's shape.

    cache [blocks, block size, 2, kv heads, head_dim]; table int32 [W]: the row's line of the block tables. Not for
    CUDA graphs: `before` and L are numbers of the CPU.
    """
    assert cache.is_contiguous() and cache.shape[4] == q.shape[2] and cache.dtype == q.dtype
    assert out.shape == q.shape and out.is_contiguous() and q.stride()[1:] == (q.shape[2], 1)
    assert table.dtype == torch.int32 and table.stride(0) == 1
    assert config.multiple % cache.shape[1] == 0
    length, multiple = len(q), config.multiple
    start = before // multiple * multiple
    first = before - start
    size = -(-(first + length) // multiple) * multiple
    keys, values = _gathered(cache, table, before + length, start + size)
    queries = _padded(q, first, size)
    merged, logs = _attend(queries, keys[start:], values[start:], causal=True, scale=scale)
    for piece in _pieces(start, config):
        _merge_into(merged, logs, *_attend(queries, keys[piece], values[piece], causal=False, scale=scale))
    out.copy_(merged[first : first + length])


def long_prefill_twin(q: Tensor, cache: Tensor, table: Tensor, before: int, *, scale: float | None = None) -> Tensor:
    """The same in plain torch and float32."""
    length = before + len(q)
    kv = cache[table[: -(-length // cache.shape[1])].long()].flatten(0, 1)[:length].float()
    keys, values = kv.repeat_interleave(q.shape[1] // cache.shape[3], 2).unbind(1)
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * (scale or q.shape[2] ** -0.5)
    seen = torch.ones(len(q), length, dtype=torch.bool, device=q.device).tril(before)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)


def _pieces(end: int, config: LongPrefillConfig) -> list[slice]:
    """The keys before `end`, the largest pieces first."""
    pieces, at, size = [], 0, config.largest_piece
    while at < end:
        if at + size > end:
            size //= 2
        else:
            pieces.append(slice(at, at + size))
            at += size
    return pieces


def _gathered(cache: Tensor, table: Tensor, length: int, size: int) -> tuple[Tensor, Tensor]:
    """The row's keys and values [size, kv heads, head_dim], those beyond its length 0."""
    block_size = cache.shape[1]
    kv = torch.empty(size, *cache.shape[2:], dtype=cache.dtype, device=cache.device)
    elements = cache[0].numel()
    gather[(size // block_size, triton.cdiv(elements, _PIECE))](
        cache, table, kv, length, TOKEN=elements // block_size, BLOCK=block_size, PIECE=_PIECE, num_warps=4
    )
    return kv[:, 0], kv[:, 1]


def _padded(q: Tensor, first: int, size: int) -> Tensor:
    if first == 0 and size == len(q):
        return q
    padded = torch.empty(size, *q.shape[1:], dtype=q.dtype, device=q.device)
    padded[:first].zero_()
    padded[first : first + len(q)] = q
    padded[first + len(q) :].zero_()
    return padded


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> tuple[Tensor, Tensor]:
    """All [tokens, heads, head_dim] -> the same, and float32 [tokens, heads] the log of the sum of exponentials."""
    rows = [part.transpose(0, 1)[None] for part in (q, k, v)]
    if q.is_cuda:
        of_cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention.default
        out, logs, *_ = of_cudnn(*rows, None, True, 0.0, causal, scale=scale)
        return out[0].transpose(0, 1), logs[0, :, :, 0].transpose(0, 1)
    return _attend_twin(q, k, v, causal=causal, scale=scale)


def _attend_twin(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> tuple[Tensor, Tensor]:
    keys, values = (part.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * (scale or q.shape[2] ** -0.5)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    return mixed.to(q.dtype), scores.logsumexp(-1).transpose(0, 1)


def _merge_into(merged: Tensor, logs: Tensor, part: Tensor, part_logs: Tensor) -> None:
    """Attention over some keys, and over some more, into the places of the first; both with their logs."""
    assert merged.stride() == part.stride() and merged.stride(2) == 1
    assert logs.stride() == part_logs.stride()
    num_tokens, num_heads, head_dim = merged.shape
    merge[(num_tokens,)](
        merged,
        part,
        logs,
        part_logs,
        merged.stride(0),
        merged.stride(1),
        logs.stride(0),
        logs.stride(1),
        HEADS=num_heads,
        HEADS_PAD=triton.next_power_of_2(num_heads),
        DIM=head_dim,
        DIM_PAD=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
