"""One DEALER on the event loop: frames in, frames out, and word when it is lost. Knows no message.

A ZeroMQ socket's descriptor is edge-triggered and says only "look at me": every look drains the socket, and every send
looks once more, since a send may swallow the edge.
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

import zmq

from protocol.errors import PeerError
from protocol.sockets import connect_dealer

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]

_MAX_PER_TURN = 64  # messages taken before the event loop may do something else
_LOST = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class EngineSocket:
    """Good until it is lost or closed; a lost one is closed by its owner and never used again."""

    def __init__(
        self,
        context: Context,
        address: str,
        *,
        place: int,
        on_frames: Callable[[list[bytes]], None],
        on_drained: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frames = on_frames
        self._on_drained = on_drained
        self._on_lost = on_lost
        self._socket = connect_dealer(context, address, place)
        self._monitor = self._socket.get_monitor_socket(_LOST)
        self._loop.add_reader(self._socket.fileno(), self.drain)
        self._loop.add_reader(self._monitor.fileno(), self._look_at_monitor)
        self._loop.call_soon(self._look_at_monitor)  # an edge from before the reader was set is lost

    def send(self, frame: bytes) -> None:
        """Queue one frame. Raises `PeerError` when the queue is full: the peer has stopped reading."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            raise PeerError("the engine core does not read: its queue is full") from None
        if _has_mail(self._socket):
            self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Hand over what has come, and say when that was all."""
        for _ in range(_MAX_PER_TURN):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._on_frames(frames)
        else:
            self._loop.call_soon(self.drain)
        self._on_drained()

    def _look_at_monitor(self) -> None:
        if not self._monitor.closed and _has_mail(self._monitor):
            self._on_lost("the connection was lost")

    def close(self) -> None:
        """Give it back at once: what is still queued is thrown away."""
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_reader(self._monitor.fileno())
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)


def _has_mail(socket: zmq.Socket[bytes]) -> bool:
    return bool(cast(int, socket.get(zmq.EVENTS)) & zmq.POLLIN)
