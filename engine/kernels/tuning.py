"""Block shapes, warps and stages of the Triton kernels: plain data, chosen by measurement (scripts/bench_kernels.py).

A table's rows are tried in order and the first that fits is taken; the last of each fits everything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    tile: int  # keys a turn of the loop
    warps: int
    stages: int  # one more than the turns whose loads are in flight
    programs: int  # the work of a step is cut into about this many equal shares
    min_share: int  # but no share is smaller than this many keys, a multiple of the tile
    parts: int = 8  # of a row's shares, added up at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConfig:
    queries: int  # tokens x (query heads per kv head, rounded up to a power of two) of a tile
    tile: int  # keys a turn of the loop
    warps: int
    stages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPrefillConfig:
    least_queries: int  # of a chunk that goes to cuDNN
    least_pairs: int  # of queries and keys that its queries see
    # Of the lengths that cuDNN is called with; it builds a plan for each new pair of them, which takes it 65 ms (H100,
    # 2026-11-25). The keys of a prefix are cut into pieces of this, times powers of two.
    multiple: int
    largest_piece: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceConfig:
    size: int  # what one program takes at a time: elements, heads or runs
    warps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRowConfig:
    rows: int  # of the matrix that a program takes
    piece: int  # of a row at a time, where it is not normed
    warps: int


# (most rows, config)
DECODE: tuple[tuple[int, DecodeConfig], ...] = (
    (4, DecodeConfig(tile=64, warps=2, stages=2, programs=528, min_share=64, parts=16)),
    (8, DecodeConfig(tile=64, warps=2, stages=2, programs=528, min_share=128)),
    (32, DecodeConfig(tile=64, warps=2, stages=2, programs=2112, min_share=256)),
    (1 << 30, DecodeConfig(tile=64, warps=2, stages=2, programs=2112, min_share=512)),
)

# (most tokens, longest chunk with its prefix, most query heads that share a kv head, largest head_dim, config)
PREFILL: tuple[tuple[int, int, int, int, PrefillConfig], ...] = (
    (256, 1 << 30, 1 << 30, 128, PrefillConfig(queries=64, tile=64, warps=4, stages=2)),
    (1 << 30, 2048, 2, 128, PrefillConfig(queries=128, tile=32, warps=8, stages=3)),
    (1 << 30, 2048, 1 << 30, 128, PrefillConfig(queries=64, tile=32, warps=4, stages=3)),
    (1 << 30, 1 << 30, 1 << 30, 128, PrefillConfig(queries=128, tile=64, warps=8, stages=3)),
    (1 << 30, 1 << 30, 1 << 30, 1 << 30, PrefillConfig(queries=64, tile=32, warps=4, stages=2)),
)
LONG_PREFILL = LongPrefillConfig(least_queries=4096, least_pairs=1 << 24, multiple=512, largest_piece=8192)

# (largest row, warps)
RMS_NORM: tuple[tuple[int, int], ...] = ((1024, 4), (2048, 4), (1 << 30, 8))
SILU_MUL = PieceConfig(size=1024, warps=8)  # elements
ROTARY = PieceConfig(size=8, warps=4)  # heads, a power of two

# (largest size_in, config)
ONE_ROW: tuple[tuple[int, OneRowConfig], ...] = (
    (1024, OneRowConfig(rows=8, piece=1024, warps=2)),
    (2048, OneRowConfig(rows=4, piece=2048, warps=4)),
    (4096, OneRowConfig(rows=4, piece=2048, warps=8)),
    (1 << 30, OneRowConfig(rows=4, piece=2048, warps=4)),
)

ARGMAX = PieceConfig(size=2048, warps=8)  # logits
ARGMAX_PROGRAMS = 2112  # over all rows: sixteen a multiprocessor
WEIGH_RUNS = PieceConfig(size=32, warps=4)  # runs of 64 logits
CHOOSE_RUNS_WARPS = 16
# Filters look for their threshold among the tokens of so many runs before they look at all; for a top_k that so many
# hold, among half of them.
FILTER_RUNS = PieceConfig(size=128, warps=8)
SEARCH_RUNS = PieceConfig(size=128, warps=32)
COPY_MASKED = PieceConfig(size=2048, warps=8)  # logits
BIASES = PieceConfig(size=256, warps=4)  # entries
BAD_WORDS = PieceConfig(size=16, warps=4)  # words, of which 32 tokens are compared
PENALTIES = PieceConfig(size=1024, warps=4)  # tokens of the history; no fewer than threads, as atomics want it
PENALTY_PARTS = 8  # programs that share a row's history
# (most alternatives of log-probabilities, warps): those beyond are left to torch
TOP_LOGITS: tuple[tuple[int, int], ...] = ((32, 4), (128, 8))


def decode_config(*, num_rows: int) -> DecodeConfig:
    return next(config for most_rows, config in DECODE if num_rows <= most_rows)


def prefill_config(*, num_tokens: int, head_dim: int, longest: int = 1 << 30, shared: int = 4) -> PrefillConfig:
    """For a launch of that many tokens, padding included, whose longest chunk ends at that many keys."""
    asked = (num_tokens, longest, shared, head_dim)
    return next(row[-1] for row in PREFILL if all(number <= most for number, most in zip(asked, row[:-1], strict=True)))


def one_row_config(*, size_in: int) -> OneRowConfig:
    return next(config for most_in, config in ONE_ROW if size_in <= most_in)


def rms_norm_warps(*, row_size: int) -> int:
    return next(warps for largest, warps in RMS_NORM if row_size <= largest)
