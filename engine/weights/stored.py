"""From numbers in a file to a tensor on any device, in pieces that fit the CPU's cache, without a whole copy between.

Each thread has two buffers: while the device fetches one by itself, the file is read into the other. Files are read
rather than mapped: a page fault for every 64 KiB costs more than the copy.
"""

import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.models.config_json import ModelError

PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor's numbers lie, one after the other."""

    path: Path
    offset: int
    dtype: torch.dtype


class StoredReader:
    """May be used by several threads."""

    def __init__(self, piece_bytes: int = PIECE_BYTES) -> None:
        self._piece_bytes = piece_bytes
        self._of_thread = threading.local()

    def read(self, stored: Stored, out: Tensor) -> None:
        """Fill `out`, whose type may be another. On a GPU the copies are on the current stream, not waited for."""
        itemsize, flat = stored.dtype.itemsize, out.view(-1)
        step = self._piece_bytes // itemsize
        with stored.path.open("rb", buffering=0) as file:
            for start in range(0, len(flat), step):
                part = flat[start : start + step]
                buffer = next(self._buffers(out.device))
                buffer.fill(file.fileno(), stored.offset + start * itemsize, len(part) * itemsize, stored.path)
                # Sent as it is stored: the device converts faster than we do.
                part.copy_(buffer.numbers(stored.dtype, len(part)).to(out.device, non_blocking=True))
                buffer.mark_sent()

    def _buffers(self, device: torch.device) -> "Iterator[_Buffer]":
        """This thread's two, in turn."""
        if not hasattr(self._of_thread, "turns"):
            self._of_thread.turns = itertools.cycle([_Buffer(self._piece_bytes, device) for _ in range(2)])
        turns: Iterator[_Buffer] = self._of_thread.turns
        return turns


class _Buffer:
    """For a GPU: pinned, so that it fetches by itself, and filled again only after that."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._tensor = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self._bytes: memoryview = self._tensor.numpy().data
        self._sent = torch.cuda.Event() if on_gpu else None

    def fill(self, fd: int, offset: int, count: int, path: Path) -> None:
        if self._sent is not None:
            self._sent.synchronize()
        done = 0
        while done < count:
            got = os.preadv(fd, [self._bytes[done:count]], offset + done)
            if not got:
                raise ModelError(f"{path} became shorter while it was read")
            done += got

    def numbers(self, dtype: torch.dtype, count: int) -> Tensor:
        return self._tensor[: count * dtype.itemsize].view(dtype)

    def mark_sent(self) -> None:
        if self._sent is not None:
            self._sent.record()
