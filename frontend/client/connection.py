"""One kept connection of the client: sends a request, feeds the answer to an `Exchange`. It knows no JSON."""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

import httptools

EventHandler = Callable[[bytes], None]
_EVENT_STREAM = b"text/event-stream"


class ClientError(Exception):
    """The endpoint could not be reached or its answer broke off; the message is one sentence."""


class Exchange:
    """One answer as it arrives. The data of server-sent events goes to `on_event` at once, any other body is kept.

    An event of the APIs that we talk to is one `data:` line; comments and event names are passed over.
    """

    def __init__(self, on_event: EventHandler | None) -> None:
        self.status = 0
        self.body = b""
        self.streams = False
        self._on_event = on_event
        self._partial_line = b""

    def on_content_type(self, value: bytes) -> None:
        self.streams = self._on_event is not None and value.lower().startswith(_EVENT_STREAM)

    def on_body(self, data: bytes) -> None:
        if self._on_event is None or not self.streams:
            self.body += data
            return
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._on_event(line[5:].strip())


class Connection(asyncio.Protocol):
    """One exchange at a time; `reusable` says whether another may follow."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._exchange: Exchange | None = None
        self._parser: _ResponseParser | None = None
        self._done: asyncio.Future[None] | None = None
        self.reusable = False

    async def exchange(self, request: bytes, answer: Exchange) -> None:
        """Send the request and wait until the whole answer went into `answer`. Raises `ClientError`.

        Cancelled half-way, the connection is not reusable: the caller ends it, and the server sees its client leave.
        """
        self.reusable = False
        self._exchange = answer
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done

    def is_quiet(self) -> bool:
        """Whether another exchange may follow now: a server's close shows on the socket before the loop sees it."""
        if not self.reusable:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._transport.abort()

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._parser is None:  # an answer that nobody asked for, such as a 408 on an idle connection
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__  # what the event handler raised, if it was that
            self._fail(cause if isinstance(cause, ClientError) else ClientError(f"the answer is no HTTP: {error}"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._fail(ClientError(f"the connection ended before the answer did{f': {exc}' if exc else ''}"))

    # --- called by the parser ---

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type" and self._exchange is not None:
            self._exchange.on_content_type(value)

    def on_headers_complete(self) -> None:
        if self._exchange is not None and self._parser is not None:
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.on_body(body)

    def on_message_complete(self) -> None:
        if self._parser is None or self._done is None or self._done.done():
            return
        self.reusable = self._parser.should_keep_alive()
        self._exchange = self._parser = None
        self._done.set_result(None)

    def _fail(self, error: ClientError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class _ResponseParser(Protocol):
    """What we use of httptools, which ships no types that mypy could see."""

    def feed_data(self, data: bytes) -> None: ...

    def get_status_code(self) -> int: ...

    def should_keep_alive(self) -> bool: ...
