"""Attention of a step's tokens over the paged KV cache.

The twin gathers the blocks of many rows at once and calls torch's attention on the padded result. Rows come in
groups of like lengths, so that padding at most doubles the work and one long row does not widen all others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """R rows, padded to L queries and W blocks (T = W * block size keys)."""

    num_rows: int
    num_queries: int
    tokens: Tensor | None  # int64: the step's tokens these rows are made of; None: all of them, in order
    places: Tensor | None  # int64: where they stand in [R * L]; None: at 0, 1, 2, ...
    blocks: Tensor  # int64 [R * W]
    # [R, 1, query heads per kv head * L, T] in q's type (for L = 1 one query stands for all heads): 0 where a query
    # sees a key, else -inf
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """Built once a step, used by every layer."""

    slots: Tensor  # int64 [N]: block * block size + offset, where each token's key and value are stored
    groups: list[RowGroup]


def paged_attention(q: Tensor, cache: Tensor, inputs: AttentionInputs) -> Tensor:
    """q [N, q heads, head_dim] over cache [blocks, block size, 2, kv heads, head_dim] -> [N, q heads * head_dim]."""
    assert q.shape[1] % cache.shape[3] == 0
    assert q.shape[2] == cache.shape[4]
    return paged_attention_twin(q, cache, inputs)


def paged_attention_twin(q: Tensor, cache: Tensor, inputs: AttentionInputs) -> Tensor:
    if len(inputs.groups) == 1 and inputs.groups[0].tokens is None:
        return _attend(q, cache, inputs.groups[0]).flatten(1)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for group in inputs.groups:
        assert group.tokens is not None
        out.index_copy_(0, group.tokens, _attend(q.index_select(0, group.tokens), cache, group))
    return out.flatten(1)


def _attend(q: Tensor, cache: Tensor, group: RowGroup) -> Tensor:
    """The group's queries [n, q heads, head_dim] -> the same shape."""
    kv_heads, head_dim = cache.shape[3:]
    if group.places is None:
        padded = q
    else:
        padded = q.new_zeros(group.num_rows * group.num_queries, *q.shape[1:]).index_copy_(0, group.places, q)
    # Query heads that share a kv head stand as further queries: [R, kv heads, L * heads per kv head, head_dim].
    queries = padded.view(group.num_rows, group.num_queries, kv_heads, -1, head_dim)
    share = queries.shape[3]
    queries = queries.permute(0, 2, 3, 1, 4).flatten(2, 3)
    kv = cache.index_select(0, group.blocks).view(group.num_rows, -1, 2, kv_heads, head_dim).permute(2, 0, 3, 1, 4)
    out = functional.scaled_dot_product_attention(queries, kv[0], kv[1], attn_mask=group.mask)
    out = out.view(*out.shape[:2], share, -1, head_dim).permute(0, 3, 1, 2, 4).reshape(padded.shape)
    return out if group.places is None else out.index_select(0, group.places)
