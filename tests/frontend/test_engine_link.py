"""How steps are handed out: in turns that leave the event loop room, and gathered where this API server is late."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from frontend.generation import start_generation
from frontend.request import Delta
from tests.helpers.serving import DEADLINE_S, RecordingSink, asked, on_loop, serving

NUM_ROWS = 150
MAX_ROWS_A_TURN = 64


class Ticks:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._tick()

    def _tick(self) -> None:
        self.now += 1
        self._next = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._next.cancel()


@on_loop
async def test_a_step_of_many_rows_takes_several_turns(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        ticks, told_at = Ticks(), Counter[int]()

        class Sink(RecordingSink):
            def on_delta(self, delta: Delta) -> None:
                super().on_delta(delta)
                told_at[ticks.now] += 1

        sinks = [Sink() for _ in range(10)]
        for sink in sinks:
            start_generation(services, asked(num_choices=NUM_ROWS // len(sinks), max_tokens=4), sink)
        for sink in sinks:
            await sink.wait()
        ticks.stop()
        assert sum(told_at.values()) == NUM_ROWS * 4
        assert max(told_at.values()) <= MAX_ROWS_A_TURN


@pytest.mark.parametrize("stop", [(), ("no such text",)])
@on_loop
async def test_who_is_late_gathers_tokens_and_loses_none(tiny_model: str, stop: tuple[str, ...]) -> None:
    async with serving(tiny_model, step_s=0.001) as (services, engine):
        request: Any = asked(max_tokens=60, seed=3, stop=stop)
        in_time, late = RecordingSink(), RecordingSink()
        start_generation(services, request, in_time)
        await in_time.wait()
        start_generation(services, request, late)
        await late.wait_for_tokens(2)
        seen, until = engine.num_tokens, time.monotonic() + DEADLINE_S
        while engine.num_tokens < seen + 10:  # the event loop stands still meanwhile
            assert time.monotonic() < until
            time.sleep(0.001)
        await late.wait()
        assert (late.text(), late.token_ids()) == (in_time.text(), in_time.token_ids())
        assert max(len(delta.token_ids) for delta in late.deltas) > 5
        assert sum(len(delta.token_ids) for delta in in_time.deltas) == 60
