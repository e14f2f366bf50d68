"""A response's body straight to the transport, past ASGI: the same bytes as through `send`, without its messages.

Head and end of the response still go through `send`. It is offered in the request's scope, by our own connections
only, and withdrawn where somebody's middleware would want to see the body.
"""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_EXTENSION = "headrace.direct_body"


def _nothing() -> None:
    """Nobody wants to know."""


class DirectBody:
    """Of one request and its response."""

    __slots__ = ("_cycle", "_transport", "on_flow", "on_gone")

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport) -> None:
        self.on_flow: Callable[[], None] = _nothing  # `is_paused` has changed
        self.on_gone: Callable[[], None] = _nothing  # the client is gone
        self._cycle = cycle
        self._transport = transport

    @property
    def is_paused(self) -> bool:
        """The client does not read, and as much is buffered for it as may be."""
        return self._cycle.flow.write_paused

    @property
    def can_write(self) -> bool:
        """The head is sent, and says that chunks follow."""
        return self._cycle.response_started and bool(self._cycle.chunked_encoding)

    def write(self, piece: bytes) -> None:
        """One chunk of the body, not empty. Never blocks; what is written while paused is buffered all the same."""
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call back when the client leaves, at once if it has left. The request's body has been read."""
        if self._cycle.disconnected:
            on_gone()
            return
        self.on_gone = on_gone
        self._cycle.flow.resume_reading()  # or a large body would leave us deaf: nobody calls `receive` any more


def offer(cycle: RequestResponseCycle, transport: asyncio.Transport) -> DirectBody:
    """To the application, in the request's scope."""
    direct = DirectBody(cycle, transport)
    scope = cast(dict[str, Any], cycle.scope)
    scope.setdefault("extensions", {})[_EXTENSION] = direct
    return direct


def offered(scope: MutableMapping[str, Any]) -> DirectBody | None:
    """What the connection offers, if it is one of ours."""
    found: DirectBody | None = scope.get("extensions", {}).get(_EXTENSION)
    return found


def withdraw(scope: MutableMapping[str, Any]) -> None:
    """What comes after in the application must use `send`."""
    scope.get("extensions", {}).pop(_EXTENSION, None)
