"""How each slot samples, for torch: its parameters as vectors, and the noise keys of its tokens."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.batch import Int64s, SlotSetup
from engine.config import EnginePlan
from engine.execution.slot_work import temperature_of

UInt64s = npt.NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)


class SlotSampling:
    def __init__(self, plan: EnginePlan, device: torch.device) -> None:
        slots = plan.max_num_seqs
        self._seeds = np.zeros(slots, np.uint64)
        names = ("temperature", "top_p", "min_p", "presence", "frequency", "repetition")
        self._numbers = {name: torch.zeros(slots, device=device) for name in names}
        self._top_k = torch.zeros(slots, dtype=torch.int64, device=device)

    def install(self, setup: SlotSetup) -> None:
        slot, s = setup.slot, setup.sampling
        self._seeds[slot] = setup.seed
        self._top_k[slot] = s.top_k
        penalties = (s.presence_penalty, s.frequency_penalty, s.repetition_penalty)
        values = (temperature_of(setup), s.top_p, s.min_p, *penalties)
        for vector, value in zip(self._numbers.values(), values, strict=True):
            vector[slot] = value

    def number(self, name: str, slots: Tensor) -> Tensor:
        return self._numbers[name].index_select(0, slots)

    def top_k(self, slots: Tensor) -> Tensor:
        return self._top_k.index_select(0, slots)

    def keys(self, slots: Int64s, positions: Int64s) -> Int64s:
        """Each row's noise key for the token at a position. Neighbouring seeds and positions have unrelated keys."""
        return _scramble(_scramble(self._seeds[slots]) + positions.astype(np.uint64) * _MIX).view(np.int64)


def _scramble(numbers: UInt64s) -> UInt64s:
    """SplitMix64's finisher."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
