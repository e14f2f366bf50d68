"""Masks, biases and bad words change what the twins change, and nothing else."""

import pytest
import torch
from torch import Tensor

from engine.kernels import logit_rules
from tests.helpers.rule_tables import HISTORY, SLOTS, some_tables

# numpy, which the interpreter computes with, warns of NaN that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def ints(*numbers: int, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [333, 4999])
def test_rules_do_what_their_twins_do(device: torch.device, vocab: int, dtype: torch.dtype) -> None:
    torch.manual_seed(vocab)
    tables = some_tables(vocab, device)
    logits = torch.randn(9, vocab).to(device, dtype)
    logits[3, 5], logits[3, 6], logits[3, 7] = torch.nan, torch.inf, -torch.inf
    history = torch.randint(2, (SLOTS, HISTORY), dtype=torch.int32).to(device)
    rows, slots = ints(8, 3, 0, 2, 7, 1, device=device), ints(3, 1, -1, 0, 4, 2, device=device)
    positions = ints(7, 12, 0, 6, 9, 20, device=device)
    poison = torch.full((len(rows), vocab), 123.0, device=device)
    found, wanted = poison.clone(), poison.clone()
    logit_rules.copy_masked(logits, rows, slots, positions, tables, found)
    logit_rules.copy_masked_twin(logits, rows, slots, positions, tables, wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert found[2].eq(123.0).all()
    assert found[1, 5:7].isnan().all()
    logit_rules.add_biases(slots, tables, found)
    logit_rules.add_biases_twin(slots, tables, wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    before = found.clone()
    logit_rules.ban_bad_words(slots, positions, history, tables, found)
    logit_rules.ban_bad_words_twin(slots, positions, history, tables, wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert (found != before).sum() > 2  # something was banned


def test_a_ban_does_not_hide_what_fails_a_row(device: torch.device) -> None:
    tables = some_tables(333, device)
    tables.limited.fill_(1)
    tables.allowed.fill_(0)
    tables.num_words.fill_(1)
    tables.word_counts.fill_(0)
    tables.word_lasts.fill_(9)
    history = torch.zeros(SLOTS, HISTORY, dtype=torch.int32, device=device)
    logits = torch.zeros(1, 333, device=device)
    logits[0, 9] = torch.nan
    copies, zero = torch.zeros(1, 333, device=device), ints(0, device=device)
    logit_rules.copy_masked(logits, zero, zero, zero + 8, tables, copies)
    logit_rules.ban_bad_words(zero, zero + 8, history, tables, copies)
    assert copies[0].isnan().nonzero().flatten().tolist() == [9]
