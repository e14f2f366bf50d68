"""The numbers that say how each slot samples, as vectors over the slots in one table, written when rows join.

table [W, N]   lines 0 and 1: N numbers of 64 bits (seeds) | every further line: N numbers of 32 bits
"""

from torch import Tensor

from engine.kernels import slot_numbers_triton as kernels

_BLOCK = 32


def install_numbers(table: Tensor, slots: Tensor, numbers: Tensor) -> None:
    """Write numbers[i] [W], the halves of the seed first, as those of slots[i]; all int32."""
    width, num_slots = table.shape
    assert table.is_contiguous() and numbers.is_contiguous()
    assert numbers.shape == (len(slots), width) and 2 <= width <= _BLOCK
    kernels.install_numbers[(len(slots),)](table, slots, numbers, num_slots, WIDTH=width, BLOCK=_BLOCK, num_warps=1)


def install_numbers_twin(table: Tensor, slots: Tensor, numbers: Tensor) -> None:
    slot = slots.long()
    table[:2].view(-1, 2)[slot] = numbers[:, :2]
    table[2:, slot] = numbers[:, 2:].T
