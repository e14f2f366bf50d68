"""Attention of a step's tokens over the paged KV cache.

The twin gathers the blocks of many rows at once and calls torch's attention on the padded result. Rows come in groups
of like lengths, so that padding at most doubles the work and one long row does not widen all others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """R rows, padded to L queries and W blocks (T = W * block size keys)."""

    first: int  # the rows' tokens are the step's tokens first .. last - 1
    last: int
    num_rows: int
    num_queries: int
    places: Tensor | None  # int64: where these tokens stand in [R * L]; None: at 0, 1, 2, ...
    blocks: Tensor  # int64 [R * W]
    # [R, 1, query heads per kv head * L, T] in the cache's type (for L = 1 one query stands for all heads): 0 where a
    # query sees a key, else -inf
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """Built once a step, used by every layer."""

    slots: Tensor  # int64 [N]: block * block size + offset, where each token's key and value are stored
    groups: list[RowGroup]
    # As many blocks of the cache as the largest group gathers. Kept, because fresh memory of this size would be given
    # back to the system each time: its page faults cost four times the copy.
    workspace: Tensor

    def attend(self, q: Tensor, cache: Tensor) -> Tensor:
        """`engine.models.decoder.Attention`."""
        return paged_attention(q, cache, self)


def paged_attention(q: Tensor, cache: Tensor, inputs: AttentionInputs) -> Tensor:
    """q [N, q heads, head_dim] over cache [blocks, block size, 2, kv heads, head_dim] -> [N, q heads * head_dim]."""
    assert q.shape[1] % cache.shape[3] == 0
    assert q.shape[2] == cache.shape[4]
    assert inputs.workspace.shape[1:] == cache.shape[1:]
    return paged_attention_twin(q, cache, inputs)


def paged_attention_twin(q: Tensor, cache: Tensor, inputs: AttentionInputs) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    narrow = q.to(cache.dtype)
    for group in inputs.groups:
        kv = torch.index_select(cache, 0, group.blocks, out=inputs.workspace[: len(group.blocks)])
        _attend(narrow[group.first : group.last], kv, group, out[group.first : group.last])
    return out.flatten(1)


def _attend(q: Tensor, kv: Tensor, group: RowGroup, out: Tensor) -> None:
    """The group's queries [n, q heads, head_dim] over its gathered blocks [R * W, ...], into out [n, ...]."""
    kv_heads, head_dim = kv.shape[3:]
    if group.places is not None:
        size = group.num_rows * group.num_queries
        q = q.new_zeros(size, *q.shape[1:]).index_copy_(0, group.places, q)
    # Query heads that share a kv head stand as further queries: [R, kv heads, heads per kv head * L, head_dim].
    queries = q.view(group.num_rows, group.num_queries, kv_heads, -1, head_dim).permute(0, 2, 3, 1, 4)
    keys, values = kv.view(group.num_rows, -1, 2, kv_heads, head_dim).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(queries.flatten(2, 3), keys, values, attn_mask=group.mask)
    mixed = mixed.view(queries.shape).permute(0, 3, 1, 2, 4)
    if group.places is None:
        out.view(mixed.shape).copy_(mixed)
    else:
        torch.index_select(mixed.reshape(q.shape).to(out.dtype), 0, group.places, out=out)
