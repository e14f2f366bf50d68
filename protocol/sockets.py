"""How the ZeroMQ sockets are set up: limits and identities. Nothing here knows a message."""

import os
import struct

import zmq

from protocol.errors import PeerError

HIGH_WATER_MARK = 4096  # messages per peer and direction
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
HEARTBEAT_INTERVAL_S = 0.25
HEARTBEAT_TIMEOUT_S = 1.5
_RECONNECT_MS = 50
_HANDSHAKE_MS = 5_000

_IDENTITY = struct.Struct("<HQ")
_IDENTITY_MARK = b"H"  # an identity must not begin with a zero byte (RFC 28/REQREP)


def new_identity(place: int) -> bytes:
    """The identity of one new DEALER: (place, 64 random bits), never used again."""
    return _IDENTITY_MARK + _IDENTITY.pack(place, int.from_bytes(os.urandom(8), "little"))


def place_of(identity: bytes) -> int:
    """The place in an identity. Raises `PeerError` for one that `new_identity` did not make."""
    if len(identity) != 1 + _IDENTITY.size or identity[:1] != _IDENTITY_MARK:
        raise PeerError("malformed identity")
    place: int = _IDENTITY.unpack(identity[1:])[0]
    return place


def bind_router(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """The engine core's end. ROUTER_MANDATORY: a send to a dead peer is EHOSTUNREACH, to a stuck one EAGAIN."""
    socket = context.socket(zmq.ROUTER)
    _set_limits(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.bind(address)
    return socket


def connect_dealer(context: zmq.Context[zmq.Socket[bytes]], address: str, place: int) -> zmq.Socket[bytes]:
    """An API server's end, good for one epoch: on any trouble it is closed and a new one made."""
    socket = context.socket(zmq.DEALER)
    _set_limits(socket)
    socket.setsockopt(zmq.ROUTING_ID, new_identity(place))
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.connect(address)
    return socket


def _set_limits(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
