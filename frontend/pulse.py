"""The heartbeat of an API server: proves on the scoreboard that its event loop turns, and how late it is."""

import asyncio
import time
from email.utils import formatdate

from uvicorn.server import ServerState

from protocol.scoreboard import Row

INTERVAL_S = 0.25


class Pulse:
    """Beats from its making to `stop`."""

    def __init__(self, row: Row, server_state: ServerState) -> None:
        self._loop = asyncio.get_running_loop()
        self._row = row
        self._server_state = server_state
        self._due = self._loop.time()
        self._beat()

    def stop(self) -> None:
        self._handle.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        self._row.set("loop_lag_us", max(0, int((now - self._due) * 1e6)))
        self._row.beat()
        self._server_state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        self._due = now + INTERVAL_S
        self._handle = self._loop.call_at(self._due, self._beat)
