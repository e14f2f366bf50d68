"""Attention of decode rows, one query each, over the paged KV cache.

A small kernel runs once a step and cuts all rows into items: equal shares of the keys that are there, never two rows
in one item. The attention kernel of every layer then works on (item, kv head), with the query heads that share the kv
head as one matrix. So no length, however odd beside the others, leaves the GPU waiting for one program, and the grid
is the same for all lengths, as a CUDA graph needs it: at most `programs / kv heads` + rows items, the spare ones leave
at once. A row in one item is finished there. Else the items leave their parts in scratch, and the last one to arrive
adds them up, in the order of the items: which program that is varies, the result does not.
"""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from engine.kernels.decode_attention_triton import ITEM_SIZE, decode, plan
from engine.kernels.early import early
from engine.kernels.tuning import DecodeConfig

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeScratch:
    """Memory that all layers and all steps share, for at most as many rows and items as it was made for."""

    items: Tensor  # int32 [items, 8]
    parts: Tensor  # float32 [items, q heads, head_dim]: attention over the item's keys alone
    weights: Tensor  # float32 [items, q heads]: log2 of the sum of their exponentials
    arrivals: Tensor  # int32 [rows, kv heads]: zero between launches


def decode_scratch(
    *, max_rows: int, max_programs: int, num_heads: int, num_kv_heads: int, head_dim: int, device: torch.device
) -> DecodeScratch:
    max_items = max_rows + -(-max_programs // num_kv_heads)
    return DecodeScratch(
        items=torch.empty(max_items, ITEM_SIZE.value, dtype=torch.int32, device=device),
        parts=torch.empty(max_items, num_heads, head_dim, dtype=torch.float32, device=device),
        weights=torch.empty(max_items, num_heads, dtype=torch.float32, device=device),
        arrivals=torch.zeros(max_rows, num_kv_heads, dtype=torch.int32, device=device),
    )


def plan_decode(
    seq_lens: Tensor, slots: Tensor | None, scratch: DecodeScratch, *, config: DecodeConfig, window: int | None = None
) -> None:
    """Cut the rows into items; once a step, before the first layer (once for each window, if layers differ in it).

    seq_lens int32 [B]: keys of each row, its own token included; 0: padding. slots int32 [B]: each row's line in the
    block tables; None: they stand in the order of the rows.
    """
    assert seq_lens.dtype == torch.int32 and seq_lens.is_contiguous()
    assert slots is None or (slots.dtype == torch.int32 and slots.shape == seq_lens.shape and slots.is_contiguous())
    assert len(seq_lens) <= len(scratch.arrivals)
    assert config.min_share % config.tile == 0
    max_shares, num_items = _item_counts(len(seq_lens), scratch, config)
    plan[(len(seq_lens) + 1,)](
        seq_lens,
        slots,
        scratch.items,
        len(seq_lens),
        num_items,
        max_shares,
        config.min_share,
        config.tile,
        WINDOW=window,
        ROWS=triton.next_power_of_2(len(seq_lens)),
        num_warps=1 if len(seq_lens) <= 128 else 4,
    )


def decode_attention(
    q: Tensor,
    cache: Tensor,
    block_tables: Tensor,
    out: Tensor,
    scratch: DecodeScratch,
    *,
    config: DecodeConfig,
    scale: float | None = None,
) -> None:
    """q [B, q heads, head_dim] over the keys that `plan_decode` was given, for the same rows and config, into out.

    cache [blocks, block size, 2, kv heads, head_dim], block_tables int32 [lines, W]; a padding row's out becomes 0.
    """
    num_rows, num_heads, head_dim = q.shape
    block_size, _, num_kv_heads, _ = cache.shape[1:]
    assert cache.is_contiguous() and cache.shape[2] == 2 and cache.shape[4] == head_dim and cache.dtype == q.dtype
    assert num_heads % num_kv_heads == 0 and q.stride()[1:] == (head_dim, 1)
    assert out.shape == q.shape and out.is_contiguous()
    assert block_tables.dtype == torch.int32 and block_tables.stride(1) == 1
    assert scratch.parts.shape[1:] == q.shape[1:] and num_rows <= len(scratch.arrivals)
    _, num_items = _item_counts(num_rows, scratch, config)
    decode[(num_kv_heads, num_items)](
        q,
        cache,
        block_tables,
        out,
        scratch.items,
        scratch.parts,
        scratch.weights,
        scratch.arrivals,
        (scale or head_dim**-0.5) * LOG2_E,
        block_tables.stride(0),
        Q_STRIDE=q.stride(0),
        BLOCK=block_size,
        KV_HEADS=num_kv_heads,
        SHARED=num_heads // num_kv_heads,
        SHARED_PAD=triton.next_power_of_2(num_heads // num_kv_heads),
        DIM=head_dim,
        DIM_PAD=triton.next_power_of_2(head_dim),
        TILE=config.tile,
        PARTS=config.parts,
        num_warps=config.warps,
        num_stages=config.stages,
        **early(q.device, num_rows=num_rows),
    )


def decode_attention_twin(
    q: Tensor,
    cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    slots: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same in plain torch and float32, in one step."""
    tables = block_tables if slots is None else block_tables[slots.long()]
    kv = cache[tables.long()].flatten(1, 2).float()  # [B, keys, 2, kv heads, head_dim]
    keys = torch.arange(kv.shape[1], device=q.device)
    seen = keys < seq_lens[:, None]
    if window is not None:
        seen &= keys >= seq_lens[:, None] - window
    kv = kv.masked_fill(~seen[:, :, None, None, None], 0.0)
    queries = q.float().view(len(q), cache.shape[3], -1, q.shape[2])
    scores = torch.einsum("bhgd,bthd->bhgt", queries, kv[:, :, 0]) * (scale or q.shape[2] ** -0.5)
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1).nan_to_num()
    return torch.einsum("bhgt,bthd->bhgd", weights, kv[:, :, 1]).flatten(1, 2)


def _item_counts(num_rows: int, scratch: DecodeScratch, config: DecodeConfig) -> tuple[int, int]:
    """Into how many shares all keys are cut, and how many items there may then be: a row's last one may be short."""
    max_shares = -(-config.programs // scratch.arrivals.shape[1])
    assert max_shares + num_rows <= len(scratch.items)
    return max_shares, max_shares + num_rows
