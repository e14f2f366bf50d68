"""The sampling kernels draw what the twin draws, token for token, for rows of every kind beside each other."""

import pytest
import torch
from torch import Tensor

from engine.kernels import argmax_triton, sampling_triton
from engine.kernels.sampling import SlotParameters, sample_twin
from engine.kernels.tuning import PieceConfig

# numpy, which the interpreter computes with, warns of infinities that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small vocabulary has more runs than the filters look at first."""
    monkeypatch.setattr(sampling_triton, "FILTER_RUNS", PieceConfig(size=8, warps=4))
    monkeypatch.setattr(sampling_triton, "SEARCH_RUNS", PieceConfig(size=16, warps=4))


def parameters(
    device: torch.device,
    rows: list[tuple[float, int, float, float]],
) -> SlotParameters:
    """Of temperature, top_k, top_p and min_p of each slot; slot i's seed is 7 i."""
    temperature, top_k, top_p, min_p = (torch.tensor(column, device=device) for column in zip(*rows, strict=True))
    return SlotParameters(
        temperature=temperature.float(),
        top_k=top_k.int(),
        top_p=top_p.float(),
        min_p=min_p.float(),
        seeds=torch.arange(len(rows), device=device) * 7,
    )


KINDS = [
    (0.0, 0, 1.0, 0.0),
    (1.0, 0, 1.0, 0.0),
    (0.6, 0, 1.0, 0.0),
    (0.8, 50, 0.95, 0.0),
    (1.0, 1, 1.0, 0.0),
    (2.0, 300, 1.0, 0.0),
    (1.5, 300, 0.9, 0.01),
    (1.0, 0, 0.9, 0.0),
    (1.0, 0, 0.3, 0.2),
    (0.7, 0, 1.0, 0.05),
    (1.0, 0, 0.99999, 0.0),
    (0.0, 20, 0.5, 0.5),
]


def draw_both(logits: Tensor, kinds: list[tuple[float, int, float, float]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    slots = torch.randperm(len(kinds)).int().to(logits.device)
    positions = torch.randint(5000, (len(kinds),)).to(logits.device)
    of_slots = parameters(logits.device, kinds)
    return *sampling_triton.sample(logits, slots, positions, of_slots), *sample_twin(logits, slots, positions, of_slots)


@pytest.mark.parametrize(
    ("vocab", "spread", "dtype"),
    [
        (50, 4.0, torch.float32),
        (1500, 4.0, torch.float32),
        (500, 0.1, torch.float32),
        (500, 0.1, torch.bfloat16),
        (1500, 4.0, torch.bfloat16),
        (500, 4.0, torch.float16),
    ],
    ids=str,
)
def test_rows_of_every_kind_draw_what_the_twin_draws(
    device: torch.device, vocab: int, spread: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(vocab)
    logits = (torch.randn(len(KINDS), vocab) * spread).to(device, dtype)
    tokens, failed, wanted, _ = draw_both(logits, KINDS)
    assert tokens.tolist() == wanted.tolist()
    assert not failed.any()


def test_equal_logits_share_their_fate(device: torch.device) -> None:
    """Thousands of equals at the threshold: all of them stay in the race, as the twin has it."""
    torch.manual_seed(1)
    logits = torch.randint(-2, 3, (12, 1500)).float().to(device)
    tokens, _, wanted, _ = draw_both(logits, [(1.0, 40, 0.9, 0.0), (1.0, 0, 0.6, 0.0), (1.0, 0, 1.0, 0.3)] * 4)
    assert tokens.tolist() == wanted.tolist()


def test_banned_tokens_are_never_drawn(device: torch.device) -> None:
    torch.manual_seed(2)
    logits = torch.randn(len(KINDS), 1200).to(device)
    logits[:, 3:] = -torch.inf
    tokens, failed, wanted, _ = draw_both(logits, KINDS)
    assert tokens.tolist() == wanted.tolist()
    assert (tokens < 3).all()
    assert not failed.any()


def test_a_row_that_cannot_be_drawn_fails_alone(device: torch.device) -> None:
    torch.manual_seed(3)
    logits = torch.randn(len(KINDS), 500).to(device)
    logits[1, 7], logits[4, 499], logits[6] = torch.nan, torch.inf, -torch.inf
    tokens, failed, wanted, wanted_failed = draw_both(logits, KINDS)
    assert failed.nonzero().flatten().tolist() == [1, 4, 6]
    assert failed.tolist() == wanted_failed.tolist()
    assert tokens.tolist() == wanted.tolist()


def test_a_row_draws_the_same_whatever_stands_beside_it(device: torch.device) -> None:
    torch.manual_seed(4)
    logits = torch.randn(len(KINDS), 1300).to(device)
    of_slots, slots = parameters(device, KINDS), torch.arange(len(KINDS), dtype=torch.int32, device=device)
    positions = torch.arange(len(KINDS), device=device)
    together, _ = sampling_triton.sample(logits, slots, positions, of_slots)
    alone = [
        sampling_triton.sample(logits[i : i + 1], slots[i : i + 1], positions[i : i + 1], of_slots)[0].item()
        for i in (1, 3, 7)
    ]
    assert alone == together[[1, 3, 7]].tolist()


def test_rows_without_a_slot_harm_nobody(device: torch.device) -> None:
    torch.manual_seed(5)
    logits = torch.randn(4, 700).to(device)
    of_slots, positions = parameters(device, KINDS), torch.zeros(4, dtype=torch.int64, device=device)
    slots = torch.tensor([3, -1, 1, -1], dtype=torch.int32, device=device)
    logits[1], logits[3] = torch.nan, torch.inf
    tokens, failed = sampling_triton.sample(logits, slots, positions, of_slots)
    wanted, _ = sample_twin(logits[::2], slots[::2], positions[::2], of_slots)
    assert tokens[::2].tolist() == wanted.tolist()
    assert not failed[::2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [70, 5000])
def test_argmax_takes_the_lowest_of_equals(device: torch.device, dtype: torch.dtype, vocab: int) -> None:
    torch.manual_seed(6)
    logits = torch.randint(-20, 20, (5, vocab)).to(device, dtype)
    tokens, failed = argmax_triton.argmax(logits)
    lowest = [int((row == row.max()).nonzero()[0]) for row in logits]
    assert tokens.tolist() == lowest
    assert not failed.any()


def test_argmax_of_rows_that_lie_apart_and_rows_that_fail(device: torch.device) -> None:
    wide = torch.randn(4, 3000).to(device)
    logits = wide[:, :2000]
    logits[0, 1999], logits[1, 0], logits[2] = torch.nan, torch.inf, -torch.inf
    tokens, failed = argmax_triton.argmax(logits)
    assert failed.tolist() == [True, True, True, False]
    assert tokens[3] == logits[3].argmax()
    assert tokens[:3].tolist() == [0, 0, 0]
