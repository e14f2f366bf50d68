"""Many requests at once over services and a fake engine that lets 64 of them wait."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from frontend.errors import ApiError
from frontend.offline.batch import Asked, Batch
from frontend.offline.outputs import RequestOutput
from frontend.services import Services
from protocol.errors import InvalidField
from tests.helpers.fake_engine import FakeEngine, Refusal, next_token
from tests.helpers.serving import asked, serving, until

Test = Callable[[Services, FakeEngine], Awaitable[None]]


def serve(tiny_model: str, test: Test, **options: Any) -> None:
    async def run() -> None:
        async with serving(tiny_model, **options) as (services, engine):
            await test(services, engine)

    asyncio.run(run())


def one(seed: int = 0, **fields: Any) -> Asked:
    return Asked(None, asked([5, 6, 7], seed=seed, **{"max_tokens": 3, **fields}))


def test_outputs_come_in_the_order_of_the_requests_whoever_ends_first(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        ended: list[RequestOutput] = []
        batch = [one(seed=seed, max_tokens=20 - seed) for seed in range(10)]
        outputs = await Batch(services, ended.append).run(batch)
        assert [output.outputs[0].token_ids[0] for output in outputs] == [next_token(s, 3, 256) for s in range(10)]
        assert ended != outputs
        assert sorted(map(id, ended)) == sorted(map(id, outputs))

    serve(tiny_model, test)


def test_more_requests_than_may_wait_are_all_served_and_none_too_early(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        most_open = 0

        def look(_: RequestOutput) -> None:
            nonlocal most_open
            most_open = max(most_open, services.num_open)

        outputs = await Batch(services, look).run([one(seed, max_tokens=1 + seed % 7) for seed in range(300)])
        assert [len(output.outputs[0].token_ids) for output in outputs] == [1 + seed % 7 for seed in range(300)]
        assert 30 < most_open < 64  # one of the 64 had just ended

    serve(tiny_model, test)


def test_choices_and_tokens_count_too(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        engine.paused = True
        by_rows = asyncio.create_task(Batch(services, lambda _: None).run([one(num_choices=16) for _ in range(9)]))
        await until(lambda: engine.num_open_rows == 64)
        by_rows.cancel()
        engine.paused = False
        await until(lambda: engine.num_open_rows == 0)
        engine.paused = True
        long = [Asked(None, asked([5] * 1000, max_tokens=1000)) for _ in range(60)]
        by_tokens = asyncio.create_task(Batch(services, lambda _: None).run(long))
        await until(lambda: engine.num_open_rows == 50)  # of 2,000 tokens each, where 100,000 may wait
        by_tokens.cancel()

    serve(tiny_model, test)


def test_a_request_that_is_refused_here_ends_all(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        with pytest.raises(InvalidField, match="999"):
            await Batch(services, lambda _: None).run([one(max_tokens=500), Asked(None, asked([999]))])
        await until(lambda: engine.num_open_rows == 0)
        assert services.num_open == 0

    serve(tiny_model, test)


def test_a_request_that_the_engine_fails_ends_all(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        engine.paused = True
        requests = [one(max_tokens=1), *(one(max_tokens=500) for _ in range(64))]
        running = asyncio.create_task(Batch(services, lambda _: None).run(requests))
        await until(lambda: engine.num_open_rows == 64)
        engine.refusal = Refusal(code="internal", message="logits are not finite")
        engine.paused = False
        with pytest.raises(ApiError, match="not finite"):
            await running
        await until(lambda: engine.num_open_rows == 0)

    serve(tiny_model, test)


def test_a_heartbeat_that_says_full_is_waited_for(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        engine.num_waiting = 64
        await until(lambda: (beat := services.engine.heartbeat) is not None and beat.num_waiting == 64)
        running = asyncio.create_task(Batch(services, lambda _: None).run([one()]))
        await asyncio.sleep(0.1)
        assert not running.done()
        engine.num_waiting = 0
        assert len(await asyncio.wait_for(running, 5)) == 1

    serve(tiny_model, test)


def test_cancelling_stops_the_engine_work(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        running = asyncio.create_task(Batch(services, lambda _: None).run([one(max_tokens=2000) for _ in range(5)]))
        await until(lambda: engine.num_open_rows == 5)
        running.cancel()
        await until(lambda: engine.num_open_rows == 0)
        assert sorted(engine.aborts) == [0, 1, 2, 3, 4]

    serve(tiny_model, test)


def test_no_requests_no_outputs(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        assert await Batch(services, lambda _: None).run([]) == []

    serve(tiny_model, test)


def test_log_probabilities_are_given_by_token_the_drawn_one_first(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        request = Asked("text", asked([5, 6, 7], max_tokens=2, sampling={"logprobs": 2}, prompt_logprobs=0))
        [output] = await Batch(services, lambda _: None).run([request])
        assert (output.prompt, output.prompt_token_ids) == ("text", [5, 6, 7])
        assert output.prompt_logprobs is not None
        assert output.prompt_logprobs[0] is None
        assert [list(entry or ()) for entry in output.prompt_logprobs[1:]] == [[6], [7]]
        [choice] = output.outputs
        assert choice.logprobs is not None
        assert [next(iter(entry)) for entry in choice.logprobs] == choice.token_ids
        drawn = [entry[token] for entry, token in zip(choice.logprobs, choice.token_ids, strict=True)]
        assert choice.cumulative_logprob == sum(entry.logprob for entry in drawn)
        assert [entry.rank for entry in drawn] == [1, 1]
        assert all(len(entry) == 2 for entry in choice.logprobs)
        assert drawn[0].decoded_token == services.text.tokenizer.token_text(choice.token_ids[0])

    serve(tiny_model, test)


def test_without_asking_there_are_no_log_probabilities(tiny_model: str) -> None:
    async def test(services: Services, engine: FakeEngine) -> None:
        [output] = await Batch(services, lambda _: None).run([one()])
        assert output.prompt_logprobs is None
        assert (output.outputs[0].logprobs, output.outputs[0].cumulative_logprob) == (None, None)

    serve(tiny_model, test)
