"""Requests to one endpoint over kept connections. It knows URLs and the key, but not what is asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from frontend.client.connection import ClientError, Connection, EventHandler, Exchange

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S = 10.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `body` is empty where it was a stream of events: those went to the handler."""

    status: int
    body: bytes
    streamed: bool


class HttpClient:
    """Any number of exchanges at the same time, each on a connection of its own; must be used on one event loop."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Raises ValueError for a URL that names no HTTP endpoint. A trailing /v1 may be there or not."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url} is no URL of a server; give one such as {DEFAULT_URL}")
        self.url = url
        self._host = parts.hostname
        self._port = parts.port or _PORTS[parts.scheme]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._fields = f"Host: {parts.netloc.rpartition('@')[2]}\r\n{key}Accept: */*\r\n"
        if not (self._prefix + self._fields).isascii():
            raise ValueError("the URL and the API key must be plain ASCII")
        self._idle: list[Connection] = []

    async def get(self, path: str) -> Answer:
        """GET, the whole answer. Raises `ClientError`."""
        return await self._send(f"GET {self._prefix}{path} HTTP/1.1\r\n{self._fields}\r\n".encode(), None)

    async def post(self, path: str, body: bytes, on_event: EventHandler | None = None) -> Answer:
        """POST a JSON body; a stream of events is handed to `on_event` one by one. Raises `ClientError`."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._fields}{length}\r\n"
        return await self._send(head.encode() + body, on_event)

    async def close(self) -> None:
        """Close the idle connections; those in use end with their exchange."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # a transport gives its socket back one turn of the loop after its abort

    async def _send(self, request: bytes, on_event: EventHandler | None) -> Answer:
        answer = Exchange(on_event)
        async with self._connection() as connection:
            await connection.exchange(request, answer)
        return Answer(answer.status, answer.body, answer.streams)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = self._idle_connection() or await self._connect()
        try:
            yield connection
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.abort()

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError as error:
            raise ClientError(f"no connection to {self.url} within {CONNECT_TIMEOUT_S:g} s") from error
        except ConnectionRefusedError as error:
            raise ClientError(f"no server listens at {self.url}") from error
        except OSError as error:
            raise ClientError(f"no connection to {self.url}: {error.strerror or error}") from error
        return connection
