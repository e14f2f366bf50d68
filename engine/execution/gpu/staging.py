"""A step's numbers on their way to the GPU: packed into pinned memory and sent in one copy that nobody waits for.

There are three pinned buffers in turn, each reused only after its copy's event. The device side is one buffer: copies
and kernels are on one stream, so that the next step's numbers arrive after the last step's kernels have read theirs.

    device   | fixed: the same places in every step, for CUDA graphs | free: what else the step has |
"""

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s

_TURNS = 3


class Staging:
    """`fixed` + `free` int32 numbers at most a send."""

    def __init__(self, *, fixed: int, free: int, device: torch.device) -> None:
        self.capacity = free
        self.device = torch.empty(fixed + free, dtype=torch.int32, device=device)
        self._fixed = fixed
        self._pinned = [torch.zeros(fixed + free, dtype=torch.int32, pin_memory=True) for _ in range(_TURNS)]
        self._arrays = [buffer.numpy() for buffer in self._pinned]
        self._events = [torch.cuda.Event() for _ in range(_TURNS)]
        self._turn = 0
        self._used = fixed

    def begin(self) -> Int32s:
        """The fixed part to be filled; what was put for the last send is over."""
        self._turn = (self._turn + 1) % _TURNS
        self._events[self._turn].synchronize()  # a copy from three sends ago: long over
        self._used = self._fixed
        return self._arrays[self._turn][: self._fixed]

    def put(self, numbers: Int32s) -> Tensor:
        """int32 [n] beyond the fixed part: where the numbers will be on the device once `send` was called."""
        first, self._used = self._used, self._used + len(numbers)
        self._arrays[self._turn][first : self._used] = numbers
        return self.device[first : self._used]

    def send(self) -> None:
        """Start the copy on the current stream."""
        self.device[: self._used].copy_(self._pinned[self._turn][: self._used], non_blocking=True)
        self._events[self._turn].record()


def joined(arrays: list[Int32s]) -> Int32s:
    """One array of them all."""
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
