"""The kernel of prefill attention."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(
    do_not_specialize=["table_width"],
    do_not_specialize_on_alignment=["tables", "slots", "query_starts", "seq_lens", "tiles"],
)
def prefill(
    q,
    cache,
    tables,
    slots,
    query_starts,
    seq_lens,
    tiles,
    out,
    scale,
    table_width,
    Q_STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    SHARED_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    QUERIES: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
):
    HEADS: tl.constexpr = KV_HEADS * SHARED
    TOKENS: tl.constexpr = QUERIES // SHARED_PAD
    kv_head = tl.program_id(0)  # neighbours read the same tokens at the same time
    tile = tl.program_id(1)
    row = tl.load(tiles + tile)
    if row < 0:
        return
    first = tl.load(tiles + tl.num_programs(1) + tile)
    query_start = tl.load(query_starts + row)
    num_queries = tl.load(query_starts + row + 1) - query_start
    length = tl.load(seq_lens + row)
    line = row
    if slots is not None:
        line = tl.load(slots + row)
    table = tables + line.to(tl.int64) * table_width

    member = tl.arange(0, QUERIES)
    token = first + member // SHARED_PAD
    shared = member % SHARED_PAD
    dim = tl.arange(0, DIM_PAD)
    ours = ((token < num_queries) & (shared < SHARED))[:, None] & (dim < DIM)[None, :]
    place = (query_start + token).to(tl.int64)
    head = kv_head * SHARED + shared
    query = tl.load(q + (place * Q_STRIDE + head * DIM)[:, None] + dim[None, :], mask=ours, other=0.0)

    # Keys begin .. full - 1 are seen by every query of the tile, full .. end - 1 by some, if no window cuts them off.
    position = length - num_queries + token
    least = length - num_queries + first
    end = tl.minimum(least + TOKENS, length)
    full = (least + 1) // TILE * TILE
    begin = 0
    if WINDOW is not None:
        begin = tl.maximum(least + 1 - WINDOW, 0) // TILE * TILE
    head_kv = cache + kv_head * DIM
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, DIM_PAD], tl.float32)
    top, total, acc = _attend(
        query, head_kv, table, position, begin, full, end, top, total, acc, scale,
        BLOCK, KV_HEADS, DIM, DIM_PAD, TILE, WINDOW, WINDOW is not None,
    )  # fmt: skip
    top, total, acc = _attend(
        query, head_kv, table, position, full, end, end, top, total, acc, scale,
        BLOCK, KV_HEADS, DIM, DIM_PAD, TILE, WINDOW, True,
    )  # fmt: skip
    acc = acc / total[:, None]
    tl.store(
        out + (place * (HEADS * DIM) + head * DIM)[:, None] + dim[None, :], acc.to(out.dtype.element_ty), mask=ours
    )


@triton.jit
def _attend(
    query,
    head_kv,
    table,
    position,
    begin,
    until,
    end,
    top,
    total,
    acc,
    scale,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    MASKED: tl.constexpr,
):
    """The tile's queries over keys begin .. until - 1 (at most up to end); MASKED: not every query sees all of them."""
    tile = tl.arange(0, TILE)
    dim = tl.arange(0, DIM_PAD)
    block = tl.load(table + (begin + tile) // BLOCK, mask=begin + tile < end, other=0)
    for at in range(begin, until, TILE):
        key = at + tile
        token = (block.to(tl.int64) * BLOCK + key % BLOCK) * (2 * KV_HEADS * DIM)
        # The next turn's blocks now: loaded where they are needed they would be half of the pipeline's stages.
        block = tl.load(table + (key + TILE) // BLOCK, mask=key + TILE < end, other=0)
        if MASKED:
            there = key < end  # beyond lies what nobody wrote
            mask = there[:, None] & (dim < DIM)[None, :]
        else:
            mask = (dim < DIM)[None, :]
        where = head_kv + token[:, None] + dim[None, :]
        if MASKED or DIM < DIM_PAD:
            keys = tl.load(where, mask=mask, other=0.0)
            values = tl.load(where + KV_HEADS * DIM, mask=mask, other=0.0)
        else:
            keys = tl.load(where)
            values = tl.load(where + KV_HEADS * DIM)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
        if MASKED:
            seen = key[None, :] <= position[:, None]
            if WINDOW is not None:
                seen &= key[None, :] > position[:, None] - WINDOW
            scores = tl.where(seen, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scale)
        shift = new_top
        if WINDOW is not None:
            shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # nothing seen yet
        p = tl.exp2(scores * scale - shift[:, None])
        shrink = tl.exp2(top - shift)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(values.dtype), values, acc * shrink[:, None], input_precision="ieee")
        top = new_top
    return top, total, acc
