"""What may follow what, as two tables without I/O: the life of a connection, and the life of a row within it.

Rules:
1. A connection begins with `Hello`; answered by `Welcome`, then by `EngineReady`; then rows may be submitted.
2. Each direction numbers its messages from 0 without a gap.
3. Every row that was submitted ends in exactly one of: a finish in a `StepOutput`, `RequestFailed`, or the end of its
   epoch or peer. Nothing of a row comes after its end.
4. An `Abort` may cross the end of its row: then it is answered by nothing.
"""

from enum import Enum, auto

from protocol.errors import PeerError
from protocol.messages import (
    Abort,
    EngineReady,
    FromEngine,
    Heartbeat,
    Hello,
    PromptLogprobs,
    RequestFailed,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)


class Link(Enum):
    """How far a connection has come."""

    NEW = auto()
    GREETED = auto()
    WELCOMED = auto()
    READY = auto()


_LINK: dict[Link, dict[type, Link]] = {
    Link.NEW: {Hello: Link.GREETED},
    Link.GREETED: {Welcome: Link.WELCOMED},
    Link.WELCOMED: {Heartbeat: Link.WELCOMED, EngineReady: Link.READY},
    Link.READY: {
        Submit: Link.READY,
        Abort: Link.READY,
        StepOutput: Link.READY,
        PromptLogprobs: Link.READY,
        RequestFailed: Link.READY,
        Heartbeat: Link.READY,
    },
}


class Connection:
    """One end's view of one connection: both ends pass every message that they send or receive through it."""

    __slots__ = ("link", "next_received", "next_sent")

    def __init__(self) -> None:
        self.link = Link.NEW
        self.next_sent = 0
        self.next_received = 0

    def sent(self, message: ToEngine | FromEngine) -> None:
        """Account for a message of ours. Raises `PeerError` when it breaks the rules: then the fault is ours."""
        if message.seq != self.next_sent:
            raise PeerError(f"{type(message).__name__} sent as {message.seq}, not {self.next_sent}")
        self._advance(type(message))
        self.next_sent += 1

    def received(self, message: ToEngine | FromEngine) -> None:
        """Account for a message of theirs. Raises `PeerError` on a sequence gap or an illegal order."""
        if message.seq != self.next_received:
            raise PeerError(f"sequence gap: {type(message).__name__} is {message.seq}, expected {self.next_received}")
        self._advance(type(message))
        self.next_received += 1

    def _advance(self, kind: type) -> None:
        target = _LINK[self.link].get(kind)
        if target is None:
            raise PeerError(f"{kind.__name__} is not legal while the connection is {self.link.name.lower()}")
        self.link = target


class Row(Enum):
    """How far a submitted row has come."""

    OPEN = auto()
    ABORTING = auto()
    ENDED = auto()


class RowEvent(Enum):
    """What can happen to a row."""

    OUTPUT = auto()
    FINISH = auto()
    FAILED = auto()
    ABORT = auto()
    EPOCH_END = auto()


_ROW: dict[Row, dict[RowEvent, Row]] = {
    Row.OPEN: {
        RowEvent.OUTPUT: Row.OPEN,
        RowEvent.FINISH: Row.ENDED,
        RowEvent.FAILED: Row.ENDED,
        RowEvent.ABORT: Row.ABORTING,
        RowEvent.EPOCH_END: Row.ENDED,
    },
    Row.ABORTING: {
        RowEvent.OUTPUT: Row.ABORTING,
        RowEvent.FINISH: Row.ENDED,
        RowEvent.FAILED: Row.ENDED,
        RowEvent.ABORT: Row.ABORTING,
        RowEvent.EPOCH_END: Row.ENDED,
    },
    Row.ENDED: {RowEvent.ABORT: Row.ENDED},
}


def next_row(state: Row, event: RowEvent) -> Row:
    """The state after the event. Raises `PeerError` where the table has none."""
    target = _ROW[state].get(event)
    if target is None:
        raise PeerError(f"{event.name.lower()} is not legal for a row that is {state.name.lower()}")
    return target
