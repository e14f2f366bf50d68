import numpy as np
import pytest
import torch

from engine.kernels.long_prefill import are_long, has_long_prefill, long_prefill, long_prefill_twin
from engine.kernels.tuning import LongPrefillConfig
from tests.kernels.paged_rows import error, paged_rows

SMALL = LongPrefillConfig(least_queries=4, least_pairs=40, multiple=32, largest_piece=64)


@pytest.mark.parametrize(("length", "before"), [(64, 0), (33, 0), (70, 1), (32, 64), (5, 100), (64, 32), (100, 231)])
@pytest.mark.parametrize(("heads", "head_dim"), [((4, 2), 64), ((3, 1), 80)])
def test_chunks_agree_with_the_twin(
    length: int, before: int, heads: tuple[int, int], head_dim: int, device: torch.device, half: torch.dtype
) -> None:
    rows = paged_rows([7, before + length], heads[1], head_dim, half, device, seed=length)
    q = torch.randn(length, heads[0], head_dim).to(device, half)
    out = torch.full_like(q, torch.nan)
    table = rows.block_tables[rows.slots[1]]
    long_prefill(q, rows.cache, table, before, out, config=SMALL)
    assert error(out, long_prefill_twin(q, rows.cache, table, before)) < 1e-2


def test_a_chunk_is_long_by_its_queries_and_by_what_they_see() -> None:
    lengths, seq_lens = np.array([3, 4, 4, 9], np.int32), np.array([1000, 12, 13, 9], np.int32)
    assert are_long(lengths, seq_lens, config=SMALL).tolist() == [False, True, True, True]
    assert are_long(lengths[1:2], lengths[1:2], config=SMALL).tolist() == [False]


def test_no_other_device_has_it() -> None:
    assert not has_long_prefill(torch.device("cpu"), torch.bfloat16, head_dim=128)
