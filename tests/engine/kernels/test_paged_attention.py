"""Grouped attention over scattered blocks against attention row by row over plain keys and values."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.batch import Int64s
from engine.config import EnginePlan
from engine.execution import attention_groups
from engine.execution.attention_groups import AttentionGrouper, runs
from engine.execution.slot_tables import SlotTables
from engine.kernels.paged_attention import AttentionInputs, paged_attention
from engine.models.rope_scaling import RopeShape
from engine.models.shape import ModelShape

HEADS, KV_HEADS, DIM, BLOCK = 6, 2, 8, 4
PLAN = EnginePlan(
    device="cpu",
    dtype="float32",
    max_model_len=600,
    block_size=BLOCK,
    num_blocks=900,
    max_num_seqs=12,
    max_num_batched_tokens=4096,
    vocab_size=9,
)


def shape(window: int | None) -> ModelShape:
    return ModelShape(
        architecture="",
        vocab_size=9,
        hidden_size=1,
        intermediate_size=1,
        num_layers=1,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=DIM,
        rope=RopeShape(theta=1.0),
        norm_eps=1.0,
        tied_embeddings=True,
        qkv_bias=False,
        output_bias=False,
        qk_norm=False,
        sliding_window=window,
        max_position_embeddings=600,
        bos_token_id=None,
        eos_token_ids=(),
        dtype="float32",
    )


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("workspace_bytes", [2**22, 1])  # all rows of a kind at once, or each row alone
def test_rows_of_all_lengths(window: int | None, workspace_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention_groups.WORKSPACE_BYTES, "cpu", workspace_bytes)
    torch.manual_seed(0)
    starts: Int64s = np.array([0, 0, 3, 511, 1, 40, 7, 599, 0, 16], np.int64)
    lengths: Int64s = np.array([1, 70, 1, 80, 3, 1, 30, 1, 4, 64], np.int64)
    tables = SlotTables(PLAN, torch.device("cpu"))
    tables.blocks[:] = torch.randperm(900)[:150].int()  # every row over the same blocks
    cache = torch.randn(PLAN.num_blocks, BLOCK, 2, KV_HEADS, DIM)
    grouper = AttentionGrouper(tables, shape(window), torch.float32)

    order, parts = grouper.order(lengths, starts + lengths)
    starts, lengths = starts[order], lengths[order]
    first = np.cumsum(lengths) - lengths
    slots = np.arange(len(starts))
    q = torch.randn(int(lengths.sum()), HEADS, DIM)
    groups = [grouper.group(slots[part], starts[part], lengths[part], int(first[part.start])) for part in parts]
    found = paged_attention(q, cache, AttentionInputs(slots=torch.empty(0), groups=groups, workspace=grouper.workspace))

    keys, values = cache[tables.blocks[0].long()].flatten(0, 1).unbind(1)
    for row in range(len(starts)):
        own = slice(first[row], first[row] + lengths[row])
        wanted = plainly(q[own], keys, values, int(starts[row]), window)
        torch.testing.assert_close(found[own], wanted, atol=1e-5, rtol=1e-4)
    assert sorted(runs(first, lengths).tolist()) == list(range(len(q)))


def plainly(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int, window: int | None) -> torch.Tensor:
    """One row: its queries stand at start, start + 1, ..."""
    places = torch.arange(len(keys))
    own = torch.arange(start, start + len(q))[:, None]
    seen = (places <= own) & (places > own - (window or 10**6))
    k, v = (side.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for side in (keys, values))
    mixed = functional.scaled_dot_product_attention(q.transpose(0, 1), k, v, attn_mask=seen)
    return mixed.transpose(0, 1).flatten(1)
