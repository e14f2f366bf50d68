"""How a child and its supervisor live together: exit statuses, the control channel, and dying with the parent.

The control channel is one end of a Unix socketpair of sequenced packets (message boundaries are kept), inherited by
the child. EOF on it means that the other side is gone. Signals only take notes; what to do comes over this channel.
"""

import ctypes
import errno
import os
import signal
import socket
from enum import IntEnum
from typing import TypeAlias

import msgspec
from msgspec import Struct

MAX_CONTROL_BYTES = 65_536
_PR_SET_PDEATHSIG = 1


class ExitStatus(IntEnum):
    """What the server's exit status means. 128 + N: ended at once by a second signal N."""

    OK = 0
    WRONG_SETTINGS = 2
    CANNOT_START = 3
    ENGINE_GONE = 4
    API_SERVERS_GONE = 5


class _Control(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    pass


# --- to a child ------------------------------------------------------------------------------------------------------


class EngineStarted(_Control, frozen=True, kw_only=True, tag="engine_started"):
    """To API servers: connect here. A new epoch replaces the rank's old one."""

    rank: int
    epoch: int
    address: str


class EngineEnded(_Control, frozen=True, kw_only=True, tag="engine_ended"):
    """To API servers: this epoch is over; `cause` is for the log and the error that clients see."""

    rank: int
    epoch: int
    cause: str


class Drain(_Control, frozen=True, kw_only=True, tag="drain"):
    """To API servers: accept no more, let what has begun end within the seconds, then exit with 0."""

    timeout_s: float


class Stop(_Control, frozen=True, kw_only=True, tag="stop"):
    """To any child: end now, in order."""


# --- from a child ----------------------------------------------------------------------------------------------------


class PhaseDone(_Control, frozen=True, kw_only=True, tag="phase_done"):
    """A start-up phase is over. `detail` is shown beside it."""

    phase: str
    seconds: float
    detail: str = ""


class Ready(_Control, frozen=True, kw_only=True, tag="ready"):
    """An API server has its engine and serves; an engine core can run a step."""


class CannotStart(_Control, frozen=True, kw_only=True, tag="cannot_start"):
    """The child ends because of this; one sentence for the user."""

    status: int  # `ExitStatus`
    sentence: str


ToChild: TypeAlias = EngineStarted | EngineEnded | Drain | Stop
FromChild: TypeAlias = PhaseDone | Ready | CannotStart

_encoder = msgspec.msgpack.Encoder()
_to_child = msgspec.msgpack.Decoder(ToChild)
_from_child = msgspec.msgpack.Decoder(FromChild)


def control_pair() -> tuple[socket.socket, socket.socket]:
    """(the supervisor's end, the child's end); the child's is passed on by its number."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_control(channel: socket.socket, message: ToChild | FromChild) -> None:
    """Send one message. Raises OSError when the other side is gone, its queue full or the message too long."""
    data = _encoder.encode(message)
    if len(data) > MAX_CONTROL_BYTES:
        raise OSError(errno.EMSGSIZE, f"{type(message).__name__} has {len(data)} bytes, over {MAX_CONTROL_BYTES}")
    channel.send(data, socket.MSG_NOSIGNAL)


def receive_to_child(channel: socket.socket) -> ToChild | None:
    """The next message of the supervisor; None: it is gone. Raises BlockingIOError on a non-blocking channel."""
    data = channel.recv(MAX_CONTROL_BYTES)
    return _to_child.decode(data) if data else None


def receive_from_child(channel: socket.socket) -> FromChild | None:
    """The next message of a child; None: it closed its end. Raises BlockingIOError on a non-blocking channel."""
    data = channel.recv(MAX_CONTROL_BYTES)
    return _from_child.decode(data) if data else None


def die_with(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent's forking thread ends; exit if the parent was gone before that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent_pid:
        os._exit(ExitStatus.CANNOT_START)
