"""When a connection takes silence for its end, on a clock and a socket of the test's own."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from frontend import engine_connection
from frontend.engine_connection import Endpoint, EngineConnection
from protocol.codec import encode
from protocol.messages import FromEngine, Heartbeat, StepLogprobs
from protocol.sockets import HEARTBEAT_TIMEOUT_S
from tests.helpers.serving import on_loop
from tests.protocol.golden_messages import EPOCH, FROM_ENGINE


class Silent:
    """A socket to which nothing comes but what the test says."""

    def __init__(self, *_: object, on_frames: Callable[[list[bytes]], None], **__: object) -> None:
        self.on_frames = on_frames

    def send(self, frame: bytes) -> None: ...

    def drain(self) -> None: ...

    def close(self) -> None: ...


class Listener:
    def __init__(self) -> None:
        self.lost: list[str] = []

    def on_message(self, message: FromEngine, logprobs: StepLogprobs | None) -> None: ...

    def on_drained(self) -> None: ...

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)


class Watched:
    """A ready connection, and when the engine core says that it has beaten."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_connection, "EngineSocket", Silent)
        self.beaten_at = time.monotonic()
        self.listener = Listener()
        context: Any = None
        self.connection = EngineConnection(
            Endpoint(
                context=context,
                address="",
                rank=0,
                epoch=EPOCH,
                place=0,
                life=1,
                beaten_at=lambda: self.beaten_at,
            ),
            self.listener,
        )
        for name in ("welcome", "engine_ready"):
            self.connection._on_frames([encode(FROM_ENGINE[name])])
        assert self.connection.is_ready

    def hear(self) -> None:
        beat = Heartbeat(
            seq=self.connection._order.next_received,
            epoch=EPOCH,
            step=0,
            num_running=0,
            num_waiting=0,
            num_waiting_tokens=0,
            num_blocks_used=0,
        )
        self.connection._on_frames([encode(beat)])

    def watch(self, times: int) -> None:
        for _ in range(times):
            self.connection._timer.cancel()
            self.connection._watch()


@on_loop
async def test_a_beat_on_the_board_may_be_ahead_of_the_one_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for _ in range(3):
        watched.beaten_at += HEARTBEAT_TIMEOUT_S + 5  # a long step has ended: the board is read first
        watched.connection.last_heard = watched.beaten_at - HEARTBEAT_TIMEOUT_S - 5
        watched.watch(1)
        watched.hear()
        watched.connection.last_heard = watched.beaten_at + 0.01
        watched.watch(1)
    assert watched.listener.lost == []
    watched.connection.close()


@on_loop
async def test_beats_that_never_come_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.beaten_at = watched.connection.last_heard + HEARTBEAT_TIMEOUT_S + 0.1
    watched.watch(2)
    assert len(watched.listener.lost) == 1
    assert not watched.connection.is_ready


@on_loop
async def test_an_engine_core_that_does_not_beat_is_not_ours_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.connection.last_heard -= 1000
    watched.beaten_at = watched.connection.last_heard
    watched.watch(10)
    assert watched.listener.lost == []
    watched.connection.close()
