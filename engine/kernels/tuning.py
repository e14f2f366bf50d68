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


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConfig:
    queries: int  # tokens x (query heads per kv head, rounded up to a power of two) of a tile
    tile: int  # keys a turn of the loop
    warps: int
    stages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceConfig:
    size: int  # what one program takes at a time: elements, heads or runs
    warps: int


# (most rows, config)
DECODE: tuple[tuple[int, DecodeConfig], ...] = (
    (8, DecodeConfig(tile=64, warps=4, stages=3, programs=528, min_share=64)),
    (64, DecodeConfig(tile=64, warps=4, stages=3, programs=1056, min_share=128)),
    (1 << 30, DecodeConfig(tile=64, warps=4, stages=3, programs=4224, min_share=256)),
)

# (most tokens, largest head_dim, config)
PREFILL: tuple[tuple[int, int, PrefillConfig], ...] = (
    (256, 128, PrefillConfig(queries=64, tile=64, warps=4, stages=3)),
    (1 << 30, 64, PrefillConfig(queries=128, tile=128, warps=8, stages=3)),
    (1 << 30, 128, PrefillConfig(queries=128, tile=128, warps=8, stages=2)),
    (1 << 30, 1 << 30, PrefillConfig(queries=64, tile=32, warps=4, stages=2)),
)

# (largest row, warps)
RMS_NORM: tuple[tuple[int, int], ...] = ((1024, 2), (2048, 4), (1 << 30, 8))
SILU_MUL = PieceConfig(size=1024, warps=4)  # elements
# (most tokens, config): heads, a power of two
ROTARY: tuple[tuple[int, PieceConfig], ...] = (
    (64, PieceConfig(size=4, warps=1)),
    (1 << 30, PieceConfig(size=16, warps=4)),
)

ARGMAX = PieceConfig(size=1024, warps=4)  # logits
ARGMAX_PROGRAMS = 2112  # over all rows: sixteen a multiprocessor
WEIGH_RUNS = PieceConfig(size=16, warps=4)  # runs of 64 logits
CHOOSE_RUNS_WARPS = 8
# Filters look for their threshold among the tokens of so many runs before they look at all.
FILTER_RUNS = PieceConfig(size=128, warps=8)
SEARCH_RUNS = PieceConfig(size=128, warps=16)


def decode_config(*, num_rows: int) -> DecodeConfig:
    return next(config for most_rows, config in DECODE if num_rows <= most_rows)


def prefill_config(*, num_tokens: int, head_dim: int) -> PrefillConfig:
    """For a launch of that many tokens, padding included."""
    return next(config for most_tokens, largest, config in PREFILL if num_tokens <= most_tokens and head_dim <= largest)


def rms_norm_warps(*, row_size: int) -> int:
    return next(warps for largest, warps in RMS_NORM if row_size <= largest)


def rotary_config(*, num_tokens: int) -> PieceConfig:
    return next(config for most_tokens, config in ROTARY if num_tokens <= most_tokens)
