"""The kernels of decode attention: `plan` once a step, `decode` in every layer."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from triton.language.extra import cuda

# An item is eight numbers, so that it is one 32-byte read.
ROW = tl.constexpr(0)  # -1: spare
TABLE = tl.constexpr(1)  # its line in the block tables
START = tl.constexpr(2)  # keys start .. end - 1
END = tl.constexpr(3)
FIRST = tl.constexpr(4)  # the row's first item
COUNT = tl.constexpr(5)  # and how many it has
ITEM_SIZE = tl.constexpr(8)


@triton.jit(
    do_not_specialize=["num_rows", "num_items", "max_shares", "min_share", "tile"],
    do_not_specialize_on_alignment=["seq_lens", "slots"],
)
def plan(
    seq_lens,
    slots,
    items,
    num_rows,
    num_items,
    max_shares,
    min_share,
    tile,
    WINDOW: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Program b < num_rows writes row b's items, the last program the spare ones."""
    row = tl.program_id(0)
    rows = tl.arange(0, ROWS)
    sizes = tl.load(seq_lens + rows, mask=rows < num_rows, other=0)
    if WINDOW is not None:
        sizes = tl.minimum(sizes, WINDOW)
    share = tl.cdiv(tl.maximum(tl.cdiv(tl.sum(sizes), max_shares), min_share), tile) * tile
    counts = tl.where(rows < num_rows, tl.maximum(tl.cdiv(sizes, share), 1), 0)
    first = tl.sum(tl.where(rows < row, counts, 0))
    turn = tl.arange(0, 128)
    if row == num_rows:
        for at in range(first, num_items, 128):
            tl.store(items + (at + turn) * ITEM_SIZE + ROW, -1, mask=at + turn < num_items)
    else:
        size = tl.sum(tl.where(rows == row, sizes, 0))
        count = tl.sum(tl.where(rows == row, counts, 0))
        even = tl.cdiv(tl.cdiv(size, count), tile) * tile
        end = tl.load(seq_lens + row)
        table = row
        if slots is not None:
            table = tl.load(slots + row)
        for at in range(0, count, 128):
            place = at + turn
            item = items + (first + place) * ITEM_SIZE
            start = end - size + place * even
            tl.store(item + ROW, row, mask=place < count)
            tl.store(item + TABLE, table, mask=place < count)
            tl.store(item + START, start, mask=place < count)
            tl.store(item + END, tl.minimum(start + even, end), mask=place < count)
            tl.store(item + FIRST, first, mask=place < count)
            tl.store(item + COUNT, count, mask=place < count)


@triton.jit(do_not_specialize=["table_width"], do_not_specialize_on_alignment=["tables"])
def decode(
    q,
    cache,
    tables,
    out,
    items,
    parts,
    weights,
    arrivals,
    scale,
    table_width,
    Q_STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    SHARED_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        cuda.gdc_wait()
        cuda.gdc_launch_dependents()
    HEADS: tl.constexpr = KV_HEADS * SHARED
    M: tl.constexpr = max(SHARED_PAD, 16)  # the least that a matrix product takes
    kv_head = tl.program_id(0)  # neighbours read neighbouring bytes
    item = tl.program_id(1)
    row = tl.load(items + item * ITEM_SIZE + ROW)
    table = tl.load(items + item * ITEM_SIZE + TABLE)
    start = tl.load(items + item * ITEM_SIZE + START)
    end = tl.load(items + item * ITEM_SIZE + END)
    first = tl.load(items + item * ITEM_SIZE + FIRST)
    count = tl.load(items + item * ITEM_SIZE + COUNT)
    if row < 0:
        return

    shared = tl.arange(0, M)
    dim = tl.arange(0, DIM_PAD)
    head = kv_head * SHARED + shared
    ours = (shared < SHARED)[:, None] & (dim < DIM)[None, :]
    query = tl.load(q + row.to(tl.int64) * Q_STRIDE + head[:, None] * DIM + dim[None, :], mask=ours, other=0.0)

    table_line = tables + table.to(tl.int64) * table_width
    head_kv = cache + kv_head * DIM
    tile = tl.arange(0, TILE)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, DIM_PAD], tl.float32)
    block = tl.load(table_line + (start + tile) // BLOCK, mask=start + tile < end, other=0)
    for at in range(start, end, TILE):
        key = at + tile
        there = key < end
        token = (block.to(tl.int64) * BLOCK + key % BLOCK) * (2 * KV_HEADS * DIM)
        # The next turn's blocks now: loaded where they are needed they would be half of the pipeline's stages.
        block = tl.load(table_line + (key + TILE) // BLOCK, mask=key + TILE < end, other=0)
        mask = there[:, None] & (dim < DIM)[None, :]
        keys = tl.load(head_kv + token[:, None] + dim[None, :], mask=mask, other=0.0)
        values = tl.load(head_kv + KV_HEADS * DIM + token[:, None] + dim[None, :], mask=mask, other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(there[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(values.dtype), values, acc * shrink[:, None], input_precision="ieee")
        top = new_top
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]

    if count == 1:
        place = row.to(tl.int64) * (HEADS * DIM) + head[:, None] * DIM + dim[None, :]
        tl.store(out + place, acc.to(out.dtype.element_ty), mask=ours)
        return

    part = item.to(tl.int64) * HEADS + head
    tl.store(parts + part[:, None] * DIM + dim[None, :], acc, mask=ours)
    tl.store(weights + part, top + tl.log2(total), mask=shared < SHARED)
    tl.debug_barrier()  # every thread's part is written before one of them says so
    arrived = tl.atomic_add(arrivals + row * KV_HEADS + kv_head, 1, sem="acq_rel", scope="gpu")
    if arrived == count - 1:
        tl.store(arrivals + row * KV_HEADS + kv_head, 0)
        _add_up(out, parts, weights, row, first, count, kv_head, HEADS, SHARED, SHARED_PAD, DIM, DIM_PAD, PARTS)


@triton.jit
def _add_up(
    out,
    parts,
    weights,
    row,
    first,
    count,
    kv_head,
    HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    SHARED_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The parts of one row and kv head, in their order, into out."""
    shared = tl.arange(0, SHARED_PAD)
    head = kv_head * SHARED + tl.minimum(shared, SHARED - 1)  # padding repeats the last head
    dim = tl.arange(0, DIM_PAD)
    top = tl.full([SHARED_PAD], float("-inf"), tl.float32)
    total = tl.zeros([SHARED_PAD], tl.float32)
    acc = tl.zeros([SHARED_PAD, DIM_PAD], tl.float32)
    for at in range(0, count, PARTS):
        place = at + tl.arange(0, PARTS)
        there = place < count
        part = (first + place).to(tl.int64)[:, None] * HEADS + head[None, :]
        weight = tl.load(weights + part, mask=there[:, None], other=float("-inf"))
        mask = there[:, None, None] & (dim < DIM)[None, None, :]
        chunk = tl.load(parts + part[:, :, None] * DIM + dim[None, None, :], mask=mask, other=0.0)
        new_top = tl.maximum(top, tl.max(weight, 0))
        p = tl.exp2(weight - new_top[None, :])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, 0)
        acc = acc * shrink[:, None] + tl.sum(p[:, :, None] * chunk, 0)
        top = new_top
    place = row.to(tl.int64) * (HEADS * DIM) + head[:, None] * DIM + dim[None, :]
    ours = (shared < SHARED)[:, None] & (dim < DIM)[None, :]
    tl.store(out + place, (acc / total[:, None]).to(out.dtype.element_ty), mask=ours)
