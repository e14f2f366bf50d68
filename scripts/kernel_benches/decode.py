"""Decode attention: every config against the time that reading the keys and values takes."""

import random
from collections.abc import Iterator
from itertools import product

import torch

from engine.kernels.decode_attention import (
    DecodeScratch,
    decode_attention,
    decode_attention_twin,
    decode_scratch,
    plan_decode,
)
from engine.kernels.tuning import DecodeConfig, decode_config
from scripts.kernel_benches.compile_ahead import Job
from scripts.kernel_benches.measure import Card, Results, Timing, graph_us, relative_error
from scripts.kernel_benches.models import LLAMA_8B, ODD, QWEN_06B, SMOLLM, Heads
from scripts.kernel_benches.paged import Pool, make_pool, random_queries
from tests.kernels.paged_rows import paged_rows

NAME = "decode_attention"
LAUNCH_BYTES = 256 << 20  # what all launches of a graph read together: several times the GPU's cache

SHAPES = [  # tile, warps, stages
    *product((32,), (2, 4), (3, 4, 5)),
    *product((64,), (2, 4), (2, 3, 4)),
    *product((128,), (4, 8), (2, 3)),
    (16, 1, 4),
    (16, 1, 6),
    (16, 2, 6),
]
SPLITS = {  # most rows -> programs x least shares
    8: [*product((132, 264, 528, 1056), (64, 128, 256))],
    1 << 30: [*product((1056, 2112, 4224, 8448), (128, 256, 512))],
}


def cases() -> Iterator[tuple[Heads, str, list[int]]]:
    draw = random.Random(0)
    w1 = [draw.randint(100, 2048) for _ in range(256)]
    for rows, length in ((1, 128), (1, 1024), (1, 16384), (16, 1024), (64, 256), (64, 2048), (256, 128), (256, 640)):
        yield LLAMA_8B, f"{rows} x {length}", [length] * rows
    yield LLAMA_8B, "256 x 100-2048", w1
    yield LLAMA_8B, "512 x 256", [256] * 512
    yield LLAMA_8B, "8 x 16384", [16384] * 8
    yield LLAMA_8B, "63 x 300 + 32768", [300] * 63 + [32768]
    for rows, length in ((1, 256), (64, 512), (512, 192)):
        yield QWEN_06B, f"{rows} x {length}", [length] * rows
    yield QWEN_06B, "256 x 100-2048", w1


def compile_jobs() -> list[Job]:
    return [(compile_one, (heads, *shape)) for heads in (LLAMA_8B, QWEN_06B) for shape in SHAPES]


def compile_one(heads: Heads, tile: int, warps: int, stages: int) -> None:
    config = DecodeConfig(tile=tile, warps=warps, stages=stages, programs=16, min_share=tile)
    rows = paged_rows([40], heads.num_kv_heads, heads.head_dim, torch.bfloat16, torch.device("cuda"), seed=0)
    q = random_queries(heads, 1)
    out = torch.empty(q.shape, dtype=q.dtype, device="cuda")
    scratch = _scratch(heads, 1, 16)
    plan_decode(rows.seq_lens, rows.slots, scratch, config=config)
    decode_attention(q, rows.cache, rows.block_tables, out, scratch, config=config)
    torch.cuda.synchronize()


def check(results: Results) -> None:
    """Random rows against float32, the rest of the cache and of the output poisoned; twice, for the same bits."""
    draw = random.Random(1)
    device = torch.device("cuda")
    for heads, window in product((LLAMA_8B, QWEN_06B, SMOLLM, ODD), (None, 700)):
        lengths = [3000] + [draw.choice([0, 1, 16, 33, draw.randint(1, 1500)]) for _ in range(15)]
        rows = paged_rows(lengths, heads.num_kv_heads, heads.head_dim, torch.bfloat16, device, seed=len(lengths))
        q = torch.randn(len(lengths), heads.num_heads, heads.head_dim, device=device).bfloat16()
        expected = decode_attention_twin(
            q, rows.cache, rows.block_tables, rows.seq_lens, slots=rows.slots, window=window
        )
        for most_rows in (1, 64, 512):
            config = decode_config(num_rows=most_rows)
            scratch = _scratch(heads, len(lengths), config.programs)
            scratch.parts.fill_(torch.nan)
            outs = []
            for _ in range(2):
                out = torch.full_like(q, torch.nan)
                plan_decode(rows.seq_lens, rows.slots, scratch, config=config, window=window)
                decode_attention(q, rows.cache, rows.block_tables, out, scratch, config=config)
                outs.append(out)
            error = relative_error(outs[0], expected)
            if not error < 1e-2 or not torch.equal(*outs):
                results.failures.append(
                    f"{NAME} {heads.model} window {window} {config}: error {error}, same bits {torch.equal(*outs)}"
                )


