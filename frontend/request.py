"""One generation as plain data: what is asked (ids and limits, no HTTP), and what comes back."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from protocol.sampling import Sampling

FinishReason = Literal["stop", "length", "abort", "tool_calls"]  # the last one only in answers


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt and how to go on from it."""

    prompt_ids: list[int]
    sampling: Sampling  # its seed is drawn already: every request has one
    num_choices: int = 1
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    prompt_logprobs: int | None = None
    salt: str = ""
    priority: int = 0
    label: str = ""  # the request id, for logs and errors only


@dataclass(slots=True, kw_only=True)
class TokenLogprob:
    """The log-probability of one token and its most likely alternatives, as (token id, log-probability, rank)."""

    token_id: int
    logprob: float
    rank: int
    top: list[tuple[int, float]]  # most likely first


@dataclass(slots=True, kw_only=True)
class Delta:
    """What one step (or several, where a stream lagged) added to one choice. The last one has a finish reason."""

    choice: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None  # parallel to token_ids, where asked for
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop token id or stop string that ended it


UNTIL_THE_END = sys.maxsize  # as a `Lane.interval`


class Lane:
    """How a sink takes one choice's tokens. Read at each token, and changed by the sink as it likes."""

    __slots__ = ("interval", "write")

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval  # tokens that are gathered, undecoded, before they are told as one delta
        # takes a delta that is text and nothing else, in place of `on_delta`: most are, and need no object
        self.write: Callable[[str], None] | None = None


class Sink(Protocol):
    """Where a generation's results go. Called on the event loop, from the engine's message itself: must not block."""

    def lane(self, choice: int) -> Lane:
        """Asked for once, when the generation is made."""

    def on_delta(self, delta: Delta) -> None:
        """One choice got longer, or ended."""

    def on_end(self) -> None:
        """Every choice has ended. Nothing comes after it."""

    def on_error(self, error: Exception) -> None:
        """The generation failed (`frontend.errors.ApiError`). Nothing comes after it."""
