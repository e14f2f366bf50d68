"""CUDA graphs of steps: forward (to logits) of decode rows, of decode rows with prompt chunks, and two kinds of sample.

A step uses the smallest captured size that holds it. A few sizes are captured at start-up, the others one at a time
while the engine has nothing to do. All graphs share one memory pool, since they never run at the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.batch import ScheduledBatch
from engine.execution.gpu.step_inputs import MAX_GRAPH_CHUNKS, MAX_GRAPH_TOKENS, MixedSize

Capture = Callable[[Callable[[], None]], torch.cuda.CUDAGraph]

_MIXED_TOKENS = (64, 128, 256, MAX_GRAPH_TOKENS)
# Rows of a mixed step, those of its chunks included: each is the size of a decode graph, whose sampling it uses.
_MIXED_ROWS = (16, 32, 64, 128, 192, 256, 384, 512)


def graph_sizes(most: int) -> list[int]:
    """Batch sizes worth a graph: close together where padding would cost a large share."""
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, 512, 32), *range(512, most + 64, 64)]
    return [*(size for size in sizes if size < most), most]


def first_sizes(most: int) -> list[int]:
    """Captured before the engine is ready, largest first: their memory serves the smaller ones too."""
    return sorted({most, *(size for size in (1, 8, 16, 32, 64, 128, 256, 512) if size < most)}, reverse=True)


def mixed_sizes(most: int, tile_tokens: Callable[[int], int]) -> list[MixedSize]:
    """Those without decode rows first: they are a lone request's first step. `tile_tokens` tells a size's tiles."""
    return [
        MixedSize(
            rows=rows - MAX_GRAPH_CHUNKS,
            tokens=tokens,
            tile_tokens=tile_tokens(tokens),
            tiles=-(-tokens // tile_tokens(tokens)) + MAX_GRAPH_CHUNKS,
        )
        for rows in _MIXED_ROWS
        if rows <= most
        for tokens in reversed(_MIXED_TOKENS)
    ]


def capture_into_one_pool() -> Capture:
    """Run a part once, so that everything is compiled and allocated, then record it."""
    pool = torch.cuda.graph_pool_handle()

    def capture(part: Callable[[], None]) -> torch.cuda.CUDAGraph:
        part()
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
            part()
        return graph

    return capture


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeGraph:
    """One size's graphs."""

    size: int
    forward: torch.cuda.CUDAGraph
    greedy: torch.cuda.CUDAGraph
    random: torch.cuda.CUDAGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedGraph:
    """Its sampled rows are drawn by the decode graph of that many rows."""

    size: MixedSize
    forward: torch.cuda.CUDAGraph
    drawn: DecodeGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """What is captured, each for a size."""

    forward: Callable[[int], None]
    greedy: Callable[[int], None]
    random: Callable[[int], None]
    mixed: Callable[[MixedSize], None]


class StepGraphs:
    """Captures on demand."""

    def __init__(self, most: int, parts: StepParts, mixed: list[MixedSize]) -> None:
        self._most = most
        self._parts = parts
        self._capture = capture_into_one_pool()
        self._decode: dict[int, DecodeGraph] = {}
        self._mixed: dict[MixedSize, MixedGraph] = {}
        self._missing = graph_sizes(most)
        self._missing_mixed = mixed

    def capture_first(self) -> None:
        """Before the engine is ready: with these it serves one request, and a full batch."""
        for size in first_sizes(self._most):
            self._capture_decode(size)
        for mixed in [size for size in self._missing_mixed if size.rows == 0]:
            self._capture_mixed(mixed)

    def capture_next(self) -> bool:
        """One more; False: there is none left."""
        if self._missing:
            self._capture_decode(self._missing[0])
        elif self._missing_mixed:
            self._capture_mixed(self._missing_mixed[0])
        return bool(self._missing or self._missing_mixed)

    def find(self, num_rows: int) -> DecodeGraph | None:
        """The smallest that holds the rows."""
        size = min((size for size in self._decode if size >= num_rows), default=None)
        return None if size is None else self._decode[size]

    def find_mixed(self, batch: ScheduledBatch) -> MixedGraph | None:
        """The smallest that holds the step: least tokens in all."""
        num_rows, num_tokens = len(batch.decode_slots), int(batch.chunk_lengths.sum())
        if num_tokens > MAX_GRAPH_TOKENS or len(batch.chunk_slots) > MAX_GRAPH_CHUNKS:
            return None
        fitting = (size for size in self._mixed if size.rows >= num_rows and size.tokens >= num_tokens)
        best = min(fitting, key=lambda size: size.rows + size.tokens, default=None)
        return None if best is None else self._mixed[best]

    def _capture_decode(self, size: int) -> None:
        parts = (self._parts.forward, self._parts.greedy, self._parts.random)
        forward, greedy, random = (self._capture(lambda part=part: part(size)) for part in parts)  # type: ignore[misc]
        self._decode[size] = DecodeGraph(size=size, forward=forward, greedy=greedy, random=random)
        self._missing = [missing for missing in self._missing if missing != size]

    def _capture_mixed(self, size: MixedSize) -> None:
        self._missing_mixed = [missing for missing in self._missing_mixed if missing != size]
        drawn = self.find(size.num_sampled)
        if drawn is not None:
            forward = self._capture(lambda: self._parts.mixed(size))
            self._mixed[size] = MixedGraph(size=size, forward=forward, drawn=drawn)
