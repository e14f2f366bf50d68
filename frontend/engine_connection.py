"""One connection to one epoch, held to the protocol: greeting, order, numbers, epoch. Made once, lost once.

It knows rows only as messages.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from frontend.engine_socket import Context, EngineSocket
from protocol.codec import decode_from_engine, encode
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link
from protocol.messages import PROTOCOL_VERSION, FromEngine, Hello, StepLogprobs, ToEngine, Welcome
from protocol.sockets import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an epoch of an engine core is, and who we are to it."""

    context: Context
    address: str
    rank: int
    epoch: int
    place: int
    life: int
    # when the engine core last sent its heartbeats, by its own word: seconds of the monotonic clock
    beaten_at: Callable[[], float]


class ConnectionListener(Protocol):
    """Whose connection it is."""

    def on_message(self, message: FromEngine, logprobs: StepLogprobs | None) -> None: ...

    def on_drained(self) -> None: ...

    def on_lost(self, reason: str) -> None: ...


class EngineConnection:
    """Says hello by itself. After `on_lost`, or `close`, nothing more comes of it."""

    def __init__(self, endpoint: Endpoint, listener: ConnectionListener) -> None:
        self.last_heard = time.monotonic()
        self._endpoint = endpoint
        self._listener = listener
        self._order = Connection()
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._missed_beat = False  # at the last look
        self._socket = EngineSocket(
            endpoint.context,
            endpoint.address,
            place=endpoint.place,
            on_frames=self._on_frames,
            on_drained=listener.on_drained,
            on_lost=self.lose,
        )
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL_S, self._watch)
        self.send(Hello(seq=self.next_seq, version=PROTOCOL_VERSION, place=endpoint.place, life=endpoint.life))

    @property
    def is_ready(self) -> bool:
        return not self._is_closed and self._order.link is Link.READY

    @property
    def next_seq(self) -> int:
        """What the next message must be numbered."""
        return self._order.next_sent

    def send(self, message: ToEngine) -> None:
        """Never blocks: a connection that takes no more is lost."""
        self._order.sent(message)
        try:
            self._socket.send(encode(message))
        except PeerError as error:
            self.lose(str(error))

    def close(self) -> None:
        """Give it back without a word. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._timer.cancel()
            self._socket.close()

    def lose(self, reason: str) -> None:
        """It is no good any more: the listener makes another one."""
        if not self._is_closed:
            self.close()
            self._listener.on_lost(reason)

    def _on_frames(self, frames: list[bytes]) -> None:
        self.last_heard = time.monotonic()
        try:
            message, logprobs = decode_from_engine(frames)
            self._order.received(message)
            self._check(message)
            self._listener.on_message(message, logprobs)
        except PeerError as error:
            self.lose(str(error))

    def _check(self, message: FromEngine) -> None:
        if message.epoch != self._endpoint.epoch:
            raise PeerError(f"{type(message).__name__} of another epoch")
        if isinstance(message, Welcome) and message.version != PROTOCOL_VERSION:
            raise PeerError(f"it speaks protocol version {message.version}, this API server {PROTOCOL_VERSION}")

    def _watch(self) -> None:
        """Heartbeats that went to others and not to us: the engine core has ended us as a peer.

        Silence alone is none of our business. A long step is silent too, a death is seen by the socket, and a hung
        engine core is for the supervisor to judge. What came while our own loop was busy is looked at first, and what
        is still on its way gets until the next look: the board may be ahead of the first heartbeat after a long step.
        """
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL_S, self._watch)
        beaten_at = self._endpoint.beaten_at()
        self._socket.drain()
        missed_before = self._missed_beat
        self._missed_beat = self.is_ready and beaten_at - self.last_heard > HEARTBEAT_TIMEOUT_S
        if self._missed_beat and missed_before:
            self.lose(f"no heartbeat for {HEARTBEAT_TIMEOUT_S} s")
