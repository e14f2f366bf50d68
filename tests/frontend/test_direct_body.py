"""A streamed body on its way past ASGI: the same bytes, the same care for a client that does not read or leaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontend.app import build_app
from frontend.direct_body import offered
from frontend.gate import Gate
from frontend.services import Services
from frontend.settings import Settings
from frontend.sse import DONE, EventStream
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.http_connection import LIMITS, ServerConnection
from tests.helpers.serving import on_loop, serving, until

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
EVENTS = [b"data: a\n\n", b"data: " + b"b" * 300 + b"\n\n", "data: ü\n\n".encode()]


def streaming_app(*, direct: bool, seen: list[EventStream]) -> Any:
    """Streams what its test writes to `seen[0]`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = EventStream(keep_alive_s=60, direct=offered(scope) if direct else None)
        seen.append(stream)
        await stream.send_to(send)

    return app


@pytest.mark.parametrize("request_bytes", [GET, GET.replace(b"1.1", b"1.0"), GET.replace(b"GET", b"HEAD")])
def test_the_bytes_are_those_of_asgi(request_bytes: bytes) -> None:
    async def bytes_of(*, direct: bool) -> bytes:
        seen: list[EventStream] = []
        connection = ServerConnection(app=streaming_app(direct=direct, seen=seen))
        await connection.send(request_bytes)
        for event in EVENTS:
            seen[0].write(event)
            await connection.send()
        seen[0].end(DONE)
        await connection.send()
        connection.lose()
        return connection.written

    past_asgi = asyncio.run(bytes_of(direct=True))
    assert past_asgi == asyncio.run(bytes_of(direct=False))
    assert (b"[DONE]" in past_asgi) == (b"HEAD" not in request_bytes)


def test_a_later_event_is_written_before_its_writer_returns() -> None:
    async def scenario() -> None:
        seen: list[EventStream] = []
        connection = ServerConnection(app=streaming_app(direct=True, seen=seen))
        await connection.send(GET)
        seen[0].write(b"first")
        await connection.send()
        seen[0].write(b"second")
        assert connection.written.endswith(b"6\r\nsecond\r\n")
        seen[0].end()
        await connection.send()
        connection.lose()

    asyncio.run(scenario())


class Client:
    """One streamed completion over a connection without a socket, to the whole application."""

    def __init__(self, services: Services, engine: FakeEngine) -> None:
        self.engine = engine
        gate = Gate(services)
        gate.app = self.app = build_app(services)
        self.connection = ServerConnection(LIMITS, app=gate)

    async def ask(self, **fields: Any) -> None:
        body = json.dumps({"prompt": [5, 6, 7], "stream": True, **fields}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        await self.connection.send(head % len(body) + body)

    @property
    def texts(self) -> list[str]:
        """Of the events so far."""
        events = self.connection.written.split(b"data: {")[1:]
        chunks = [json.loads(b"{" + event.partition(b"\n\n")[0]) for event in events]
        return [chunk["choices"][0]["text"] for chunk in chunks]

    @property
    def is_done(self) -> bool:
        return self.connection.written.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@asynccontextmanager
async def client_of(model: str, **settings: Any) -> AsyncIterator[Client]:
    async with serving(model, settings=Settings(model="fake", **settings), step_s=0.001) as (services, engine):
        client = Client(services, engine)
        yield client
        client.connection.lose()


async def answer_of(client: Client, during: Callable[[], Any] = lambda: None, **fields: Any) -> list[str]:
    """The texts of one answer's events; `during` runs after the first few."""
    await client.ask(**fields)
    await until(lambda: len(client.texts) > 3)
    during()
    await until(lambda: client.is_done)
    return client.texts


@on_loop
async def test_while_a_client_does_not_read_its_tokens_are_gathered(tiny_model: str) -> None:
    async with client_of(tiny_model) as client:
        asked: Any = {"max_tokens": 60, "seed": 4, "ignore_eos": True}
        whole = "".join(await answer_of(client, **asked))
    async with client_of(tiny_model) as client:
        await client.ask(**asked)
        await until(lambda: len(client.texts) > 3)
        client.connection.protocol.pause_writing()
        written = len(client.connection.written)
        num_tokens = client.engine.num_tokens
        await until(lambda: client.engine.num_tokens >= num_tokens + 20)
        assert len(client.connection.written) == written, "nothing is piled up for who does not read"
        client.connection.protocol.resume_writing()
        await until(lambda: client.is_done)
        assert len(client.texts) < 50, "what was gathered is one event"
        assert "".join(client.texts) == whole


@on_loop
async def test_a_client_that_leaves_ends_its_rows(tiny_model: str) -> None:
    async with client_of(tiny_model) as client:
        await client.ask(max_tokens=1000, ignore_eos=True)
        await until(lambda: len(client.texts) > 3)
        client.connection.lose()
        await until(lambda: len(client.engine.aborts) == 1)
        await until(lambda: client.engine.num_open_rows == 0)


@on_loop
async def test_a_client_that_leaves_before_a_whole_answer_ends_its_rows(tiny_model: str) -> None:
    async with client_of(tiny_model) as client:
        await client.ask(max_tokens=1000, ignore_eos=True, stream=False)
        await until(lambda: client.engine.num_tokens > 3)
        client.connection.lose()
        await until(lambda: client.engine.num_open_rows == 0)
        assert len(client.engine.aborts) == 1


class Watching:
    """Middleware that remembers what passes it."""

    bodies: list[bytes]

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def seen(message: Any) -> None:
            self.bodies.append(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, seen)


@on_loop
async def test_middleware_sees_every_event(tiny_model: str) -> None:
    async with serving(tiny_model, settings=Settings(model="fake"), step_s=0.001) as (services, engine):
        Watching.bodies = []
        client = Client(services, engine)
        client.app.add_middleware(Watching)
        texts = await answer_of(client, max_tokens=30, ignore_eos=True)
        assert b"".join(Watching.bodies).count(b"data: {") == len(texts)
        client.connection.lose()


@pytest.mark.parametrize("fields", [{}, {"stop": ["no such text"]}, {"logprobs": 1}])
@on_loop
async def test_stream_interval_is_tokens_an_event(tiny_model: str, fields: dict[str, Any]) -> None:
    async with client_of(tiny_model) as client:
        asked: Any = {"max_tokens": 41, "seed": 4, "ignore_eos": True, **fields}
        each = await answer_of(client, **asked)
    async with client_of(tiny_model, stream_interval=8) as client:
        some = await answer_of(client, **asked)
    assert "".join(some) == "".join(each)
    assert len(some) <= 12  # 1 + 5 x 8, and a few more where what waited for the head is told at once
