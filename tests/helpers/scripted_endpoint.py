"""An HTTP server whose answers a test writes byte by byte: what real servers only do on bad days is then a script."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Request"], AsyncIterator[bytes]]
CLOSE = b"\x00close"  # a piece that ends the connection


@dataclass(slots=True)
class Request:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Endpoint:
    """What a test sees of the server."""

    url: str
    requests: list[Request] = field(default_factory=list)
    num_connections: int = 0
    num_cut: int = 0  # connections that the client ended in the middle of an answer


@contextmanager
def scripted_endpoint(script: Script) -> Iterator[Endpoint]:
    """Serve `script` on loopback, in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    endpoint = Endpoint("")
    server = loop.run_until_complete(asyncio.start_server(_handler(endpoint, script), "127.0.0.1", 0))
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield endpoint
    finally:
        asyncio.run_coroutine_threadsafe(_shut(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def json_answer(value: object, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """One server-sent event as one HTTP chunk; a string is sent as it is."""
    data = value if isinstance(value, str) else json.dumps(value)
    return http_chunk(f"data: {data}\n\n".encode())


def completion_stream(num_tokens: int, *, prompt_tokens: int = 3, chat: bool = False) -> list[bytes]:
    """A whole, orderly answer."""
    pieces = [STREAM_HEAD]
    if chat:
        pieces.append(event({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}))
    for i in range(num_tokens):
        text = {"delta": {"content": f"w{i} "}} if chat else {"text": f"w{i} "}
        pieces.append(event({"choices": [{**text, "finish_reason": "length" if i == num_tokens - 1 else None}]}))
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": num_tokens}
    return [*pieces, event({"choices": [], "usage": usage}), event("[DONE]"), STREAM_END]


async def _shut(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _handler(endpoint: Endpoint, script: Script) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.num_connections += 1
        try:
            while request := await _read_request(reader):
                endpoint.requests.append(request)
                if not await _answer(endpoint, script(request), writer):
                    break
        finally:
            writer.close()

    return handle


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *fields = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(line, headers, json.loads(body) if body else None)


async def _answer(endpoint: Endpoint, pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> bool:
    try:
        async for piece in pieces:
            if piece == CLOSE:
                return False
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        endpoint.num_cut += 1
        return False
    return True
