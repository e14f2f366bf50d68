"""The kernels of `logit_rules`: one copies rows through their masks, the others change single logits of the copies."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=["rows", "slots", "positions"])
def copy_masked(
    logits,
    row_stride,
    rows,
    slots,
    positions,
    min_ends,
    limited,
    allowed,
    stops,
    line_width,
    copies,
    copy_stride,
    size,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    slot = tl.load(slots + index)
    if slot < 0:
        return
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = ids < size
    line = slot.to(tl.int64) * line_width + (ids >> 5)
    row = tl.load(rows + index).to(tl.int64)
    values = tl.load(logits + row * row_stride + ids, mask=inside, other=0.0).to(tl.float32)
    kept = inside
    if tl.load(limited + slot) != 0:
        kept = kept & (((tl.load(allowed + line, mask=inside, other=0) >> (ids & 31)) & 1) != 0)
    if tl.load(positions + index) < tl.load(min_ends + slot):
        kept = kept & (((tl.load(stops + line, mask=inside, other=0) >> (ids & 31)) & 1) == 0)
    # What makes a row fail must not be hidden by a ban.
    broken = (values < float("inf")) == 0
    values = tl.where(broken, float("nan"), tl.where(kept, values, -float("inf")))
    tl.store(copies + index.to(tl.int64) * copy_stride + ids, values, mask=inside)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def add_biases(slots, num_biases, bias_ids, bias_values, line_width, copies, copy_stride, BLOCK: tl.constexpr):
    index = tl.program_id(0)
    slot = tl.load(slots + index)
    if slot < 0:
        return
    line = slot.to(tl.int64) * line_width
    count = tl.load(num_biases + slot)
    for start in range(0, count, BLOCK):
        entries = start + tl.arange(0, BLOCK)
        there = entries < count
        places = copies + index.to(tl.int64) * copy_stride + tl.load(bias_ids + line + entries, mask=there, other=0)
        values = tl.load(places, mask=there, other=0.0) + tl.load(bias_values + line + entries, mask=there, other=0.0)
        tl.store(places, values, mask=there)


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def ban_bad_words(
    slots,
    positions,
    prompt_lens,
    history,
    history_width,
    num_words,
    word_lasts,
    word_counts,
    word_befores,
    line_width,
    copies,
    copy_stride,
    WORDS: tl.constexpr,
    BEFORE: tl.constexpr,
):
    index = tl.program_id(0)
    slot = tl.load(slots + index)
    if slot < 0:
        return
    position = tl.load(positions + index)
    outputs = position - tl.load(prompt_lens + slot)
    line = slot.to(tl.int64) * line_width
    back = tl.arange(0, BEFORE)[None, :]
    tokens = history + slot.to(tl.int64) * history_width + (position - 1 - back)
    total = tl.load(num_words + slot)
    for start in range(0, total, WORDS):
        words = start + tl.arange(0, WORDS)
        there = words < total
        counts = tl.load(word_counts + line + words, mask=there, other=0)
        there = there & (counts <= outputs)
        read = there[:, None] & (back < counts[:, None])
        wanted = tl.load(word_befores + line + words[:, None] * BEFORE + back, mask=read, other=0)
        written = tl.load(tl.broadcast_to(tokens, (WORDS, BEFORE)), mask=read, other=0)
        said = there & (tl.max((wanted != written).to(tl.int32), 1) == 0)
        lasts = tl.load(word_lasts + line + words, mask=said, other=0)
        places = copies + index.to(tl.int64) * copy_stride + lasts
        values = tl.load(places, mask=said, other=0.0)
        tl.store(places, tl.where(values == values, -float("inf"), values), mask=said)
