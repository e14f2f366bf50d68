"""The control channel: messages whole or not at all, and what its end means."""

import pytest

from protocol.process import (
    MAX_CONTROL_BYTES,
    CannotStart,
    Stop,
    control_pair,
    receive_from_child,
    receive_to_child,
    send_control,
)


def test_a_message_is_delivered_whole_or_refused() -> None:
    ours, theirs = control_pair()
    with ours, theirs:
        longest = CannotStart(status=3, sentence="x" * (MAX_CONTROL_BYTES - 100))
        send_control(theirs, longest)
        assert receive_from_child(ours) == longest
        with pytest.raises(OSError, match="CannotStart has"):
            send_control(theirs, CannotStart(status=3, sentence="x" * MAX_CONTROL_BYTES))
        send_control(theirs, CannotStart(status=3, sentence="short"))
        assert receive_from_child(ours) == CannotStart(status=3, sentence="short")


def test_the_end_of_the_other_side_is_none() -> None:
    ours, theirs = control_pair()
    with theirs:
        with ours:
            send_control(ours, Stop())
        assert receive_to_child(theirs) == Stop()
        assert receive_to_child(theirs) is None


def test_nothing_said_is_no_end() -> None:
    ours, theirs = control_pair()
    with ours, theirs:
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            receive_to_child(theirs)
