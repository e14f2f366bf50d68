"""How busy this API server is, counted on its scoreboard row where the others see it."""

from protocol.scoreboard import Row, Scoreboard, State

_MOST_OVER_MEAN = 1.1  # times the mean of the requests in flight, and more than one request above it


class Load:
    """Connections that have sent no request yet, and requests in flight. One between two requests weighs nothing."""

    __slots__ = ("_num_leaving", "_row", "_scoreboard")

    def __init__(self, row: Row, scoreboard: Scoreboard | None = None) -> None:
        """Without a scoreboard there are no neighbours."""
        self._row = row
        self._scoreboard = scoreboard
        self._num_leaving = 0  # requests in flight whose connections are given away after them

    def connection_accepted(self) -> None:
        """Raised in the accept callback itself, so that the next accept already counts it."""
        self._row.add("unsent_connections")

    def connection_settled(self) -> None:
        """Its first request began, or it is gone without one."""
        self._row.add("unsent_connections", -1)

    def request_began(self) -> bool:
        """True: the connection should be closed after the answer, so that its client finds a less busy API server.

        Accepting is balanced, but clients that keep connections in a pool are accepted once and then stay for good.
        """
        self._row.add("in_flight")
        leaves = self._is_above_share()
        self._num_leaving += leaves
        return leaves

    def request_ended(self, *, leaves: bool) -> None:
        """`leaves` is what `request_began` answered."""
        self._row.add("in_flight", -1)
        self._num_leaving -= leaves

    def _is_above_share(self) -> bool:
        staying = self._row.get("in_flight") - self._num_leaving
        if self._scoreboard is None or staying <= 1:
            return False
        rows = [row for _, row in self._scoreboard.api_rows() if row.get("state") == State.READY]
        if len(rows) < 2:
            return False
        loads = [load_of(row) for row in rows if self._scoreboard.is_live(row)]
        mean = sum(loads) / max(1, len(loads))
        return staying > max(_MOST_OVER_MEAN * mean, mean + 1)


def load_of(row: Row) -> int:
    """What the accept rule compares."""
    return row.get("unsent_connections") + row.get("in_flight")
