import random

import pytest
import torch

from engine.kernels.decode_attention import (
    DecodeScratch,
    decode_attention,
    decode_attention_twin,
    decode_scratch,
    plan_decode,
)
from engine.kernels.tuning import DECODE, DecodeConfig, decode_config
from tests.kernels.paged_rows import PagedRows, error, paged_rows

SMALL = DecodeConfig(tile=16, warps=1, stages=2, programs=12, min_share=16)


def attend(
    q: torch.Tensor, rows: PagedRows, scratch: DecodeScratch, config: DecodeConfig = SMALL, window: int | None = None
) -> torch.Tensor:
    out = torch.full(q.shape, torch.nan, dtype=q.dtype, device=q.device)
    plan_decode(rows.seq_lens, rows.slots, scratch, config=config, window=window)
    decode_attention(q, rows.cache, rows.block_tables, out, scratch, config=config)
    return out


def scratch_for(q: torch.Tensor, kv_heads: int, programs: int = SMALL.programs) -> DecodeScratch:
    scratch = decode_scratch(
        max_rows=len(q) + 3,
        max_programs=programs,
        num_heads=q.shape[1],
        num_kv_heads=kv_heads,
        head_dim=q.shape[2],
        device=q.device,
    )
    scratch.parts.fill_(torch.nan)
    scratch.weights.fill_(torch.nan)
    scratch.items.fill_(12345)
    return scratch


@pytest.mark.parametrize("seed", range(14))
def test_random_rows_agree_with_the_twin(seed: int, device: torch.device, half: torch.dtype) -> None:
    draw = random.Random(seed)
    head_dim = [64, 80, 96, 128][seed % 4]
    kv_heads, shared = draw.randint(1, 3), seed % 8 + 1
    lengths = [draw.choice([0, 1, 15, 16, 17, draw.randint(1, 150)]) for _ in range(draw.randint(1, 5))]
    window = draw.choice([None, None, 1, 16, 40])
    dtype = half if seed % 3 else torch.float32
    rows = paged_rows(lengths, kv_heads, head_dim, dtype, device, seed)
    q = torch.randn(len(lengths), kv_heads * shared, head_dim).to(device, dtype)

    out = attend(q, rows, scratch_for(q, kv_heads), window=window)

    expected = decode_attention_twin(q, rows.cache, rows.block_tables, rows.seq_lens, slots=rows.slots, window=window)
    assert error(out, expected) < (1e-2 if dtype == half else 1e-4)
    assert not out[rows.seq_lens == 0].any()


def test_one_long_row_is_shared_by_many_programs(device: torch.device) -> None:
    """More parts than one turn of the adding up takes; and the arrival counters are left as they were found."""
    rows = paged_rows([390, 3], 1, 64, torch.float32, device, seed=0)
    q = torch.randn(2, 2, 64, device=device)
    scratch = scratch_for(q, 1, programs=24)
    config = DecodeConfig(tile=16, warps=1, stages=2, programs=24, min_share=16)
    for _ in range(2):
        out = attend(q, rows, scratch, config)
        expected = decode_attention_twin(q, rows.cache, rows.block_tables, rows.seq_lens, slots=rows.slots)
        assert error(out, expected) < 1e-4
        assert int(scratch.items[0, 5]) > 8 or int(scratch.items[scratch.items[:, 0] == 0][0, 5]) > 8
        assert not scratch.arrivals.any()


def test_a_plan_covers_each_rows_keys_once(device: torch.device) -> None:
    lengths = [0, 1, 100, 16, 333, 17]
    seq_lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    scratch = scratch_for(torch.empty(6, 1, 64, device=device), 1)
    plan_decode(seq_lens, None, scratch, config=SMALL)
    items = [item for item in scratch.items.tolist() if item[0] >= 0 and item[0] != 12345]
    for row, length in enumerate(lengths):
        parts = [item for item in items if item[0] == row]
        assert parts[0][2] == 0 and parts[-1][3] == length
        assert [part[2] for part in parts[1:]] == [part[3] for part in parts[:-1]]
        assert all(part[1] == row and part[5] == len(parts) for part in parts)
        assert all(part[2] < part[3] for part in parts) or length == 0
    assert (scratch.items[len(items) : 6 + SMALL.programs, 0] == -1).all()


def test_queries_may_be_a_view_of_the_projection(device: torch.device) -> None:
    rows = paged_rows([20, 50], 2, 64, torch.float32, device, seed=1)
    projection = torch.randn(2, (4 + 2 + 2) * 64, device=device)
    q = projection.view(2, 8, 64)[:, :4]
    out = torch.full((2, 4, 64), torch.nan, device=device)
    scratch = scratch_for(q, 2)
    plan_decode(rows.seq_lens, rows.slots, scratch, config=SMALL)
    decode_attention(q, rows.cache, rows.block_tables, out, scratch, config=SMALL)
    expected = decode_attention_twin(q, rows.cache, rows.block_tables, rows.seq_lens, slots=rows.slots)
    assert error(out, expected) < 1e-4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_a_row_that_is_not_a_number_stays_alone(device: torch.device) -> None:
    rows = paged_rows([20, 50], 1, 64, torch.float32, device, seed=2)
    q = torch.randn(2, 2, 64, device=device)
    q[0] = torch.nan
    out = attend(q, rows, scratch_for(q, 1))
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_every_number_of_rows_has_a_config() -> None:
    for num_rows in (1, 8, 9, 512, 4096):
        config = decode_config(num_rows=num_rows)
        assert config.min_share % config.tile == 0
    assert [most for most, _ in DECODE] == sorted(most for most, _ in DECODE)
