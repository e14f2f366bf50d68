"""The kernel of `slot_numbers`."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=["slots", "numbers"])
def install_numbers(table, slots, numbers, num_slots, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    column = tl.arange(0, BLOCK)
    there = column < WIDTH
    places = tl.where(column < 2, 2 * slot + column, column * num_slots + slot)
    tl.store(table + places, tl.load(numbers + row * WIDTH + column, mask=there, other=0), mask=there)
