"""The kernel of `drawn_tokens`."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["rows", "slots", "positions"])
def replace_drawn(drawn, history, rows, slots, positions, tokens, failed, count, width, PIECE: tl.constexpr):
    place = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    slot = tl.load(slots + place, mask=place < count, other=-1).to(tl.int64)
    live = slot >= 0
    row = tl.load(rows + place, mask=live, other=0).to(tl.int64)
    token = tl.load(tokens + place, mask=live, other=0)
    tl.store(drawn + 2 * row, token, mask=live)
    tl.store(drawn + 2 * row + 1, tl.load(failed + place, mask=live, other=0).to(tl.int32), mask=live)
    tl.store(history + slot * width + tl.load(positions + place, mask=live, other=0), token, mask=live)
