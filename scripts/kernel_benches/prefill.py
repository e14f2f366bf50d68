"""Prefill attention: every config, and what torch ships, against the rate of a big matrix product."""

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.kernels.prefill_attention import (
    dense_prefill,
    prefill_attention,
    prefill_attention_twin,
    tile_map,
    tokens_per_tile,
)
from engine.kernels.tuning import PrefillConfig, prefill_config
from scripts.kernel_benches.compile_ahead import Job
from scripts.kernel_benches.measure import Card, Results, Timing, eager_us, graph_us, relative_error
from scripts.kernel_benches.models import LLAMA_8B, ODD, QWEN_06B, SMOLLM, Heads
from scripts.kernel_benches.paged import Pool, make_pool, random_queries
from tests.kernels.paged_rows import paged_rows

NAME = "prefill_attention"
DENSE = "dense_prefill"
Chunk = tuple[int, int]  # tokens, and how many stand in the cache before them

SHAPES = [  # queries, tile, warps, stages
    *product((128,), (64,), (8,), (2, 3, 4)),
    *product((128,), (128,), (8,), (2, 3)),
    *product((128,), (32,), (8,), (3, 5)),
    *product((64,), (64,), (4,), (2, 3)),
    (64, 128, 4, 2),
    (64, 32, 4, 3),
]


def cases() -> Iterator[tuple[Heads, str, list[Chunk]]]:
    draw = random.Random(0)
    ragged = [(draw.randint(100, 1024), 0) for _ in range(14)]
    for heads in (LLAMA_8B, QWEN_06B):
        yield heads, "8 x 1024", [(1024, 0)] * 8
        yield heads, "14 x 100-1024", ragged
        yield heads, "256 tokens, 4 chunks after 512", [(64, 512)] * 4
    yield LLAMA_8B, "1 x 16384", [(16384, 0)]
    yield LLAMA_8B, "8192 after 8192", [(8192, 8192)]
    yield LLAMA_8B, "2048 after 14336", [(2048, 14336)]
    yield LLAMA_8B, "512 after 15872", [(512, 15872)]
    yield LLAMA_8B, "64 after 4096", [(64, 4096)]


def compile_jobs() -> list[Job]:
    return [(compile_one, (heads, *shape)) for heads in (LLAMA_8B, QWEN_06B) for shape in SHAPES]


def compile_one(heads: Heads, queries: int, tile: int, warps: int, stages: int) -> None:
    config = PrefillConfig(queries=queries, tile=tile, warps=warps, stages=stages)
    rows = paged_rows([40], heads.num_kv_heads, heads.head_dim, torch.bfloat16, torch.device("cuda"), seed=0)
    _Launch(heads, rows.cache, rows.block_tables, rows.slots, [(40, 0)], config).run(random_queries(heads, 40))
    torch.cuda.synchronize()


class _Launch:
    """The arguments of one launch."""

    def __init__(
        self,
        heads: Heads,
        cache: torch.Tensor,
        tables: torch.Tensor,
        slots: torch.Tensor | None,
        chunks: list[Chunk],
        config: PrefillConfig,
        window: int | None = None,
    ) -> None:
        lengths = np.array([tokens for tokens, _ in chunks], np.int32)
        seq_lens = np.array([tokens + before for tokens, before in chunks], np.int32)
        tile_tokens = tokens_per_tile(config=config, num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads)
        num_tiles = int(lengths.sum()) // tile_tokens + len(chunks)
        tiles = tile_map(lengths, seq_lens, tile_tokens=tile_tokens, num_tiles=num_tiles)
        self._cache, self._tables, self._slots, self._config, self._window = cache, tables, slots, config, window
        self._tiles = torch.from_numpy(tiles).cuda()
        self.starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device="cuda")
        self._seq_lens = torch.from_numpy(seq_lens).cuda()
        self.out = torch.empty(
            int(lengths.sum()), heads.num_heads, heads.head_dim, dtype=torch.bfloat16, device="cuda"
        ).fill_(torch.nan)

    def run(self, q: torch.Tensor) -> None:
        prefill_attention(
            q,
            self._cache,
            self._tables,
            self._slots,
            self.starts,
            self._seq_lens,
            self._tiles,
            self.out,
            config=self._config,
            window=self._window,
        )


def check(results: Results) -> None:
    """Random chunks against float32, the rest of the cache and of the output poisoned."""
    draw = random.Random(1)
    device = torch.device("cuda")
    for heads, window in product((LLAMA_8B, QWEN_06B, SMOLLM, ODD), (None, 300)):
        chunks = [
            (draw.choice([1, 17, draw.randint(1, 700)]), draw.choice([0, 16, draw.randint(0, 900)])) for _ in range(6)
        ]
        lengths = [tokens + before for tokens, before in chunks]
        rows = paged_rows(lengths, heads.num_kv_heads, heads.head_dim, torch.bfloat16, device, seed=window or 0)
        q = random_queries(heads, sum(tokens for tokens, _ in chunks))
        starts = torch.tensor([0, *np.cumsum([tokens for tokens, _ in chunks])], dtype=torch.int32, device=device)
        expected = prefill_attention_twin(
            q, rows.cache, rows.block_tables, starts, rows.seq_lens, slots=rows.slots, window=window
        )
        for num_tokens in (64, 8192):
            config = prefill_config(num_tokens=num_tokens, head_dim=heads.head_dim)
            launch = _Launch(heads, rows.cache, rows.block_tables, rows.slots, chunks, config, window)
            launch.run(q)
            error = relative_error(launch.out, expected)
            if not error < 1e-2:
                results.failures.append(f"{NAME} {heads.model} window {window} {config}: error {error}")


