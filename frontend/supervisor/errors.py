"""The one error of this package."""

from protocol.process import ExitStatus


class StartError(Exception):
    """The server cannot start; the message is one sentence for the user, the status is the server's."""

    def __init__(self, status: ExitStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