def run(card: Card, results: Results) -> None:
    pools: dict[str, Pool] = {}
    for heads, shape, lengths in cases():
        if heads.model not in pools:
            pools.clear()
            pools[heads.model] = make_pool(heads, 6 << 30)
        results.attempt(f"{NAME} {shape}", lambda h=heads, s=shape, n=lengths: _tune(card, results, pools, h, s, n))  # type: ignore[misc]

    results.attempt("plan_decode", lambda: _time_plan(results))


def _tune(card: Card, results: Results, pools: dict[str, Pool], heads: Heads, shape: str, lengths: list[int]) -> None:
    """Block shapes at the splits of tuning.py first, then splits for the best two."""
    default = decode_config(num_rows=len(lengths))
    trial = _Trial(card, results, pools[heads.model], heads, shape, lengths)
    for tile, warps, stages in SHAPES:
        trial.time(tile, warps, stages, default.programs, max(default.min_share, tile))
    best = sorted((t for t in results.timings if t.shape == trial.shape and t.kernel == NAME), key=lambda t: t.us)[:2]
    splits = next(pairs for most_rows, pairs in SPLITS.items() if len(lengths) <= most_rows)
    for timing in best:
        tile, warps, stages = (int(part) for part in timing.config.split()[:3])
        for programs, min_share in splits:
            trial.time(tile, warps, stages, programs, max(min_share, tile))
    print(f"{NAME} {trial.shape}: floor {trial.floor_us:.1f} us", flush=True)
    results.print_shape(NAME, trial.shape, _label(default))


class _Trial:
    """One shape's data: as many sets of rows as a graph launches, each with blocks of its own."""

    def __init__(self, card: Card, results: Results, pool: Pool, heads: Heads, shape: str, lengths: list[int]) -> None:
        self.shape = f"{heads.model} {shape}"
        num_bytes = sum(lengths) * heads.kv_bytes
        self.floor_us = num_bytes / card.bytes_per_us
        self._results = results
        self._heads = heads
        self._cache = pool.cache
        self._tables = [pool.tables(lengths) for _ in range(max(2, min(128, -(-LAUNCH_BYTES // num_bytes))))]
        self._seq_lens = torch.tensor(lengths, dtype=torch.int32, device="cuda")
        self._q = random_queries(heads, len(lengths))
        self._out = torch.empty(self._q.shape, dtype=torch.bfloat16, device="cuda")
        self._expected: torch.Tensor | None = None
        self._done: set[str] = set()

    def time(self, tile: int, warps: int, stages: int, programs: int, min_share: int) -> None:
        config = DecodeConfig(tile=tile, warps=warps, stages=stages, programs=programs, min_share=min_share)
        if _label(config) not in self._done:
            self._done.add(_label(config))
            self._results.attempt(f"{self.shape} {_label(config)}", lambda: self._time(config))

    def _time(self, config: DecodeConfig) -> None:
        scratch = _scratch(self._heads, len(self._seq_lens), config.programs)
        plan_decode(self._seq_lens, None, scratch, config=config)
        us = graph_us([lambda t=table: self._attend(t, scratch, config) for table in self._tables])  # type: ignore[misc]
        self._out.fill_(torch.nan)
        self._attend(self._tables[0], scratch, config)
        if self._expected is None:
            self._expected = self._out.clone()
        error = relative_error(self._out, self._expected)
        self._results.timings.append(
            Timing(kernel=NAME, shape=self.shape, config=_label(config), us=us, floor_us=self.floor_us, error=error)
        )
        if not error < 1e-2:
            self._results.failures.append(f"{NAME} {self.shape} {_label(config)}: error {error}")

    def _attend(self, table: torch.Tensor, scratch: DecodeScratch, config: DecodeConfig) -> None:
        decode_attention(self._q, self._cache, table, self._out, scratch, config=config)


def _time_plan(results: Results) -> None:
    """The kernel that cuts rows into items, once a step."""
    for num_rows in (1, 64, 512, 1024):
        config = decode_config(num_rows=num_rows)
        scratch = _scratch(LLAMA_8B, num_rows, config.programs)
        seq_lens = torch.randint(1, 4096, (num_rows,), dtype=torch.int32, device="cuda")
        us = graph_us([lambda c=config, s=scratch, n=seq_lens: plan_decode(n, None, s, config=c)] * 20)  # type: ignore[misc]
        print(f"plan_decode {num_rows} rows: {us:.1f} us", flush=True)
        results.timings.append(Timing(kernel="plan_decode", shape=f"{num_rows} rows", config="", us=us, floor_us=1.3))


def _scratch(heads: Heads, num_rows: int, programs: int) -> DecodeScratch:
    return decode_scratch(
        max_rows=num_rows,
        max_programs=programs,
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        device=torch.device("cuda"),
    )


def _label(config: DecodeConfig) -> str:
    return (
        f"{config.tile} {config.warps} {config.stages} (tile, warps, stages) "
        f"{config.programs} {config.min_share} (programs, least share)"
    )
