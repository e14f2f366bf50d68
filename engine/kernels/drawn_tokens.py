"""Puts tokens that some rows drew once more in the place of what the step drew for all rows."""

import torch
from torch import Tensor

from engine.kernels import drawn_tokens_triton as kernels

_PIECE = 128


def replace_drawn(
    drawn: Tensor, history: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, tokens: Tensor, failed: Tensor
) -> None:
    """drawn[rows[i]] = (tokens[i], failed[i]), and history[slots[i], positions[i]] = tokens[i].

    drawn [S, 2] int32, failed bool, the others int32; negative slots are padding.
    """
    assert rows.shape == slots.shape == positions.shape == tokens.shape == failed.shape
    assert drawn.shape[1] == 2 and drawn.is_contiguous()
    kernels.replace_drawn[(-(-len(rows) // _PIECE),)](
        drawn, history, rows, slots, positions, tokens, failed.view(torch.int8), len(rows), history.stride(0),
        PIECE=_PIECE,
    )  # fmt: skip


def replace_drawn_twin(
    drawn: Tensor, history: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, tokens: Tensor, failed: Tensor
) -> None:
    live = slots >= 0
    drawn[rows[live].long()] = torch.stack([tokens[live], failed[live].int()], 1)
    history[slots[live].long(), positions[live].long()] = tokens[live]
