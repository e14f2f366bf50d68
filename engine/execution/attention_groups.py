"""Puts a step's rows into groups of like lengths for attention; the loop is over groups, never over rows."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.execution.slot_tables import SlotTables
from engine.kernels.paged_attention import RowGroup
from engine.models.shape import ModelShape

Ints = npt.NDArray[np.int64]

# What one group may gather of a layer's KV cache; on the CPU it should stay in the last-level cache.
WORKSPACE_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}

# Below these, lengths are alike: padding costs less than another group would.
MIN_KEYS = 256
MIN_QUERIES = 4


class AttentionGrouper:
    def __init__(self, tables: SlotTables, shape: ModelShape, dtype: torch.dtype) -> None:
        workspace_bytes = WORKSPACE_BYTES[tables.device.type]
        bytes_per_key = 2 * shape.num_kv_heads * shape.head_dim * dtype.itemsize
        self._tables = tables
        self._share = shape.num_heads // shape.num_kv_heads
        self._max_keys = max(1, workspace_bytes // bytes_per_key)  # gathered by one group
        self._max_scores = workspace_bytes  # entries of one group's mask
        self._window = shape.sliding_window
        self._dtype = dtype

    def groups(self, slots: Ints, starts: Ints, lengths: Ints, first: Ints) -> list[RowGroup]:
        """For each row its slot, first KV position, number of tokens, and place among the step's tokens."""
        ends = starts + lengths
        return [
            self._group(slots[rows], starts[rows], lengths[rows], first[rows], whole=len(rows) == len(slots))
            for rows in self._alike(lengths, ends)
        ]

    def _alike(self, lengths: Ints, ends: Ints) -> Iterator[Ints]:
        """Rows whose counts of queries and keys differ by a factor of two at most, as many as the workspace takes."""
        classes = _power(lengths, MIN_QUERIES) * 64 + _power(ends, MIN_KEYS)
        for value in np.unique(classes):
            rows = np.flatnonzero(classes == value)
            keys = int(ends[rows].max())
            queries = int(lengths[rows].max())
            size = max(1, min(self._max_keys // keys, self._max_scores // (keys * queries * self._share)))
            for at in range(0, len(rows), size):
                yield rows[at : at + size]

    def _group(self, slots: Ints, starts: Ints, lengths: Ints, first: Ints, *, whole: bool) -> RowGroup:
        num_rows, num_queries = len(slots), int(lengths.max())
        width = -(-int((starts + lengths).max()) // self._tables.block_size)
        even = bool((lengths == num_queries).all())
        tokens = None if whole else self._place(_runs(first, lengths))
        places = None if even else self._place(_runs(np.arange(num_rows) * num_queries, lengths))
        blocks = self._tables.blocks.index_select(0, self._place(slots))[:, :width]
        return RowGroup(
            num_rows=num_rows,
            num_queries=num_queries,
            tokens=tokens,
            places=places,
            blocks=blocks.reshape(-1).long(),
            mask=self._mask(self._place(starts), num_queries, width * self._tables.block_size),
        )

    def _mask(self, starts: Tensor, num_queries: int, num_keys: int) -> Tensor:
        device = starts.device
        queries = (starts[:, None] + torch.arange(num_queries, device=device))[:, None, :, None]
        keys = torch.arange(num_keys, device=device)
        hidden = keys > queries
        if self._window is not None:
            hidden |= keys <= queries - self._window
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=device).masked_fill_(hidden, -torch.inf)
        return mask if num_queries == 1 else mask.repeat(1, 1, self._share, 1)

    def _place(self, numbers: Ints) -> Tensor:
        return torch.from_numpy(numbers).to(self._tables.device)


def _power(numbers: Ints, least: int) -> Ints:
    """The power of two that reaches each number, counted from `least`."""
    powers: Ints = np.ceil(np.log2(np.maximum(numbers, least) / least)).astype(np.int64)
    return powers


def _runs(first: Ints, lengths: Ints) -> Ints:
    """first[0], first[0] + 1, ... for lengths[0] numbers, then the same for the next."""
    offsets = np.cumsum(lengths) - lengths
    places: Ints = np.arange(lengths.sum()) + np.repeat(first - offsets, lengths)
    return places
