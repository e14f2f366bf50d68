"""The engine core's side of the sockets: peers, their handshakes, and messages in and out. Knows no scheduling.

A ROUTER cannot drop one peer, so a peer that breaks a rule, stops reading or is gone is *ended* here: its identity is
forgotten, its later frames are thrown away, and the core is told once, so that its rows go back.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec
import zmq

from engine.request import Row
from protocol.codec import decode_to_engine, encode
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    Heartbeat,
    Hello,
    PromptLogprobs,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sockets import place_of

log = logging.getLogger("headrace.engine.mailbox")

_MAX_ENDED = 1024  # identities remembered only so that a late frame is not taken for a stranger's
_MAX_MAIL_S = 0.005  # spent on mail before the next step, so that a flood of it cannot hold the batch up

_MORE, _LAST = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK)  # once: enum arithmetic costs as much as a send

Outgoing = StepOutput | PromptLogprobs | RequestFailed | Heartbeat | Welcome | EngineReady


@dataclass(slots=True, eq=False)
class Peer:
    """One API server's connection."""

    index: int  # `owner` in the slots; never reused
    identity: bytes
    place: int
    connection: Connection = field(default_factory=Connection)
    rows: dict[int, Row] = field(default_factory=dict)  # by number: those that have not ended


class Mailbox:
    """All peers of one epoch over one ROUTER."""

    def __init__(
        self, router: zmq.Socket[bytes], *, epoch: int, welcome: Welcome, on_peer_end: Callable[[Peer], None]
    ) -> None:
        self.router = router
        self.epoch = epoch
        self.peers: dict[int, Peer] = {}  # by index
        self.num_ended = 0
        self._welcome = welcome
        self._ready: EngineReady | None = None
        self.on_peer_end = on_peer_end
        self._by_identity: dict[bytes, Peer] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._next_index = 0

    def announce_ready(self, ready: EngineReady) -> None:
        """The engine can run a step: tell those who wait for it, and whoever comes later."""
        self._ready = ready
        for peer in list(self.peers.values()):
            if peer.connection.link is Link.WELCOMED:
                self.send(peer, ready)

    def take(self, handle: Callable[[Peer, Submit | Abort], None]) -> None:
        """Handle the mail that is there, without waiting; what is left after a while waits for the next call."""
        until = time.monotonic() + _MAX_MAIL_S
        while cast(int, self.router.getsockopt(zmq.EVENTS)) & zmq.POLLIN and time.monotonic() < until:
            identity, *frames = self.router.recv_multipart(zmq.NOBLOCK)
            self._receive(identity, frames, handle)

    def send(self, peer: Peer, message: Outgoing, logprobs: StepLogprobs | None = None) -> None:
        """Send under the peer's next sequence number. A peer that is gone (EHOSTUNREACH) or stuck (EAGAIN) is ended."""
        if peer.index not in self.peers:
            return
        numbered = msgspec.structs.replace(message, seq=peer.connection.next_sent)
        peer.connection.sent(numbered)
        router, frame = self.router, encode(numbered)
        try:
            router.send(peer.identity, _MORE)
            router.send(frame, _LAST if logprobs is None else _MORE)
            if logprobs is not None:
                router.send(encode(logprobs), _LAST)
        except zmq.ZMQError as error:
            self.end(peer, f"cannot send: {error}")

    def end(self, peer: Peer, reason: str) -> None:
        """Forget the peer and tell the core. Does nothing the second time."""
        if self.peers.pop(peer.index, None) is None:
            return
        del self._by_identity[peer.identity]
        self._ended[peer.identity] = None
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)
        self.num_ended += 1
        level = logging.WARNING if peer.rows else logging.DEBUG  # a drained API server just goes
        log.log(level, "API server %d: connection ended, %d rows aborted: %s", peer.place, len(peer.rows), reason)
        self.on_peer_end(peer)

    def _receive(self, identity: bytes, frames: list[bytes], handle: Callable[[Peer, Submit | Abort], None]) -> None:
        if identity in self._ended:
            return
        peer = self._by_identity.get(identity)
        try:
            message = decode_to_engine(frames)
            if peer is None:
                peer = self._greet(identity, message)
            peer.connection.received(message)
            if isinstance(message, Hello):
                self._answer(peer, message)
                return
            if message.epoch != self.epoch:
                raise PeerError(f"{type(message).__name__} is for another epoch")
            handle(peer, message)
        except PeerError as error:
            if peer is None:
                log.warning("a stranger's frames were thrown away: %s", error)
            else:
                self.end(peer, str(error))

    def _greet(self, identity: bytes, message: ToEngine) -> Peer:
        if not isinstance(message, Hello):
            raise PeerError(f"{type(message).__name__} came before Hello")
        peer = Peer(self._next_index, identity, place_of(identity))
        self._next_index += 1
        self.peers[peer.index] = self._by_identity[identity] = peer
        return peer

    def _answer(self, peer: Peer, hello: Hello) -> None:
        self.send(peer, self._welcome)  # whatever their version: ours stands in it, for their log
        if hello.version != PROTOCOL_VERSION:
            raise PeerError(f"protocol version {hello.version}, not {PROTOCOL_VERSION}")
        if self._ready is not None:
            self.send(peer, self._ready)
