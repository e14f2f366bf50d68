"""One request end to end against the fake engine: deltas, ends, limits, billing."""

import asyncio

from frontend.generation import start_generation
from tests.helpers.fake_engine import next_token
from tests.helpers.serving import RecordingSink, asked, serving


def test_tokens_come_in_order_and_the_end_comes_once(tiny_model: str) -> None:
    async def scenario() -> None:
        async with serving(tiny_model) as (services, engine):
            sink = RecordingSink()
            generation = start_generation(services, asked(max_tokens=20, seed=9), sink)
            await sink.wait()
            assert sink.token_ids() == [next_token(9, 3 + i, engine.vocab_size) for i in range(20)]
            assert (sink.ends, sink.errors, sink.last().finish_reason) == (1, [], "length")
            assert generation.usage.completion_tokens == 20
            assert services.num_open == 0

    asyncio.run(scenario())
