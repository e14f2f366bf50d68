"""What a GPU keeps of its rows between steps, read and written by the steps themselves: tokens so far and block tables.

A slot below 0 is padding everywhere: nothing is read or written for it.
"""

import torch
from torch import Tensor

from engine.kernels import step_state_triton as kernels

_PIECE = 1024


def install_tokens(
    history: Tensor, slots: Tensor, starts: Tensor, lengths: Tensor, tokens: Tensor, longest: int
) -> None:
    """history[slots[n], : lengths[n]] = tokens[starts[n] : starts[n] + lengths[n]], int32; longest = max(lengths)."""
    assert len(slots) == len(starts) == len(lengths)
    grid = (len(slots), -(-longest // _PIECE))
    kernels.install_tokens[grid](history, slots, starts, lengths, tokens, history.stride(0), PIECE=_PIECE)


def install_tokens_twin(history: Tensor, slots: Tensor, starts: Tensor, lengths: Tensor, tokens: Tensor) -> None:
    for slot, start, length in zip(slots.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        history[slot, :length] = tokens[start : start + length]


def give_blocks(tables: Tensor, slots: Tensor, columns: Tensor, blocks: Tensor) -> None:
    """tables[slots[n], columns[n]] = blocks[n], all int32."""
    assert len(slots) == len(columns) == len(blocks)
    grid = (-(-len(slots) // _PIECE),)
    kernels.give_blocks[grid](tables, slots, columns, blocks, len(slots), tables.stride(0), PIECE=_PIECE)


def give_blocks_twin(tables: Tensor, slots: Tensor, columns: Tensor, blocks: Tensor) -> None:
    tables[slots.long(), columns.long()] = blocks


def locate(
    slots: Tensor, positions: Tensor, history: Tensor, tables: Tensor, block_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each input token (slot and position, int32 [N]): its id, where its KV goes (block * block size + offset), how
    many keys it sees, and the position after it; for padding 0, -1, 0, 0. All int32."""
    assert slots.shape == positions.shape
    out = torch.empty(4, len(slots), dtype=torch.int32, device=slots.device)
    grid = (-(-len(slots) // 128),)
    kernels.locate[grid](
        slots, positions, history, tables, out, len(slots), history.stride(0), tables.stride(0), block_size, PIECE=128
    )
    return out[0], out[1], out[2], out[3]


def locate_twin(
    slots: Tensor, positions: Tensor, history: Tensor, tables: Tensor, block_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    live = slots >= 0
    slot, position = slots.clamp_min(0).long(), positions.long()
    places = tables[slot, position // block_size] * block_size + positions % block_size
    after = torch.where(live, positions + 1, 0)
    return torch.where(live, history[slot, position], 0), torch.where(live, places, -1), after, after.clone()


def remember(history: Tensor, slots: Tensor, positions: Tensor, tokens: Tensor) -> None:
    """history[slots[s], positions[s]] = tokens[s], all int32: the drawn tokens are the next step's inputs."""
    assert slots.shape == positions.shape == tokens.shape
    grid = (-(-len(slots) // 128),)
    kernels.remember[grid](history, slots, positions, tokens, len(slots), history.stride(0), PIECE=128)


def remember_twin(history: Tensor, slots: Tensor, positions: Tensor, tokens: Tensor) -> None:
    live = slots >= 0
    history[slots[live].long(), positions[live].long()] = tokens[live]
