"""The limits of one HTTP connection, and that they hold however the bytes are cut into pieces."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.http_connection import LIMITS, ServerConnection

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def statuses(written: bytes) -> list[int]:
    return [int(part.split(b" ")[0]) for part in written.split(b"HTTP/1.1 ")[1:]]


def exchange(*pieces: bytes) -> ServerConnection:
    """What became of a connection on which these pieces came."""

    async def run() -> ServerConnection:
        connection = ServerConnection()
        await connection.send(*pieces)
        connection.lose()
        await connection.send()
        assert connection.load == 0
        return connection

    return asyncio.run(run())


def test_requests_are_answered_one_after_the_other() -> None:
    connection = exchange(GET + POST, CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", GET)
    assert statuses(connection.written) == [200] * 4
    answers = [b"GET /a 0", b"POST /b 5", b"POST /c 5", b"GET /a 0"]
    assert [answer for answer in answers if answer in connection.written] == answers
    assert not connection.was_closed_by_us


@pytest.mark.parametrize("cut", [1, 7, 1000, 1024, 1025, 100_000])
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"v" * 2000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"n" * 2000 + b": v\r\n\r\n",
        b"GET /" + b"p" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nnever-ends: " + b"v" * 5000,
    ],
)
def test_a_header_over_the_limit_is_431(head: bytes, cut: int) -> None:
    connection = exchange(*(head[i : i + cut] for i in range(0, len(head), cut)))
    status, error = connection.error()
    assert status == 431
    assert "1024 bytes" in error["message"]
    assert connection.app.num_calls == 0


def test_a_header_just_under_the_limit_is_served() -> None:
    frame = b"GET / HTTP/1.1\r\nlong: %s\r\n\r\n"
    head = frame % (b"v" * (LIMITS.max_header_bytes - len(frame) + 2))
    assert len(head) == LIMITS.max_header_bytes
    assert statuses(exchange(head).written) == [200]


def test_too_many_fields_are_431() -> None:
    status, error = exchange(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 11 + b"\r\n").error()
    assert (status, error["message"]) == (431, "The header has more than 10 fields (--max-header-fields).")
    assert statuses(exchange(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10 + b"\r\n").written) == [200]


def test_endless_trailers_and_chunk_extensions_are_431() -> None:
    for endless in (b"0\r\ntrailer: " + b"t" * 5000, b"1;" + b"e" * 5000):
        connection = exchange(CHUNKED, *(endless[i : i + 100] for i in range(0, len(endless), 100)))
        assert connection.error()[0] == 431


def test_a_body_that_its_header_says_is_too_large_never_reaches_the_application() -> None:
    connection = exchange(b"POST / HTTP/1.1\r\ncontent-length: 2049\r\n\r\n" + b"b" * 100)
    status, error = connection.error()
    assert status == 413
    assert "2048 bytes" in error["message"]
    assert connection.app.num_calls == 0


def test_a_chunked_body_is_413_as_soon_as_it_is_too_large() -> None:
    chunk = b"200\r\n" + b"c" * 512 + b"\r\n"
    connection = exchange(CHUNKED, *[chunk] * 100)
    assert connection.error()[0] == 413
    assert connection.app.num_disconnects == 1
    assert statuses(exchange(CHUNKED, *[chunk] * 4, b"0\r\n\r\n").written) == [200]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: first\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_http_is_400(request_bytes: bytes) -> None:
    status, error = exchange(request_bytes).error()
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("The request is not valid HTTP")


def test_connect_is_405() -> None:
    status, error = exchange(b"CONNECT host:443 HTTP/1.1\r\n\r\n").error()
    assert status == 405
    assert "CONNECT" in error["message"]


def test_an_upgrade_is_ignored_and_the_body_is_read() -> None:
    upgrade = (
        b"POST /b HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAEAAEAAAAIAAAAB\r\ncontent-length: 5\r\n\r\nhello"
    )
    assert upgrade_answers(upgrade) == upgrade_answers(upgrade[:60], upgrade[60:]) == b"POST /b 5"
    assert statuses(exchange(upgrade * 50).written) == [200] * 50


def upgrade_answers(*pieces: bytes) -> bytes:
    return exchange(*pieces).written.rpartition(b"\r\n\r\n")[2]


def after(seconds: float, *pieces: bytes) -> ServerConnection:
    """What became of a connection whose client fell silent after these pieces."""

    async def run() -> ServerConnection:
        connection = ServerConnection()
        await connection.send(*pieces)
        await asyncio.sleep(seconds)
        return connection

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "what"),
    [
        ((b"GET / HT",), "header"),
        ((GET, b"G"), "header"),
        ((b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n",), "body"),
        ((b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhell",), "body"),
        ((CHUNKED + b"1\r\na\r\n",), "body"),
    ],
)
def test_what_does_not_come_in_time_is_408(pieces: tuple[bytes, ...], what: str) -> None:
    status, error = after(0.2, *pieces).error()
    assert (status, error["message"]) == (408, f"The {what} did not arrive within 0.05 s.")


def test_a_client_that_never_says_anything_is_cut_off_without_a_word() -> None:
    connection = after(0.2)
    assert connection.transport.is_closing()
    assert connection.written == b""


def test_an_idle_connection_is_kept() -> None:
    assert not after(0.2, POST).transport.is_closing()


def test_a_long_answer_has_all_the_time_it_needs() -> None:
    async def run() -> ServerConnection:
        connection = ServerConnection()
        connection.app.may_answer.clear()
        await connection.send(POST)
        await asyncio.sleep(0.2)
        assert connection.load == 1
        connection.app.may_answer.set()
        await connection.send()
        return connection

    assert statuses(asyncio.run(run()).written) == [200]


@pytest.mark.parametrize("bad", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nlong: " + b"v" * 3000])
def test_a_bad_request_in_a_pipeline_does_not_spoil_the_answer_before_it(bad: bytes) -> None:
    async def run() -> ServerConnection:
        connection = ServerConnection()
        connection.app.may_answer.clear()
        await connection.send(POST + bad)
        assert connection.written == b""
        connection.app.may_answer.set()
        await connection.send()
        return connection

    connection = asyncio.run(run())
    assert statuses(connection.written) == [200]
    assert connection.transport.is_closing()


def test_load_is_the_connection_until_its_first_request_and_then_its_requests() -> None:
    async def run() -> None:
        connection = ServerConnection()
        assert connection.load == 1
        await connection.send(GET[:10])
        assert connection.load == 1
        connection.app.may_answer.clear()
        await connection.send(GET[10:])
        assert connection.load == 1
        connection.app.may_answer.set()
        await connection.send()
        assert connection.load == 0
        connection.lose()
        assert connection.load == 0

    asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=30))
def test_every_cut_gives_the_same_answers(cuts: list[int]) -> None:
    data = GET + POST + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET + b"broken\r\n\r\n"
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    connection = exchange(*(data[a:b] for a, b in zip(edges, edges[1:], strict=False)))
    assert set(statuses(connection.written)) <= {200, 400}
    assert connection.written.count(b"GET /a 0") >= 1


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([GET, POST, CHUNKED])), max_size=8))
def test_no_bytes_harm_the_server(pieces: list[bytes]) -> None:
    exchange(*pieces)
