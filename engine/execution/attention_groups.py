"""Puts a step's rows into groups of like lengths for attention; the loop is over groups, never over rows.

The step's rows are computed in the order of their lengths, so that each group's tokens are one run.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int64s
from engine.execution.slot_tables import SlotTables
from engine.kernels.paged_attention import RowGroup
from engine.models.shape import ModelShape

# What one group may gather of a layer's KV cache. On the CPU it should stay in the last-level cache: 32 rows of 256
# tokens take 2.7 ms in groups of 3 MiB and 3.2 in one.
WORKSPACE_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
MAX_SCORES = {"cpu": 2**24, "cuda": 2**28}  # entries of one group's mask

# Below these, lengths are alike: padding costs less than another group would.
MIN_KEYS = 256
MIN_QUERIES = 4


class AttentionGrouper:
    def __init__(self, tables: SlotTables, shape: ModelShape, cache_dtype: torch.dtype) -> None:
        device = tables.device
        token_dims = (2, shape.num_kv_heads, shape.head_dim)
        bytes_per_token = int(np.prod(token_dims)) * cache_dtype.itemsize
        blocks = WORKSPACE_BYTES[device.type] // (bytes_per_token * tables.block_size)
        self._tables = tables
        self._share = shape.num_heads // shape.num_kv_heads
        self._max_blocks = max(blocks, tables.blocks.shape[1])  # one row must always fit
        self._max_scores = MAX_SCORES[device.type]
        self._window = shape.sliding_window
        self.workspace = torch.empty(self._max_blocks, tables.block_size, *token_dims, dtype=cache_dtype, device=device)

    def order(self, lengths: Int64s, ends: Int64s) -> tuple[Int64s, list[slice]]:
        """The order to compute rows in, and the runs of it whose numbers of queries and of keys are alike."""
        classes = _power(lengths, MIN_QUERIES) * 64 + _power(ends, MIN_KEYS)
        order = np.argsort(classes, kind="stable")
        bounds = np.flatnonzero(np.diff(classes[order])) + 1
        runs = zip([0, *bounds.tolist()], [*bounds.tolist(), len(order)], strict=True)
        return order, [part for first, last in runs for part in self._parts(first, last, lengths[order], ends[order])]

    def group(self, slots: Int64s, starts: Int64s, lengths: Int64s, first_token: int) -> RowGroup:
        """The rows of one run; their tokens follow each other from `first_token` on."""
        num_rows, num_queries = len(slots), int(lengths.max())
        width = -(-int((starts + lengths).max()) // self._tables.block_size)
        even = bool((lengths == num_queries).all())
        blocks = self._tables.blocks.index_select(0, self._device(slots))[:, :width]
        return RowGroup(
            first=first_token,
            last=first_token + int(lengths.sum()),
            num_rows=num_rows,
            num_queries=num_queries,
            places=None if even else self._device(runs(np.arange(num_rows) * num_queries, lengths)),
            blocks=blocks.reshape(-1).long(),
            mask=self._mask(self._device(starts), num_queries, width * self._tables.block_size),
        )

    def _parts(self, first: int, last: int, lengths: Int64s, ends: Int64s) -> Iterator[slice]:
        """Rows first .. last - 1, as many at a time as the workspace takes."""
        keys, queries = int(ends[first:last].max()), int(lengths[first:last].max())
        blocks = -(-keys // self._tables.block_size)
        size = max(1, min(self._max_blocks // blocks, self._max_scores // (keys * queries * self._share)))
        return (slice(at, min(at + size, last)) for at in range(first, last, size))

    def _mask(self, starts: Tensor, num_queries: int, num_keys: int) -> Tensor:
        device = starts.device
        queries = (starts[:, None] + torch.arange(num_queries, device=device))[:, None, :, None]
        keys = torch.arange(num_keys, device=device)
        hidden = keys > queries
        if self._window is not None:
            hidden |= keys <= queries - self._window
        mask = torch.zeros(hidden.shape, dtype=self.workspace.dtype, device=device)
        mask.masked_fill_(hidden, -torch.inf)
        return mask if num_queries == 1 else mask.repeat(1, 1, self._share, 1)

    def _device(self, numbers: Int64s) -> Tensor:
        return torch.from_numpy(numbers).to(self._tables.device)


def runs(first: Int64s, lengths: Int64s) -> Int64s:
    """first[0], first[0] + 1, ... for lengths[0] numbers, then the same for the next."""
    offsets = np.cumsum(lengths) - lengths
    numbers: Int64s = np.arange(lengths.sum()) + np.repeat(first - offsets, lengths)
    return numbers


def _power(numbers: Int64s, least: int) -> Int64s:
    """The power of two that reaches each number, counted from `least`."""
    powers: Int64s = np.ceil(np.log2(np.maximum(numbers, least) / least)).astype(np.int64)
    return powers
