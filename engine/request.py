"""One row's life in the engine as a Python object. Touched when the row joins, prefills or leaves, never per token."""

from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from engine.batch import Int32s
from protocol.messages import Submit


class RowState(Enum):
    """Where a row is. ENDED is final."""

    NEW = auto()
    HELD = auto()  # a later choice of n: waits until the first one's prompt is in the prefix index
    WAITING = auto()
    RUNNING = auto()  # has a slot and blocks
    COLLECTING = auto()  # preempted: blocks given back, its last launched step is still out
    ENDED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class Row:
    """One choice of one `Submit`."""

    uid: int  # never reused in this engine's life: tells a slot's row from the one before
    owner: int  # index of the peer that submitted it
    number: int
    choice: int
    submit: Submit
    prompt_len: int
    max_total: int  # prompt and outputs: where finish reason `length` strikes
    tokens: Int32s  # prompt and outputs known when it last waited
    hashes: list[bytes]  # of the full blocks of `tokens`, as far as computed
    root: bytes  # of the hash chain
    order: tuple[int, int]  # (priority, arrival): the smallest is served first and preempted last
    arrived_at: float  # time.monotonic()
    state: RowState = RowState.NEW
    slot: int = -1  # valid while RUNNING or COLLECTING
    started: bool = False  # has been given its first token of this attempt
    num_cached: int = 0  # prompt tokens that the prefix cache spared at the first admission
    queued_s: float | None = None  # waiting before the first admission; None: still
    siblings: list["Row"] = field(default_factory=list)  # HELD rows that follow once this row's prompt is computed

    @property
    def num_known(self) -> int:
        """Tokens that a prefill of this row must cover."""
        return len(self.tokens)

    @property
    def seed(self) -> int:
        """The choice's own seed, uint64."""
        return (self.submit.sampling.seed + self.choice) % 2**64

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Only the first choice computes them, and only until it was given a token."""
        return self.submit.prompt_logprobs is not None and self.choice == 0 and not self.started


def known_tokens(submit: Submit) -> Int32s:
    """Prompt and outputs so far of a `Submit`, int32 [n + m]."""
    return np.frombuffer(submit.prompt + submit.outputs, np.int32).copy()  # writable: torch would warn
