"""Whose fault it is: the two errors that the protocol itself can raise."""


class InvalidField(ValueError):
    """A request asks for what is out of bounds: `field` is its name in the API, the message names the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class PeerError(Exception):
    """The other end broke the protocol (an undecodable frame, an unknown tag, a sequence gap): ends that peer only."""
