"""How busy this API server is, counted on its scoreboard row where the others see it."""

from protocol.scoreboard import Row


class Load:
    """Connections that have sent no request yet, and requests in flight. One between two requests weighs nothing."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    def connection_accepted(self) -> None:
        """Raised in the accept callback itself, so that the next accept already counts it."""
        self._row.add("unsent_connections")

    def connection_settled(self) -> None:
        """Its first request began, or it is gone without one."""
        self._row.add("unsent_connections", -1)

    def request_began(self) -> None:
        self._row.add("in_flight")

    def request_ended(self) -> None:
        self._row.add("in_flight", -1)


def load_of(row: Row) -> int:
    """What the accept rule compares."""
    return row.get("unsent_connections") + row.get("in_flight")
