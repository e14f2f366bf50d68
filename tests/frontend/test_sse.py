"""The buffer between a sink and its response task."""

import asyncio
from typing import Any

import pytest

from frontend.errors import overloaded, unavailable
from frontend.sse import DONE, EventStream


class Wire:
    """Remembers what was sent; `gate` closed, it is a client that does not read."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        await self.gate.wait()

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_one_step_writes_is_one_send() -> None:
    async def scenario() -> None:
        wire, stream = Wire(), EventStream(keep_alive_s=60)
        task = asyncio.create_task(stream.send_to(wire.send))
        await settle()
        assert wire.messages == []  # no status before there is something to say
        stream.write(b"a")
        stream.write(b"b")
        await settle()
        stream.write(b"c")
        await settle()
        stream.write(DONE)
        stream.end()
        await task
        assert wire.messages[0]["status"] == 200
        assert dict(wire.messages[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert wire.bodies == [b"ab", b"c", DONE]
        assert [message.get("more_body") for message in wire.messages[1:]] == [True, True, False]

    asyncio.run(scenario())


def test_a_client_that_does_not_read_gets_everything_later() -> None:
    async def scenario() -> None:
        wire, stream = Wire(), EventStream(keep_alive_s=60)
        task = asyncio.create_task(stream.send_to(wire.send))
        wire.gate.clear()
        stream.write(b"a")
        await settle()
        for _ in range(100):
            stream.write(b"b")
        stream.end()
        wire.gate.set()
        await task
        assert b"".join(wire.bodies) == b"a" + b"b" * 100
        assert len(wire.bodies) <= 2

    asyncio.run(scenario())


def test_an_error_before_the_first_event_is_raised() -> None:
    async def scenario() -> None:
        wire, stream = Wire(), EventStream(keep_alive_s=60)
        stream.fail(overloaded("full"))
        with pytest.raises(Exception, match="full"):
            await stream.send_to(wire.send)
        assert wire.messages == []

    asyncio.run(scenario())


def test_an_error_after_an_event_is_an_event_even_in_the_same_turn() -> None:
    async def scenario() -> None:
        wire, stream = Wire(), EventStream(keep_alive_s=60)
        stream.write(b"a")
        stream.fail(unavailable("draining"))
        stream.write(b"too late")
        await stream.send_to(wire.send)
        assert b"".join(wire.bodies).startswith(b"aevent: error\ndata: {")
        assert b"too late" not in b"".join(wire.bodies)

    asyncio.run(scenario())


def test_comments_break_silence_only() -> None:
    async def scenario() -> None:
        wire, stream = Wire(), EventStream(keep_alive_s=0.05)
        task = asyncio.create_task(stream.send_to(wire.send))
        for _ in range(12):  # longer than the interval, but never silent for it
            stream.write(b"x")
            await asyncio.sleep(0.01)
        assert b"".join(wire.bodies) == b"x" * 12
        async with asyncio.timeout(5):
            while wire.bodies[-1] != b": keep-alive\n\n":
                await asyncio.sleep(0.01)
        stream.end()
        await task

    asyncio.run(scenario())
