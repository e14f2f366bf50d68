"""When a connection is given away: only above the share of the others, and only as many as are too many."""

import pytest

from frontend.load import Load, load_of
from protocol.scoreboard import Row, Scoreboard, State


def neighbours(*in_flight: int) -> tuple[Load, Row, Scoreboard]:
    """The first one's load, and its row; the others stand still."""
    board = Scoreboard.create(num_api_servers=len(in_flight), num_engines=0)
    for place, number in enumerate(in_flight):
        board.set_current(1 + place, 1 + place)
        board.api_row(place).begin(1 + place)
        board.api_row(place).set("state", State.READY)
        board.api_row(place).set("in_flight", number)
    return Load(board.api_row(0), board), board.api_row(0), board


@pytest.mark.parametrize(
    ("before", "leaves"),
    [
        ((0, 0), False),  # one request is nobody's excess
        ((1, 0), False),
        ((5, 0), True),
        ((100, 100), False),
        ((110, 100), False),
        ((130, 100), True),
        ((130, 100, 200), False),
        ((99,), False),  # alone
    ],
)
def test_who_has_more_than_its_share_gives_a_connection_away(before: tuple[int, ...], leaves: bool) -> None:
    load, _, _ = neighbours(*before)
    assert load.request_began() is leaves


def test_only_the_excess_leaves_and_it_counts_until_it_is_gone() -> None:
    load, row, _ = neighbours(10, 0)
    left = [load.request_began() for _ in range(10)]
    # the last of them finds 20 in flight here, of which 9 leave: 11 stay, the mean is 10
    assert (left, load_of(row)) == ([True] * 9 + [False], 20)
    for leaves in left:
        load.request_ended(leaves=leaves)
    assert load_of(row) == 10
    assert load.request_began() is True, "what left is no longer counted as leaving"


def test_neighbours_that_are_gone_or_not_ready_have_no_share() -> None:
    load, _, board = neighbours(5, 0, 0)
    board.set_current(2, 0)  # reaped
    board.api_row(2).set("state", State.STARTING)
    assert load.request_began() is False
