"""The plain data between scheduler and runner: a step as planned, and a step as it came out. No torch.

The order of rows that get a token in a step ("sampled rows", S of them) is: the D decode rows, then those of the C
chunks that end their prompt (`chunk_samples`), each in the order of their arrays.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.sampling import Sampling

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """A row takes a slot: everything that the runner must know of it until it leaves. Clears what was there before."""

    slot: int
    sampling: Sampling
    seed: int  # uint64; the sampling's seed + choice
    prompt_len: int  # outputs (for penalties, min_tokens) start here
    stop_ids: tuple[int, ...]  # eos and stop ids; banned while fewer than min_tokens outputs exist
    tokens: Int32s  # [known tokens] prompt and outputs so far, the runner's history of the slot


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledBatch:
    """One step as the scheduler planned it. The arrays are the step's own copies; nobody writes them later."""

    step: int
    setups: list[SlotSetup]  # to install first
    # KV blocks given out since the last step: block_tables[block_slots, block_columns] = block_ids
    block_slots: Int32s
    block_columns: Int32s
    block_ids: Int32s
    # decode rows: input token = the slot's last token (known to the runner), written at KV position decode_positions
    decode_slots: Int32s  # [D]
    decode_positions: Int32s  # [D]
    # prefill chunks: input tokens = history[slot, start : start + length], written at those KV positions
    chunk_slots: Int32s  # [C]
    chunk_starts: Int32s  # [C]
    chunk_lengths: Int32s  # [C]
    chunk_samples: Bools  # [C] the chunk ends the row's known tokens, so that a new token is drawn
    chunk_prompt_logprobs: Int32s  # [C] -1: none; k >= 0: those of the prompt tokens, with k alternatives

    @property
    def num_tokens(self) -> int:
        return len(self.decode_slots) + int(self.chunk_lengths.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobRows:
    """Log-probabilities of the R sampled rows that asked, from the raw logits (before penalties and temperature)."""

    rows: Int32s  # [R] indices into the step's sampled rows
    logprobs: Float32s  # [R] of the drawn token
    ranks: Int32s  # [R] 1 = the most likely
    top_ids: Int32s  # [R, K] most likely first; K = the most that any of the rows asked for
    top_logprobs: Float32s  # [R, K]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobRows:
    """Log-probabilities of the prompt tokens at positions first .. first + n - 1 of one chunk's row."""

    chunk: int  # index into the batch's chunks
    first: int  # >= 1: the first token of a prompt has none
    logprobs: Float32s  # [n]
    ranks: Int32s  # [n]
    top_ids: Int32s  # [n, k]
    top_logprobs: Float32s  # [n, k]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What came out of one step."""

    tokens: Int32s  # [S]
    failed: Bools  # [S] the row's logits were not finite: its token means nothing, the row is to be failed
    logprobs: LogprobRows | None = None
    prompt_logprobs: list[PromptLogprobRows] = field(default_factory=list)


class Runner(Protocol):
    """Runs steps. The loop keeps at most `depth` launched steps uncollected while it launches the next one."""

    depth: int  # 0: launch() has computed the step when it returns (CPU); 1: run-ahead (GPU)

    def launch(self, batch: ScheduledBatch) -> None:
        """Start a step. Steps run in the order of their launch."""

    def collect(self) -> StepResult:
        """Wait for the oldest launched step that was not collected yet."""

    def prepare(self) -> bool:
        """One piece of work that makes later steps faster, while nothing runs; False: nothing is left to do."""
