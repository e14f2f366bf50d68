"""The accept rule on a scoreboard with made-up neighbours, and the accept loop on a real socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine, Iterator
from typing import cast

import pytest
import uvloop

from frontend.accept import Acceptor, accept_rank
from frontend.load import Load
from protocol.scoreboard import Row, Scoreboard, State

DEADLINE_S = 5.0


def neighbours(*loads: int, state: State = State.READY) -> tuple[Scoreboard, list[Row]]:
    """Live API servers with these loads."""
    board = Scoreboard.create(num_api_servers=len(loads), num_engines=0)
    rows = [row for _, row in board.api_rows()]
    for place, (row, load) in enumerate(zip(rows, loads, strict=True)):
        board.set_current(1 + place, 1 + place)
        row.begin(1 + place)
        row.set("state", state)
        row.set("in_flight", load)
    return board, rows


def ranks(board: Scoreboard, rows: list[Row]) -> list[int | None]:
    return [accept_rank(board, row) for row in rows]


def test_the_rank_is_how_many_are_less_busy() -> None:
    assert ranks(*neighbours(3, 1, 2, 1)) == [3, 0, 2, 0]


def test_connections_without_a_request_weigh_as_much_as_requests() -> None:
    board, rows = neighbours(1, 1)
    rows[0].add("unsent_connections")
    assert ranks(board, rows) == [1, 0]


def test_who_is_gone_or_draining_does_not_count() -> None:
    board, rows = neighbours(0, 0, 0, 5)
    board.set_current(1, 0)  # reaped
    rows[1].set("state", State.DRAINING)
    rows[2].set("heartbeat_ns", 1)  # stands still
    assert accept_rank(board, rows[3]) == 0


def test_who_is_not_ready_leaves_connections_to_those_that_are() -> None:
    board, rows = neighbours(4, 0)
    rows[1].set("state", State.STARTING)
    assert ranks(board, rows) == [0, None]


def test_while_nobody_is_ready_everybody_accepts() -> None:
    assert ranks(*neighbours(1, 0, state=State.STARTING)) == [1, 0]


class Counted(asyncio.Protocol):
    """Says hello."""

    def __init__(self, row: Row) -> None:
        self._load = Load(row)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.connection_settled()


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        sock.settimeout(0)
        yield sock


async def greeted(sock: socket.socket) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"hello"
    return writer


def run(main: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def test_a_neighbour_that_hangs_with_little_load_starves_nobody() -> None:
    async def main() -> None:
        board, (_, row) = neighbours(0, 3)
        with listener() as sock:
            acceptor = Acceptor(sock, lambda: Counted(row), scoreboard=board, place=1)
            acceptor.start()
            writers = await asyncio.gather(*(greeted(sock) for _ in range(100)))
            assert row.get("unsent_connections") == 100
            acceptor.stop()
            for writer in writers:
                writer.close()

    run(main())


def test_two_share_what_comes() -> None:
    async def main() -> None:
        board, rows = neighbours(0, 0)
        with listener() as sock, sock.dup() as copy:
            first = Acceptor(sock, lambda: Counted(rows[0]), scoreboard=board, place=0)
            second = Acceptor(copy, lambda: Counted(rows[1]), scoreboard=board, place=1)
            first.start()
            second.start()
            writers = [await greeted(sock) for _ in range(20)]
            assert [row.get("unsent_connections") for row in rows] == [10, 10]
            first.stop()
            second.stop()
            for writer in writers:
                writer.close()

    run(main())


def test_one_that_cannot_be_served_is_counted_and_the_next_one_is_served(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        board, (row,) = neighbours(0)
        broken = iter([True])

        def make() -> Counted:
            if next(broken, False):
                raise ZeroDivisionError("a bug")
            return Counted(row)

        with listener() as sock:
            acceptor = Acceptor(sock, make, scoreboard=board, place=0)
            acceptor.start()
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
            writer.close()
            assert acceptor.num_failed == 1
            assert row.get("unsent_connections") == 0
            (await greeted(sock)).close()
            acceptor.stop()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "a connection could not be served" in caplog.text


def test_a_listener_that_was_shut_down_stops_the_loop_and_spins_not() -> None:
    async def main() -> None:
        board, (row,) = neighbours(0)
        with listener() as sock:
            acceptor = Acceptor(sock, lambda: Counted(row), scoreboard=board, place=0)
            acceptor.start()
            sock.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0.05)
            assert not asyncio.get_running_loop().remove_reader(sock)

    run(main())
