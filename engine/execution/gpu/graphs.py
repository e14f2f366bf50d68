"""CUDA graphs of decode steps, one per batch size: forward (to logits), and sample in two kinds.

A step uses the smallest captured size that holds its rows; the rows that fill it up have slot -1. A few sizes are
captured at start-up, the others one at a time while the engine has nothing to do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def graph_sizes(most: int) -> list[int]:
    """Batch sizes worth a graph: close together where padding would cost a large share."""
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, 512, 32), *range(512, most + 64, 64)]
    return [*(size for size in sizes if size < most), most]


def first_sizes(most: int) -> list[int]:
    """Captured before the engine is ready, largest first: their memory serves the smaller ones too."""
    return sorted({most, *(size for size in (1, 8, 32, 64, 128, 256, 512) if size < most)}, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeGraph:
    """One size's graphs; `tokens` [2, B] int32 is what a sample graph leaves: token ids, and 1 where a row failed."""

    forward: torch.cuda.CUDAGraph
    greedy: torch.cuda.CUDAGraph
    random: torch.cuda.CUDAGraph


class DecodeGraphs:
    """Captures on demand; all graphs share one memory pool, since they never run at the same time."""

    def __init__(
        self,
        most: int,
        forward: Callable[[int], None],
        greedy: Callable[[int], None],
        random: Callable[[int], None],
    ) -> None:
        self._parts = (forward, greedy, random)
        self._graphs: dict[int, DecodeGraph] = {}
        self._missing = graph_sizes(most)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, size: int) -> None:
        """Run each part once, so that everything is compiled and allocated, then record it."""
        recorded = [self._record(part, size) for part in self._parts]
        self._graphs[size] = DecodeGraph(forward=recorded[0], greedy=recorded[1], random=recorded[2])
        self._missing = [missing for missing in self._missing if missing != size]

    def capture_next(self) -> bool:
        """One more size; False: there is none left."""
        if self._missing:
            self.capture(self._missing[0])
        return bool(self._missing)

    def find(self, num_rows: int) -> tuple[int, DecodeGraph] | None:
        """The smallest size that holds the rows."""
        size = min((size for size in self._graphs if size >= num_rows), default=None)
        return None if size is None else (size, self._graphs[size])

    def _record(self, part: Callable[[int], None], size: int) -> torch.cuda.CUDAGraph:
        part(size)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream()):
            part(size)
        return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInputs:
    """The fixed part of the staging buffer, for S = max_num_seqs rows: what a decode graph reads."""

    slots: Tensor  # int32 [S] -1: padding
    positions: Tensor  # int32 [S] of the input tokens
