"""How each slot samples, on the device, in memory of fixed size; written only when rows join a step.

All numbers of the rows that join travel in one copy and are put into place by one launch, and so are their lists.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s, SlotSetup
from engine.config import EnginePlan
from engine.execution.gpu.sampling_layout import BEFORE, FLOATS, INTS, RECORD, RECORD_WIDTH, list_widths
from engine.execution.gpu.staging import Staging, joined
from engine.execution.slot_work import temperature_of
from engine.kernels.logit_rules import RuleTables
from engine.kernels.penalties_triton import PenaltyTables
from engine.kernels.sampling import SlotParameters
from engine.kernels.slot_numbers import install_numbers
from engine.kernels.step_state import install_tokens

_LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Numbers that stand side by side in the lists."""

    place: int
    numbers: Int32s


@dataclass(frozen=True, slots=True, kw_only=True)
class _PutRuns:
    """R runs among the numbers of a send; all int32."""

    places: Tensor  # [R] in the lists
    starts: Tensor  # [R] in `numbers`
    lengths: Tensor  # [R]
    numbers: Tensor
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Rows that take slots, among the numbers of a send."""

    slots: Tensor  # int32 [n]
    numbers: Tensor  # int32 [n, RECORD_WIDTH]
    lists: _PutRuns | None


class SamplingTables:
    def __init__(self, plan: EnginePlan, device: torch.device) -> None:
        widths = list_widths(plan.vocab_size)
        firsts = np.cumsum([0, *widths.values()]).tolist()
        self._vocab_size = plan.vocab_size
        self._firsts = dict(zip(widths, firsts, strict=False))
        self._line_width = firsts[-1]
        self.numbers = torch.zeros(RECORD_WIDTH, plan.max_num_seqs, dtype=torch.int32, device=device)
        self.lists = torch.zeros(plan.max_num_seqs, self._line_width, dtype=torch.int32, device=device)
        parts = dict(zip(widths, self.lists.split(list(widths.values()), 1), strict=True))
        vectors = self._vectors()
        self.parameters = SlotParameters(
            seeds=self.numbers[:2].view(-1).view(torch.int64),
            temperature=vectors["temperature"],
            top_k=vectors["top_k"],
            top_p=vectors["top_p"],
            min_p=vectors["min_p"],
        )
        self.penalties = PenaltyTables(
            prompt_lens=vectors["prompt_len"],
            repetition=vectors["repetition"],
            presence=vectors["presence"],
            frequency=vectors["frequency"],
        )
        self.rules = RuleTables(
            prompt_lens=vectors["prompt_len"],
            min_ends=vectors["min_end"],
            limited=vectors["limited"],
            num_biases=vectors["num_biases"],
            num_words=vectors["num_words"],
            **parts | {"bias_values": parts["bias_values"].view(torch.float32)},
        )

    def num_sent(self, setup: SlotSetup) -> int:
        """At most so many numbers does `put` put for the row."""
        s, mask = setup.sampling, -(-self._vocab_size // 32)
        masks = (s.allowed_token_ids is not None) + (s.min_tokens > 0)
        words = len(s.bad_words) * (2 + BEFORE)
        return 1 + RECORD_WIDTH + masks * mask + 2 * len(s.logit_bias) + words + 3 * len(self._firsts)

    def put(self, setups: list[SlotSetup], staging: Staging) -> Joining:
        """Everything that the slots' former rows asked for is to be replaced, or no longer read."""
        slots = staging.put(np.array([setup.slot for setup in setups], np.int32))
        records = np.array([_record(setup) for setup in setups], RECORD)
        numbers = staging.put(records.view(np.int32)).view(len(setups), RECORD_WIDTH)
        runs = [run for setup in setups for run in self._runs(setup)]
        return Joining(slots=slots, numbers=numbers, lists=_put_runs(runs, staging) if runs else None)

    def install(self, joining: Joining) -> None:
        """Once what was put has been sent."""
        install_numbers(self.numbers, joining.slots, joining.numbers)
        if joining.lists is not None:
            runs = joining.lists
            # As a table of lines one number wide: a run goes on through the lines after its own.
            install_tokens(self.lists.view(-1, 1), runs.places, runs.starts, runs.lengths, runs.numbers, runs.longest)

    def _vectors(self) -> dict[str, Tensor]:
        lines = dict(zip(FLOATS + INTS, self.numbers[2:], strict=True))
        return lines | {name: lines[name].view(torch.float32) for name in FLOATS}

    def _runs(self, setup: SlotSetup) -> Iterator[_Run]:
        s = setup.sampling
        if s.allowed_token_ids is not None:
            yield self._run(setup, "allowed", _mask(s.allowed_token_ids, self._vocab_size))
        if s.min_tokens and setup.stop_ids:
            yield self._run(setup, "stops", _mask(setup.stop_ids, self._vocab_size))
        if s.logit_bias:
            yield self._run(setup, "bias_ids", np.array(list(s.logit_bias), np.int32))
            yield self._run(setup, "bias_values", np.array(list(s.logit_bias.values()), np.float32).view(np.int32))
        if s.bad_words:
            yield self._run(setup, "word_lasts", np.array([word[-1] for word in s.bad_words], np.int32))
            yield self._run(setup, "word_counts", np.array([len(word) - 1 for word in s.bad_words], np.int32))
            yield self._run(setup, "word_befores", np.array([_before(word) for word in s.bad_words], np.int32).ravel())

    def _run(self, setup: SlotSetup, name: str, numbers: Int32s) -> _Run:
        return _Run(place=setup.slot * self._line_width + self._firsts[name], numbers=numbers)


def _record(setup: SlotSetup) -> tuple[float, ...]:
    s = setup.sampling
    return (
        setup.seed,
        temperature_of(setup),
        s.top_p,
        s.min_p,
        s.presence_penalty,
        s.frequency_penalty,
        s.repetition_penalty,
        s.top_k,
        setup.prompt_len,
        min(setup.prompt_len + s.min_tokens, _LARGEST) if setup.stop_ids else 0,
        s.allowed_token_ids is not None,
        len(s.logit_bias),
        len(s.bad_words),
    )


def _mask(ids: tuple[int, ...], vocab_size: int) -> Int32s:
    """A bit for each id, the first in the lowest place."""
    bits = np.zeros(-(-vocab_size // 32) * 32, np.uint8)
    bits[list(ids)] = 1
    return np.packbits(bits, bitorder="little").view("<i4")


def _before(word: tuple[int, ...]) -> list[int]:
    """What stands before a word's last token, the nearest first."""
    return [*reversed(word[:-1]), *[-1] * (BEFORE - len(word) + 1)]


def _put_runs(runs: list[_Run], staging: Staging) -> _PutRuns:
    lengths = np.array([len(run.numbers) for run in runs], np.int32)
    places = np.array([run.place for run in runs], np.int32)
    return _PutRuns(
        places=staging.put(places),
        starts=staging.put(np.cumsum(lengths, dtype=np.int32) - lengths),
        lengths=staging.put(lengths),
        numbers=staging.put(joined([run.numbers for run in runs])),
        longest=int(lengths.max()),
    )
