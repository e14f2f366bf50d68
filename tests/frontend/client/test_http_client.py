import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from frontend.client.answers import first_model
from frontend.client.connection import ClientError
from frontend.client.http_client import Answer, HttpClient
from tests.helpers.scripted_endpoint import (
    CLOSE,
    STREAM_END,
    STREAM_HEAD,
    Request,
    Script,
    event,
    http_chunk,
    json_answer,
    scripted_endpoint,
)


def always(*pieces: bytes) -> Script:
    async def script(_: Request) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return script


def post(url: str, *, api_key: str | None = None) -> tuple[Answer, list[bytes]]:
    events: list[bytes] = []

    async def ask() -> Answer:
        client = HttpClient(url, api_key=api_key)
        answer = await client.post("/v1/completions", b'{"a": 1}', events.append)
        await client.close()
        return answer

    return asyncio.run(ask()), events


def test_events_arrive_whole_however_the_bytes_are_cut() -> None:
    text = ': ping\n\nevent: x\ndata: {"a": "é"}\n\ndata: [DONE]\n\n'.encode()
    for cut in range(1, len(text)):
        with scripted_endpoint(
            always(STREAM_HEAD, http_chunk(text[:cut]), http_chunk(text[cut:]), STREAM_END)
        ) as server:
            answer, events = post(server.url)
        assert events == ['{"a": "é"}'.encode(), b"[DONE]"]
        assert answer == Answer(200, b"", streamed=True)


def test_an_error_status_gives_its_body_and_no_event() -> None:
    with scripted_endpoint(always(json_answer({"error": {"message": "too long"}}, "400 Bad Request"))) as server:
        answer, events = post(server.url)
    assert (answer.status, answer.streamed, events) == (400, False, [])
    assert b"too long" in answer.body


def test_the_key_the_host_and_the_body_are_sent_and_v1_is_not_doubled() -> None:
    with scripted_endpoint(always(json_answer({}))) as server:
        post(f"{server.url}/v1/", api_key="secret")
    [request] = server.requests
    assert request.line == "POST /v1/completions HTTP/1.1"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["host"] == server.url.removeprefix("http://")
    assert request.body == {"a": 1}


def test_one_connection_serves_one_request_after_another_until_the_server_says_close() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        last = request.line.startswith("GET /last")
        yield json_answer({}).replace(b"\r\n", b"\r\nConnection: close\r\n", 1) if last else json_answer({})

    async def ask(client: HttpClient) -> None:
        for path in ("/a", "/b", "/last", "/c"):
            assert (await client.get(path)).status == 200
        await client.close()

    with scripted_endpoint(script) as server:
        asyncio.run(ask(HttpClient(server.url)))
    assert server.num_connections == 2


def test_a_connection_that_was_closed_while_nobody_looked_is_not_used() -> None:
    """As in a chat: the event loop stands still while the user thinks."""
    closed = threading.Event()

    async def script(_: Request) -> AsyncIterator[bytes]:
        yield json_answer({})
        await asyncio.sleep(0.05)
        closed.set()
        yield CLOSE

    with scripted_endpoint(script) as server, asyncio.Runner() as runner:
        client = HttpClient(server.url)
        for _ in range(3):
            closed.clear()
            assert runner.run(client.get("/")).status == 200
            assert closed.wait(5)
            time.sleep(0.01)  # for the close itself, right after the note
        runner.run(client.close())
    assert server.num_connections == 3


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ((STREAM_HEAD, event({"choices": []}), CLOSE), "ended before the answer did"),
        ((CLOSE,), "ended before the answer did"),
        ((b"hello\r\n\r\n",), "no HTTP"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(pieces: tuple[bytes, ...], sentence: str) -> None:
    with scripted_endpoint(always(*pieces)) as server, pytest.raises(ClientError, match=sentence):
        post(server.url)


def test_cancelling_ends_the_connection_so_that_the_server_sees_it() -> None:
    async def script(_: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        while True:
            yield event({"choices": []})
            await asyncio.sleep(0.001)

    async def ask_and_leave(url: str) -> None:
        got_one = asyncio.Event()
        task = asyncio.create_task(HttpClient(url).post("/", b"{}", lambda _: got_one.set()))
        await got_one.wait()
        task.cancel()
        await asyncio.wait([task])

    async def until_cut(url: str) -> None:
        async with asyncio.timeout(5):
            await ask_and_leave(url)
            while not server.num_cut:
                await asyncio.sleep(0.005)

    with scripted_endpoint(script) as server:
        asyncio.run(until_cut(server.url))
    assert server.num_cut == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://ü"])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort|ASCII"):
        HttpClient(url)


def test_nobody_listens() -> None:
    with scripted_endpoint(always()) as server:
        url = server.url
    with pytest.raises(ClientError, match=f"no server listens at {url}"):
        post(url)


def test_the_first_model_is_asked_for() -> None:
    with scripted_endpoint(always(json_answer({"data": [{"id": "a"}, {"id": "b"}]}))) as server:
        assert find_model(server.url) == "a"


@pytest.mark.parametrize("answer", [json_answer({"data": []}), json_answer(7), json_answer({}, "404 Not Found")])
def test_an_endpoint_without_models_is_an_error(answer: bytes) -> None:
    with scripted_endpoint(always(answer)) as server, pytest.raises(ClientError):
        find_model(server.url)


def find_model(url: str) -> str:
    async def ask() -> str:
        client = HttpClient(url)
        try:
            return await first_model(client)
        finally:
            await client.close()

    return asyncio.run(ask())
