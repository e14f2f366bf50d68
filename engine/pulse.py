"""The heartbeat of an engine core: to every peer, then on its scoreboard row. Knows neither rows nor blocks."""

import time

from engine.mailbox import Mailbox
from protocol.messages import Heartbeat
from protocol.scoreboard import Row
from protocol.sockets import HEARTBEAT_INTERVAL_S


class Pulse:
    """Beats when it is told to; says when that is due."""

    def __init__(self, mailbox: Mailbox, board: Row) -> None:
        self._mailbox = mailbox
        self._board = board
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def beat(self, beat: Heartbeat) -> None:
        """The board last: an API server that sees it there and has heard nothing was forgotten here."""
        self._next = time.monotonic() + HEARTBEAT_INTERVAL_S
        for peer in list(self._mailbox.peers.values()):
            self._mailbox.send(peer, beat)
        self._board.beat()
