"""The kernels of `step_state`: small, one launch each, so that a step costs the CPU a fixed number of launches."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=["slots", "starts", "lengths", "tokens"])
def install_tokens(history, slots, starts, lengths, tokens, width, PIECE: tl.constexpr):
    row = tl.program_id(0)
    place = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    there = place < tl.load(lengths + row)
    values = tl.load(tokens + tl.load(starts + row) + place, mask=there)
    tl.store(history + tl.load(slots + row).to(tl.int64) * width + place, values, mask=there)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["slots", "columns", "blocks"])
def give_blocks(tables, slots, columns, blocks, count, width, PIECE: tl.constexpr):
    place = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    slot = tl.load(slots + place, mask=place < count, other=-1).to(tl.int64)
    column = tl.load(columns + place, mask=place < count, other=0)
    tl.store(tables + slot * width + column, tl.load(blocks + place, mask=place < count), mask=slot >= 0)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["slots", "positions"])
def locate(slots, positions, history, tables, out, count, history_width, table_width, block_size, PIECE: tl.constexpr):
    place = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    there = place < count
    slot = tl.load(slots + place, mask=there, other=-1).to(tl.int64)
    live = slot >= 0
    position = tl.load(positions + place, mask=live, other=0)
    token = tl.load(history + slot * history_width + position, mask=live, other=0)
    block = tl.load(tables + slot * table_width + position // block_size, mask=live, other=0)
    after = tl.where(live, position + 1, 0)
    tl.store(out + place, token, mask=there)
    tl.store(out + count + place, tl.where(live, block * block_size + position % block_size, -1), mask=there)
    tl.store(out + 2 * count + place, after, mask=there)
    tl.store(out + 3 * count + place, after, mask=there)


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["slots", "positions", "tokens"])
def remember(history, slots, positions, tokens, count, width, PIECE: tl.constexpr):
    place = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    slot = tl.load(slots + place, mask=place < count, other=-1).to(tl.int64)
    position = tl.load(positions + place, mask=slot >= 0, other=0)
    tl.store(history + slot * width + position, tl.load(tokens + place, mask=slot >= 0), mask=slot >= 0)
