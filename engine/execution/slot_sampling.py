"""How each slot samples: its parameters as arrays, and flags that say which work a step can skip."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.batch import Int64s, SlotSetup
from engine.config import EnginePlan
from engine.kernels.sampling import SlotParameters

# Kinds of work, as bits: a step looks at the union over its rows and does nothing that no row asks for.
RANDOM, TOP_K, TOP_P, MIN_P, PENALTIES, BIAS, ALLOWED, BAD_WORDS = (1 << bit for bit in range(8))

MIN_TEMPERATURE = 1e-5  # below it a row is greedy: dividing by less would overflow

UInt64s = npt.NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)


class SlotSampling:
    def __init__(self, plan: EnginePlan, device: torch.device) -> None:
        slots = plan.max_num_seqs
        self.work = np.zeros(slots, np.uint8)
        self.num_logprobs = np.full(slots, -1, np.int32)  # -1: none wanted
        self.prompt_len = np.zeros(slots, np.int64)
        self.min_end = np.zeros(slots, np.int64)  # the first position at which stop ids may be drawn
        self._seeds = np.zeros(slots, np.uint64)
        names = ("temperature", "top_p", "min_p", "presence", "frequency", "repetition")
        self._numbers = {name: torch.zeros(slots, device=device) for name in names}
        self._top_k = torch.zeros(slots, dtype=torch.int32, device=device)
        self._device_seeds = torch.zeros(slots, dtype=torch.int64, device=device)

    def install(self, setup: SlotSetup) -> None:
        slot, s = setup.slot, setup.sampling
        self.work[slot] = _work(setup)
        self.num_logprobs[slot] = -1 if s.logprobs is None else s.logprobs
        self.prompt_len[slot] = setup.prompt_len
        self.min_end[slot] = setup.prompt_len + s.min_tokens if setup.stop_ids else 0
        self._seeds[slot] = setup.seed
        self._top_k[slot] = s.top_k
        self._device_seeds[slot] = int(np.uint64(setup.seed).astype(np.int64))
        temperature = s.temperature if s.temperature >= MIN_TEMPERATURE else 0.0
        values = (temperature, s.top_p, s.min_p, s.presence_penalty, s.frequency_penalty, s.repetition_penalty)
        for vector, value in zip(self._numbers.values(), values, strict=True):
            vector[slot] = value

    def number(self, name: str, slots: Tensor) -> Tensor:
        return self._numbers[name].index_select(0, slots)

    def top_k(self, slots: Tensor) -> Tensor:
        return self._top_k.index_select(0, slots).long()

    def parameters(self) -> SlotParameters:
        """The vectors themselves, for kernels that look a row's parameters up by its slot."""
        numbers = self._numbers
        return SlotParameters(
            temperature=numbers["temperature"],
            top_k=self._top_k,
            top_p=numbers["top_p"],
            min_p=numbers["min_p"],
            seeds=self._device_seeds,
        )

    def keys(self, slots: Int64s, positions: Int64s) -> Int64s:
        """Each row's noise key for the token at a position. Neighbouring seeds and positions have unrelated keys."""
        return _scramble(_scramble(self._seeds[slots]) + positions.astype(np.uint64) * _MIX).view(np.int64)


def _work(setup: SlotSetup) -> int:
    s = setup.sampling
    random = s.temperature >= MIN_TEMPERATURE
    asked = {
        RANDOM: random,
        TOP_K: random and s.top_k > 0,
        TOP_P: random and s.top_p < 1.0,
        MIN_P: random and s.min_p > 0.0,
        PENALTIES: bool(s.presence_penalty or s.frequency_penalty) or s.repetition_penalty != 1.0,
        BIAS: bool(s.logit_bias),
        ALLOWED: s.allowed_token_ids is not None,
        BAD_WORDS: bool(s.bad_words),
    }
    return sum(bit for bit, wanted in asked.items() if wanted)


def _scramble(numbers: UInt64s) -> UInt64s:
    """SplitMix64's finisher."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
