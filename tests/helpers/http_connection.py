"""One server connection without a socket: bytes in through `send`, bytes out in `written`."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from frontend.connections import Connections
from frontend.load import Load, load_of
from frontend.settings import Settings
from protocol.scoreboard import Scoreboard

Event = MutableMapping[str, Any]

LIMITS = Settings(
    model="fake",
    max_header_bytes=1024,
    max_header_fields=10,
    max_body_bytes=2048,
    header_timeout=0.05,
    body_timeout=0.05,
    disable_uvicorn_access_log=True,
)


class FakeTransport(asyncio.Transport):
    """What uvloop's would do with what is written, but for the network."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_ended = False  # no more will be written
        self.is_paused = False
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.has_ended
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        self._closing = self.has_ended = True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Application:
    """Answers with the method, path and length of the body; what it saw is remembered."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.num_disconnects = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(
        self, scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        self.num_calls += 1
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.num_disconnects += 1
                return
            body += event["body"]
            more = event["more_body"]
        await self.may_answer.wait()
        answer = f"{scope['method']} {scope['path']} {len(body)}".encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class ServerConnection:
    """A connection that was just accepted."""

    def __init__(self, settings: Settings = LIMITS, app: Any = None) -> None:
        self.app = app or Application()
        board = Scoreboard.create(num_api_servers=1, num_engines=0)
        self._row = board.api_row(0)
        load = Load(self._row)
        load.connection_accepted()
        self.protocol = Connections(self.app, settings, load).new()
        self.transport = FakeTransport()
        self.protocol.connection_made(self.transport)

    async def send(self, *pieces: bytes) -> None:
        """The client sends; the application runs as far as it can."""
        for piece in pieces:
            self.protocol.data_received(piece)
        for _ in range(200):
            await asyncio.sleep(0)

    def lose(self) -> None:
        """The client is gone."""
        self.was_closed_by_us = self.transport.is_closing()
        self.protocol.connection_lost(None)

    @property
    def load(self) -> int:
        return load_of(self._row)

    @property
    def written(self) -> bytes:
        return self.transport.written

    def error(self) -> tuple[int, dict[str, Any]]:
        """Status and error object of the last answer, which must be the connection's last."""
        assert self.transport.has_ended
        head, _, body = self.written[self.written.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
        return int(head.split()[1]), json.loads(body)["error"]