def run(card: Card, results: Results) -> None:
    pools: dict[str, Pool] = {}
    for heads, shape, chunks in cases():
        if heads.model not in pools:
            pools.clear()
            pools[heads.model] = make_pool(heads, 1 << 30)
        name = f"{heads.model} {shape}"
        floor_us = _flops(heads, chunks) / card.flops_per_us
        print(f"{NAME} {name}: floor {floor_us:.1f} us", flush=True)
        results.attempt(
            f"{NAME} {name}",
            lambda h=heads, n=name, c=chunks, f=floor_us: _tune(results, pools[h.model], h, n, c, f),  # type: ignore[misc]
        )
        if not any(before for _, before in chunks):
            results.attempt(
                f"{DENSE} {name}",
                lambda h=heads, n=name, c=chunks, f=floor_us: _time_dense(results, h, n, c, f),  # type: ignore[misc]
            )
    results.attempt("cuDNN over a prefix", lambda: _time_prefix(card, results))


def _flops(heads: Heads, chunks: list[Chunk]) -> float:
    pairs = sum(tokens * before + tokens * (tokens + 1) // 2 for tokens, before in chunks)
    return 4.0 * pairs * heads.num_heads * heads.head_dim


def _tune(results: Results, pool: Pool, heads: Heads, name: str, chunks: list[Chunk], floor_us: float) -> None:
    num_tokens = sum(tokens for tokens, _ in chunks)
    tables = pool.tables([tokens + before for tokens, before in chunks])
    q = random_queries(heads, num_tokens)
    expected: list[torch.Tensor] = []
    for shape in SHAPES:
        queries, tile, warps, stages = shape
        config = PrefillConfig(queries=queries, tile=tile, warps=warps, stages=stages)

        def time_one(config: PrefillConfig = config) -> None:
            launch = _Launch(heads, pool.cache, tables, None, chunks, config)
            us = graph_us([lambda: launch.run(q)] * (1 if floor_us > 1000 else 4))
            expected.append(launch.out)
            error = relative_error(launch.out, expected[0])
            results.timings.append(
                Timing(kernel=NAME, shape=name, config=_label(config), us=us, floor_us=floor_us, error=error)
            )
            if not error < 1e-2:
                results.failures.append(f"{NAME} {name} {_label(config)}: error {error}")
            del expected[1:]

        results.attempt(f"{NAME} {name} {_label(config)}", time_one)
    results.print_shape(NAME, name, _label(prefill_config(num_tokens=num_tokens, head_dim=heads.head_dim)))


def _time_dense(results: Results, heads: Heads, name: str, chunks: list[Chunk], floor_us: float) -> None:
    lengths = [tokens for tokens, _ in chunks]
    width = heads.num_heads + 2 * heads.num_kv_heads
    projection = torch.randn(sum(lengths), width, heads.head_dim, device="cuda").bfloat16()
    q, k, v = torch.split(projection, [heads.num_heads, heads.num_kv_heads, heads.num_kv_heads], dim=1)
    out = torch.empty(q.shape, dtype=q.dtype, device="cuda")
    us = eager_us(lambda: dense_prefill(q, k, v, lengths, out))
    results.timings.append(Timing(kernel=DENSE, shape=name, config="cuDNN first", us=us, floor_us=floor_us))
    results.print_shape(DENSE, name, "cuDNN first")


def _time_prefix(card: Card, results: Results) -> None:
    """Would the prefix, gathered, and the chunk, each by cuDNN and merged by their log-sum-exp, beat the kernel?"""
    for tokens, before in ((2048, 14336), (8192, 8192)):
        q = torch.randn(1, 32, tokens, 128, device="cuda").bfloat16()
        k, v = (torch.randn(1, 8, before, 128, device="cuda").bfloat16() for _ in range(2))
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            us = eager_us(
                lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)  # noqa: B023
            )
        floor_us = 4.0 * tokens * before * 32 * 128 / card.flops_per_us
        shape = f"8B {tokens} over {before}, all seen"
        results.timings.append(Timing(kernel="cuDNN prefix", shape=shape, config="", us=us, floor_us=floor_us))
        print(f"cuDNN {shape}: {us:.1f} us, {floor_us / us:.1%}", flush=True)
        parts = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, False)
        print(f"  log-sum-exp: {tuple(parts[1].shape)} {parts[1].dtype}", flush=True)


def _label(config: PrefillConfig) -> str:
    return f"{config.queries} {config.tile} {config.warps} {config.stages} (queries, tile, warps, stages)"
