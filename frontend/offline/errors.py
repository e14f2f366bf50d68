"""What can go wrong with the engine under a Python program. What is wrong with a request is a plain ValueError."""

from frontend.errors import ApiError
from protocol.errors import InvalidField


class EngineError(RuntimeError):
    """The engine core cannot start, has ended, or failed a request; the message is one sentence with the cause."""


def from_request_error(error: ApiError | InvalidField) -> Exception:
    """What a caller of `generate` is to get for what a client of the server would get."""
    if isinstance(error, InvalidField) or error.status == 400:
        return ValueError(error.message)
    return EngineError(error.message)
