"""What each slot's row asks of the sampler beyond an argmax, on the host: a step does nothing that no row asks for."""

import numpy as np
import numpy.typing as npt

from engine.batch import Bools, Int64s, SlotSetup
from engine.config import EnginePlan

# Kinds of work, as bits.
RANDOM, TOP_K, TOP_P, MIN_P, PENALTIES, BIAS, ALLOWED, BAD_WORDS = (1 << bit for bit in range(8))
RULES = BIAS | ALLOWED | BAD_WORDS

MIN_TEMPERATURE = 1e-5  # below it a row is greedy: dividing by less would overflow


class SlotWork:
    def __init__(self, plan: EnginePlan) -> None:
        slots = plan.max_num_seqs
        self.kinds: npt.NDArray[np.uint8] = np.zeros(slots, np.uint8)
        self.num_logprobs = np.full(slots, -1, np.int32)  # -1: none wanted
        self.prompt_len = np.zeros(slots, np.int64)
        self.min_end = np.zeros(slots, np.int64)  # the first position at which stop ids may be drawn

    def install(self, setup: SlotSetup) -> None:
        slot, s = setup.slot, setup.sampling
        self.kinds[slot] = _kinds(setup)
        self.num_logprobs[slot] = -1 if s.logprobs is None else s.logprobs
        self.prompt_len[slot] = setup.prompt_len
        self.min_end[slot] = setup.prompt_len + s.min_tokens if setup.stop_ids else 0

    def early(self, slots: Int64s, positions: Int64s) -> Bools:
        """Which rows cannot draw their stop ids at these positions."""
        early: Bools = positions < self.min_end[slots]
        return early


def temperature_of(setup: SlotSetup) -> float:
    """0: the row is greedy."""
    asked = setup.sampling.temperature
    return asked if asked >= MIN_TEMPERATURE else 0.0


def _kinds(setup: SlotSetup) -> int:
    s, random = setup.sampling, temperature_of(setup) > 0
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
