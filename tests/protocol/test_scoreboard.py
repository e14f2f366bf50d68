"""One writer a row, all read: counters outlive a process, gauges do not."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from protocol.scoreboard import BUCKETS_S, COUNTERS, GAUGES, ROW_BYTES, Scoreboard, State


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create(num_api_servers=2, num_engines=1)
    yield board
    os.close(board.fd)


def test_every_cell_of_a_row_fits_into_it(board: Scoreboard) -> None:
    rows = [board.api_row(0), board.api_row(1), board.engine_row(0)]
    names = ["pid", "life", "state", "heartbeat_ns", *COUNTERS, *GAUGES]
    for place, row in enumerate(rows):
        for index, name in enumerate(names):
            row.set(name, 1000 * place + index)
    for place, row in enumerate(rows):
        assert [row.get(name) for name in names] == [1000 * place + index for index in range(len(names))]
    assert os.fstat(board.fd).st_size == 4 * ROW_BYTES


def test_a_child_that_maps_the_file_is_read_here(board: Scoreboard) -> None:
    child = (
        "import sys; from protocol.scoreboard import Scoreboard\n"
        "row = Scoreboard(int(sys.argv[1])).api_row(1); row.begin(77); row.add('requests', 5)"
    )
    subprocess.run([sys.executable, "-c", child, str(board.fd)], pass_fds=[board.fd], check=True, timeout=30)
    assert (board.api_row(1).get("life"), board.api_row(1).get("requests")) == (77, 5)
    assert board.api_row(0).get("requests") == 0


def test_a_new_life_keeps_counters_and_clears_gauges(board: Scoreboard) -> None:
    row = board.api_row(0)
    row.begin(1)
    row.add("requests", 3)
    row.add("in_flight", 2)
    row.begin(2)
    assert (row.get("requests"), row.get("in_flight"), row.get("life")) == (3, 0, 2)
    assert (row.get("pid"), row.get("state")) == (os.getpid(), State.STARTING)


def test_gauges_count_only_for_the_current_life_with_a_fresh_heartbeat(board: Scoreboard) -> None:
    row = board.api_row(0)
    assert not board.is_live(row)
    row.begin(1)
    assert not board.is_live(row)
    board.set_current(1, 1)
    assert board.is_live(row)
    row.set("heartbeat_ns", row.get("heartbeat_ns") - 11 * 10**9)
    assert not board.is_live(row)
    row.beat()
    assert board.is_live(row)
    board.set_current(1, 2)
    assert not board.is_live(row)


def test_an_observation_is_in_the_bucket_whose_bound_it_does_not_exceed(board: Scoreboard) -> None:
    row = board.api_row(0)
    for seconds in (0.0, BUCKETS_S[0], BUCKETS_S[1], BUCKETS_S[-1], BUCKETS_S[-1] + 1):
        row.observe("ttft", seconds)
    counts = [row.get(f"ttft_le_{i}") for i in range(len(BUCKETS_S) + 1)]
    assert counts == [2, 1, *([0] * (len(BUCKETS_S) - 3)), 1, 1]
    assert row.get("ttft_sum_us") == pytest.approx((BUCKETS_S[0] + BUCKETS_S[1] + 2 * BUCKETS_S[-1] + 1) * 1e6, abs=5)


def test_the_supervisor_tells_how_many_rows_there_are_and_what_was_restarted(board: Scoreboard) -> None:
    board.count_restart()
    other = Scoreboard(os.dup(board.fd))
    assert ([place for place, _ in other.api_rows()], [rank for rank, _ in other.engine_rows()]) == ([0, 1], [0])
    assert other.restarts == 1
    os.close(other.fd)


def test_a_supervisor_that_begins_takes_no_row_its_life() -> None:
    board = Scoreboard.create(num_api_servers=256, num_engines=1)
    for index in range(1, 258):
        board.set_current(index, 7)
    board.count_restart()
    board.supervisor.begin(1)
    for name in (*COUNTERS, *GAUGES):
        board.supervisor.set(name, 9)
    rows = [row for _, row in board.api_rows()]
    for row in (*rows, board.engine_row(0)):
        row.begin(7)
        assert board.is_live(row)
    assert (len(rows), board.restarts) == (256, 1)
    os.close(board.fd)


def test_more_rows_than_the_supervisor_can_point_to_are_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        Scoreboard.create(num_api_servers=500, num_engines=1)
