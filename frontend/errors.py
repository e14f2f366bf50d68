"""What clients see when a request fails: one table of kinds, and OpenAI's JSON shape in one place.

It knows no HTTP framework, so that the connection's own limits can answer with it too.
"""

import math

import msgspec

from protocol.errors import InvalidField
from protocol.messages import RequestFailed

_INVALID = "invalid_request_error"
_OVERLOADED = "rate_limit_error"
_SERVER = "server_error"

# status -> (type, code): every status that Headrace answers with on its own account, and no other.
_KINDS: dict[int, tuple[str, str | None]] = {
    400: (_INVALID, None),
    401: (_INVALID, "invalid_api_key"),
    404: (_INVALID, "not_found"),
    405: (_INVALID, "method_not_allowed"),
    408: (_INVALID, "request_timeout"),
    413: (_INVALID, "body_too_large"),
    415: (_INVALID, "unsupported_media_type"),
    429: (_OVERLOADED, "overloaded"),
    431: (_INVALID, "header_too_large"),
    500: (_SERVER, "internal_error"),
    503: (_SERVER, "unavailable"),
}
RETRY_AFTER_S = 1.0  # where nothing better is known


class ApiError(Exception):
    """A failed request as its client sees it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        usual_type, usual_code = _KINDS[status]
        self.status = status
        self.message = message
        self.type = type or usual_type
        self.param = param
        self.code = code or usual_code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> bytes:
        """The JSON of OpenAI's error object; also the data of a stream's `error` event."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to the error itself, names in lower case as ASGI wants them."""
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode())]


def invalid(param: str | None, message: str, *, code: str | None = None) -> ApiError:
    """400: a field, named by `param`, cannot be served."""
    return ApiError(400, message, param=param, code=code)


def context_too_long(message: str, *, param: str) -> ApiError:
    """400 with OpenAI's code for a prompt, or prompt and answer, that the model's context cannot hold."""
    return ApiError(400, message, param=param, code="context_length_exceeded")


def wrong_key() -> ApiError:
    """401: no API key or a wrong one."""
    return ApiError(401, "A valid API key is needed: send it as Authorization: Bearer KEY.")


def unknown_path(path: str) -> ApiError:
    """404: no such route."""
    return ApiError(404, f"There is no route {path}; see /docs for those that exist.")


def unknown_model(name: str, known: tuple[str, ...]) -> ApiError:
    """404: no such model."""
    served = ", ".join(known)
    return ApiError(
        404, f"The model {name!r} does not exist here; served: {served}.", param="model", code="model_not_found"
    )


def wrong_method(method: str, path: str) -> ApiError:
    """405."""
    return ApiError(405, f"{method} is not a method of {path}; see /docs.")


def too_slow(what: str, limit_s: float) -> ApiError:
    """408: header or body did not arrive in time."""
    return ApiError(408, f"The {what} did not arrive within {limit_s:g} s.")


def body_too_large(limit_bytes: int) -> ApiError:
    """413."""
    return ApiError(413, f"The body is larger than {limit_bytes} bytes, the limit set by --max-body-bytes.")


def wrong_media_type(media_type: str) -> ApiError:
    """415."""
    return ApiError(415, f"The body is {media_type or 'of no stated type'}; send Content-Type: application/json.")


def overloaded(message: str, *, retry_after_s: float | None = None) -> ApiError:
    """429: as much is waiting as the server lets wait."""
    return ApiError(429, message, retry_after_s=retry_after_s or RETRY_AFTER_S)


def header_too_large(message: str) -> ApiError:
    """431: the header block, or the number of its fields, is over the limit."""
    return ApiError(431, message)


def internal(message: str) -> ApiError:
    """500: the fault is the server's."""
    return ApiError(500, message)


def unavailable(state: str) -> ApiError:
    """503: the server is `starting`, `draining`, ...; the word is the code too."""
    return ApiError(503, f"The server is {state}; try again soon.", code=state, retry_after_s=RETRY_AFTER_S)


def from_exception(error: Exception) -> ApiError:
    """What a client is told of any exception: what is not meant for it stays in the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidField):
        return invalid(error.field, error.message)
    return internal("The server failed to handle this request; its log says why.")


def from_failure(failure: RequestFailed) -> ApiError:
    """What the engine's refusal or failure of a row means for the client."""
    if failure.code == "invalid":
        return invalid(failure.field, failure.message)
    if failure.code == "overloaded":
        return overloaded(failure.message, retry_after_s=failure.retry_after_s)
    if failure.code == "draining":
        return unavailable("draining")
    return internal(failure.message)
