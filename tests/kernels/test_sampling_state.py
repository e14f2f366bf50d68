"""What joins a step and what is drawn twice is written to its own places only."""

import torch

from engine.kernels.drawn_tokens import replace_drawn, replace_drawn_twin
from engine.kernels.slot_numbers import install_numbers, install_numbers_twin


def test_joining_rows_write_their_own_numbers(device: torch.device) -> None:
    table = torch.full((7, 10), -5, dtype=torch.int32, device=device)
    wanted = table.clone()
    slots = torch.tensor([9, 0, 4], dtype=torch.int32, device=device)
    numbers = torch.arange(21, dtype=torch.int32, device=device).view(3, 7)
    install_numbers(table, slots, numbers)
    install_numbers_twin(wanted, slots, numbers)
    assert table.tolist() == wanted.tolist()
    assert table[:2].view(-1).view(torch.int64)[9] == 0 + (1 << 32)
    assert table[6, [9, 0, 4]].tolist() == [6, 13, 20]


def test_a_token_that_was_drawn_again_takes_the_place_of_the_first(device: torch.device) -> None:
    drawn = torch.full((200, 2), 7, dtype=torch.int32, device=device)
    history = torch.zeros(150, 9, dtype=torch.int32, device=device)
    rows = torch.randperm(200)[:140].int().to(device)
    slots = torch.randperm(150)[:140].int().to(device)
    slots[3] = -1
    positions = torch.randint(9, (140,)).int().to(device)
    tokens, failed = torch.arange(140, device=device).int(), torch.arange(140, device=device) % 5 == 0
    wanted = drawn.clone(), history.clone()
    replace_drawn(drawn, history, rows, slots, positions, tokens, failed)
    replace_drawn_twin(*wanted, rows, slots, positions, tokens, failed)
    assert drawn.tolist() == wanted[0].tolist()
    assert history.tolist() == wanted[1].tolist()
