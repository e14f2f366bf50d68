"""Penalties change each token of a history once, however often it stands there, and leave their counts as zero."""

import pytest
import torch

from engine.kernels import penalties_triton
from engine.kernels.penalties import penalize
from engine.kernels.penalties_triton import PenaltyTables
from engine.kernels.tuning import PieceConfig


@pytest.mark.parametrize(("vocab", "width"), [(50, 40), (2001, 700)])
def test_penalties_are_those_of_the_twin(
    device: torch.device, vocab: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties_triton, "PENALTIES", PieceConfig(size=128, warps=4))
    monkeypatch.setattr(penalties_triton, "PENALTY_PARTS", 2)
    torch.manual_seed(vocab)
    tables = PenaltyTables(
        prompt_lens=torch.tensor([3, 9, 30, 1, 20], dtype=torch.int32, device=device),
        repetition=torch.tensor([1.2, 1.0, 0.7, 1.0, 1.5], device=device),
        presence=torch.tensor([0.0, 0.5, -1.5, 0.0, 0.3], device=device),
        frequency=torch.tensor([0.0, 0.7, 0.1, 0.0, -0.4], device=device),
    )
    history = torch.randint(vocab // 2, (5, width), dtype=torch.int32).to(device)
    slots = torch.tensor([4, 0, -1, 3, 1, 2], dtype=torch.int32, device=device)
    positions = torch.tensor([width, 3, 7, 20, 9, width - 5], dtype=torch.int32, device=device)
    logits = torch.randn(6, vocab).to(device) * 5
    logits[4, 3] = -torch.inf
    counts = torch.zeros(6, vocab, dtype=torch.int32, device=device)
    found, slot = logits.clone(), slots.clamp_min(0).long()
    penalties_triton.penalize(slots, positions, history, tables, counts, found)
    wanted = penalize(
        logits.clone(),
        history[slot],
        positions,
        tables.prompt_lens[slot],
        repetition=tables.repetition[slot],
        presence=tables.presence[slot],
        frequency=tables.frequency[slot],
    )
    wanted[2] = logits[2]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not counts.any()
