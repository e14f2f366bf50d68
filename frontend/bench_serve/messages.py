"""What the command and its load processes say to each other: one JSON line a message."""

from typing import TypeAlias

import msgspec


class Timed(msgspec.Struct, frozen=True):
    """One request: its body, and when it is due, in seconds after the start."""

    body: msgspec.Raw
    due_s: float = 0.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that one load process has to do. It sends at `Go` and never has more than `concurrency` requests open."""

    url: str
    api_key: str | None
    path: str
    timeout_s: float
    concurrency: int
    requests: list[Timed]
    parent_pid: int


class Go(msgspec.Struct, frozen=True):
    """Start when the host's monotonic clock, which all processes share, shows this."""

    at_s: float


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The job is read and nothing is left to do before `Go`."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One request that ended. Times are seconds after the start; only one without `error` counts as served."""

    due_s: float
    first_s: float = 0.0  # the first event that holds output
    last_s: float = 0.0  # the last event of a choice
    end_s: float
    gaps_s: list[float] = []  # between events that hold output
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """No request is left. `busy` is the share of one core that this process used: near 1 it was the bottleneck."""

    busy: float


FromLoad: TypeAlias = Loaded | Sample | Finished
