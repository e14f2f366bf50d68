"""Lists of which each slot has its own number of entries, kept as one flat table so that a step reads them at once."""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


class SlotLists(Generic[Number]):
    """Per slot an array [n, columns]; looked up for many slots by a fixed number of array operations."""

    def __init__(self, num_slots: int, dtype: type[Number], columns: int = 1) -> None:
        self._num_slots = num_slots
        self._entries: dict[int, npt.NDArray[Number]] = {}
        self._empty: npt.NDArray[Number] = np.empty((0, columns), dtype)
        self._slots: Ints | None = None  # None: to be rebuilt
        self._flat = self._empty

    def set(self, slot: int, entries: npt.ArrayLike) -> None:
        """Replace the slot's list; an empty one is forgotten."""
        listed = np.asarray(entries, self._empty.dtype).reshape(-1, self._empty.shape[1])
        if len(listed):
            self._entries[slot] = listed
        elif self._entries.pop(slot, None) is None:
            return
        self._slots = None

    def of(self, slots: Ints) -> tuple[Ints, npt.NDArray[Number]]:
        """All entries of these slots: for each the index into `slots`, and the entry."""
        if self._slots is None:
            counts = [len(listed) for listed in self._entries.values()]
            self._slots = np.repeat(np.fromiter(self._entries, np.int64, len(counts)), counts)
            self._flat = np.concatenate([*self._entries.values(), self._empty])
        rows = np.full(self._num_slots, -1, np.int64)
        rows[slots] = np.arange(len(slots))
        found = rows[self._slots]
        kept = found >= 0
        return found[kept], self._flat[kept]
