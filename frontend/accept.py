"""Accepts connections from the socket that all API servers share, so that the least busy one takes the next.

Nobody coordinates: each API server reads the others' load from the scoreboard. The least busy one accepts at once; the
others look again a moment later, in the order of their load, and then accept whatever the scoreboard says. So a process
that hangs with little load costs its neighbours' clients a moment and starves nobody.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from frontend.load import Load, load_of
from protocol.scoreboard import Row, Scoreboard, State

logger = logging.getLogger("headrace.accept")

MAX_ACCEPTS_A_TURN = 16
_RANK_S = 0.001  # uvloop's timers count whole milliseconds: half of one is none (8 connections on 2 processes: 8 and 0)
_MAX_DELAY_S = 0.003
_NOT_READY_DELAY_S = 0.02
_OUT_OF_FILES_DELAY_S = 0.5
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """The accept loop of one API server, and nothing of what the connections are for."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], *, scoreboard: Scoreboard, place: int
    ) -> None:
        self.num_failed = 0  # connections that were accepted but could not be served
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._scoreboard = scoreboard
        self._row = scoreboard.api_row(place)
        self._load = Load(self._row)
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._listener, self._on_readable)

    def stop(self) -> None:
        """Accept no more. What was accepted is not touched."""
        self._loop.remove_reader(self._listener)
        if self._later is not None:
            self._later.cancel()

    def _on_readable(self) -> None:
        rank = accept_rank(self._scoreboard, self._row)
        if rank is None:
            self._pause(_NOT_READY_DELAY_S, self.start)
        elif rank > 0:
            self._pause(min(rank * _RANK_S, _MAX_DELAY_S), self._accept_late)
        else:
            self._accept_turn()

    def _pause(self, delay_s: float, then: Callable[[], None]) -> None:
        """Take the reader off meanwhile: it would be called in a spin as long as a connection waits."""
        self._loop.remove_reader(self._listener)
        self._later = self._loop.call_later(delay_s, then)

    def _accept_late(self) -> None:
        self.start()
        self._accept_turn()

    def _accept_turn(self) -> None:
        """Accept one, and then as many as still find this API server the least busy."""
        for _ in range(MAX_ACCEPTS_A_TURN):
            if not self._accept_one() or accept_rank(self._scoreboard, self._row) != 0:
                return

    def _accept_one(self) -> bool:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another API server was quicker, or the client is gone
        except OSError as error:
            self._cannot_accept(error)
            return False
        self._load.connection_accepted()
        task = self._loop.create_task(self._connect(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _OUT_OF_FILES:
            logger.error("no connection can be accepted for %g s: %s", _OUT_OF_FILES_DELAY_S, error.strerror)
            self._pause(_OUT_OF_FILES_DELAY_S, self.start)
        else:  # EINVAL: the supervisor has shut the listener down
            self.stop()

    async def _connect(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except Exception:  # noqa: BLE001 - one connection, whatever is wrong with it, must not stop the accepting
            logger.exception("a connection could not be served")
            self.num_failed += 1
            self._load.connection_settled()
            sock.close()


def accept_rank(scoreboard: Scoreboard, row: Row) -> int | None:
    """How many live API servers are less busy; None: leave it to them, since they are ready and this one is not."""
    live = [other for _, other in scoreboard.api_rows() if scoreboard.is_live(other)]
    ready = [other for other in live if other.get("state") == State.READY]
    if ready and row.get("state") != State.READY:
        return None
    load = load_of(row)
    return sum(load_of(other) < load for other in ready or live if other.get("state") != State.DRAINING)
