"""One request end to end against the fake engine: text, ends, billing, and the one way to stop."""

import asyncio
from typing import Any

import pytest

from frontend.errors import ApiError, from_exception
from frontend.generation import start_generation
from frontend.request import Delta
from frontend.services import Services
from frontend.settings import Settings
from protocol.errors import InvalidField
from protocol.messages import FailureCode
from tests.helpers.fake_engine import BLOCK_SIZE, EOS_ID, Refusal, logprob_of, next_token
from tests.helpers.serving import RecordingSink, asked, on_loop, serving, until


def spelled(services: Services, text: str) -> list[int]:
    return services.text.tokenizer.encode(text, add_special_tokens=False)


async def answered(services: Services, **fields: Any) -> tuple[RecordingSink, Any]:
    sink = RecordingSink()
    generation = start_generation(services, asked(**fields), sink)
    await sink.wait()
    assert sink.errors == []
    return sink, generation


@on_loop
async def test_tokens_come_in_order_and_the_end_comes_once(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink, generation = await answered(services, max_tokens=20, seed=9)
        assert sink.token_ids() == [next_token(9, 3 + i, engine.vocab_size) for i in range(20)]
        assert sink.text() == services.text.tokenizer.decode(sink.token_ids(), skip_special_tokens=True)
        assert (sink.ends, sink.last().finish_reason) == (1, "length")
        assert [delta.finish_reason for delta in sink.deltas[:-1]] == [None] * 19
        assert (generation.usage.prompt_tokens, generation.usage.completion_tokens) == (3, 20)
        assert services.num_open == 0


@on_loop
async def test_choices_share_one_submit_and_draw_from_seeds_of_their_own(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink, generation = await answered(services, num_choices=3, seed=2**64 - 2, max_tokens=5)
        for choice, seed in enumerate((2**64 - 2, 2**64 - 1, 0)):
            assert sink.token_ids(choice) == [next_token(seed, 3 + i, engine.vocab_size) for i in range(5)]
            assert sink.last(choice).finish_reason == "length"
        assert (len(engine.submits), engine.submits[0].num_choices) == (1, 3)
        assert (sink.ends, generation.usage.completion_tokens, generation.usage.prompt_tokens) == (1, 15, 3)


@on_loop
async def test_eos_ends_with_stop_and_its_text_is_left_out(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "Hi, grüß dich!")
        sink, generation = await answered(services, max_tokens=100)
        assert sink.text() == "Hi, grüß dich!"
        assert (sink.last().finish_reason, sink.last().stop_reason) == ("stop", None)
        assert sink.token_ids()[-1] == EOS_ID
        assert generation.usage.completion_tokens == len(engine.answer) + 1


@pytest.mark.parametrize(("include", "text"), [(False, "ab"), (True, "abc")])
@on_loop
async def test_a_stop_token_is_named_and_shown_only_where_asked(tiny_model: str, include: bool, text: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "abcd")
        stop_id = engine.answer[2]
        sink, _ = await answered(
            services, include_stop_str_in_output=include, sampling={"stop_token_ids": (stop_id,)}, max_tokens=50
        )
        assert (sink.text(), sink.last().finish_reason, sink.last().stop_reason) == (text, "stop", stop_id)


@pytest.mark.parametrize(("include", "text"), [(False, "one "), (True, "one two")])
@on_loop
async def test_a_stop_string_across_tokens_ends_the_row_here(tiny_model: str, include: bool, text: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "one two three") * 20
        sink, generation = await answered(
            services, stop=("xyz", "two"), include_stop_str_in_output=include, max_tokens=250
        )
        assert sink.text() == text
        assert (sink.ends, sink.last().finish_reason, sink.last().stop_reason) == (1, "stop", "two")
        assert generation.usage.completion_tokens == len("one two")
        await until(lambda: engine.num_open_rows == 0)
        assert engine.aborts == [engine.submits[0].number]
        assert engine.num_tokens < 250
        assert generation.usage.completion_tokens == len("one two"), "tokens after a stop string are not billed"


@on_loop
async def test_a_stop_string_ends_one_choice_and_no_other(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        first, second = ([next_token(seed, 3 + i, engine.vocab_size) for i in range(30)] for seed in (1, 2))
        stop_at = next(i for i, token in enumerate(first) if token < 94 and token not in second)  # visible ASCII
        stop = services.text.tokenizer.decode([first[stop_at]], skip_special_tokens=True)
        sink, generation = await answered(services, num_choices=2, seed=1, stop=(stop,), max_tokens=30)
        assert (sink.last(0).finish_reason, sink.last(0).stop_reason) == ("stop", stop)
        assert (sink.last(1).finish_reason, sink.token_ids(1)) == ("length", second)
        assert (sink.ends, generation.usage.completion_tokens) == (1, stop_at + 1 + 30)


@on_loop
async def test_text_held_back_for_a_stop_string_comes_out_at_the_end(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "abc")
        sink, _ = await answered(services, stop=("bcd",), max_tokens=3)
        assert (sink.text(), sink.last().finish_reason) == ("abc", "length")


@on_loop
async def test_a_stop_string_within_min_tokens_does_not_count(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "stop stop stop")
        sink, _ = await answered(services, stop=("stop",), sampling={"min_tokens": 5}, max_tokens=50)
        assert sink.text() == "stop "


@on_loop
async def test_a_character_cut_off_at_the_end_is_shown_as_such(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.answer = spelled(services, "aé")
        sink, _ = await answered(services, max_tokens=2)
        assert sink.text() == "a\ufffd"


@on_loop
async def test_logprobs_are_parallel_to_the_tokens(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        plain, asking = RecordingSink(), RecordingSink()
        start_generation(services, asked(seed=1), plain)
        start_generation(services, asked(seed=2, sampling={"logprobs": 2}), asking)
        await plain.wait()
        await asking.wait()
        assert {delta.logprobs for delta in plain.deltas if delta.logprobs} == set()
        for delta in asking.deltas:
            assert delta.logprobs is not None
            (entry,), (token,) = delta.logprobs, delta.token_ids
            other = (token + 1) % engine.vocab_size
            assert (entry.token_id, entry.logprob, entry.rank) == (token, logprob_of(token), 1)
            assert entry.top == [(token, logprob_of(token)), (other, logprob_of(other))]


@on_loop
async def test_prompt_logprobs_are_complete_before_the_first_token(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        seen: list[Any] = []

        class Sink(RecordingSink):
            def on_delta(self, delta: Delta) -> None:
                super().on_delta(delta)
                seen.append(list(generation.prompt_logprobs or []))

        sink, prompt = Sink(), [3, 5, 8, 13, 21]
        generation = start_generation(services, asked(prompt, prompt_logprobs=1), sink)
        await sink.wait()
        assert [entry and (entry.token_id, entry.logprob) for entry in seen[0]] == [
            None,
            *((token, logprob_of(token)) for token in prompt[1:]),
        ]


@on_loop
async def test_cached_tokens_are_those_of_equal_blocks_with_equal_salt(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        prompt = list(range(3, 3 + 2 * BLOCK_SIZE + 5))
        cached = []
        for salt in ("", "", "tenant", "tenant"):
            _, generation = await answered(services, prompt_ids=prompt, salt=salt)
            cached.append(generation.usage.cached_tokens)
        assert cached == [0, 2 * BLOCK_SIZE, 0, 2 * BLOCK_SIZE]


@on_loop
async def test_a_request_for_prompt_logprobs_shares_no_blocks(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        await answered(services, prompt_ids=list(range(3, 40)), prompt_logprobs=0)
        assert engine.submits[0].block_hashes == b""


@pytest.mark.parametrize("num_choices", [1, 3])
@on_loop
async def test_cancel_while_running_stops_the_engine_and_the_sink(tiny_model: str, num_choices: int) -> None:
    async with serving(tiny_model) as (services, engine):
        sink = RecordingSink()
        generation = start_generation(services, asked(max_tokens=1000, num_choices=num_choices), sink)
        await sink.wait_for_tokens(3)
        generation.cancel()
        generation.cancel()
        heard = len(sink.deltas)
        billed = generation.usage.completion_tokens
        await until(lambda: engine.num_open_rows == 0)
        assert (len(sink.deltas), sink.ends, sink.errors) == (heard, 0, [])
        assert len(engine.aborts) == num_choices
        assert generation.usage.completion_tokens == billed
        assert services.num_open == 0
        assert services.row.get("requests_abort") == num_choices


@on_loop
async def test_cancel_while_waiting_is_the_same_abort(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.paused = True
        generation = start_generation(services, asked(max_tokens=1000), RecordingSink())
        await until(lambda: len(engine.submits) == 1)
        generation.cancel()
        await until(lambda: len(engine.aborts) == 1)
        engine.paused = False
        await until(lambda: engine.num_open_rows == 0)


@on_loop
async def test_cancel_after_the_end_does_nothing(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        _, generation = await answered(services)
        generation.cancel()
        await answered(services)
        assert engine.aborts == []
        assert services.row.get("requests_abort") == 0


@on_loop
async def test_a_sink_may_cancel_within_its_last_delta(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):

        class Sink(RecordingSink):
            def on_delta(self, delta: Delta) -> None:
                super().on_delta(delta)
                if delta.finish_reason:
                    generation.cancel()

        sink = Sink()
        generation = start_generation(services, asked(), sink)
        await until(lambda: engine.num_tokens > 0 and services.num_open == 0)
        await answered(services)
        assert (sink.ends, sink.errors) == (0, [])


@on_loop
async def test_a_sink_that_raises_hurts_nobody_else(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):

        class Broken(RecordingSink):
            def on_delta(self, delta: Delta) -> None:
                raise RuntimeError("a defect")

        engine.paused = True
        broken, sinks = Broken(), [RecordingSink() for _ in range(3)]
        for sink in (sinks[0], broken, *sinks[1:]):
            start_generation(services, asked(max_tokens=50), sink)
        engine.paused = False
        for sink in (broken, *sinks):
            await sink.wait()
        assert [getattr(error, "status", None) for error in broken.errors] == [500]
        assert [len(sink.token_ids()) for sink in sinks] == [50, 50, 50]
        await until(lambda: engine.num_open_rows == 0)
        assert engine.peers_ended == 0


@pytest.mark.parametrize(
    ("code", "status", "code_of_error"),
    [
        ("invalid", 400, None),
        ("overloaded", 429, "overloaded"),
        ("draining", 503, "draining"),
        ("internal", 500, "internal_error"),
    ],
)
@on_loop
async def test_the_engines_refusal_reaches_the_client(
    tiny_model: str, code: FailureCode, status: int, code_of_error: str | None
) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.refusal = Refusal(code=code, field="top_k", message="no", retry_after_s=7.0)
        sink = RecordingSink()
        start_generation(services, asked(num_choices=2), sink)
        await sink.wait()
        (error,) = sink.errors
        assert isinstance(error, ApiError)
        assert (error.status, error.code, sink.ends, sink.deltas) == (status, code_of_error, 0, [])
        if code == "invalid":
            assert (error.param, error.message) == ("top_k", "no")
        if code == "overloaded":
            assert error.headers == [(b"retry-after", b"7")]
        assert services.num_open == 0
        assert services.row.get("requests_error") == 2


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt_ids": [5] * 2048}, "prompt", "2048 tokens"),
        ({"prompt_ids": [5] * 2000, "max_tokens": 49}, "max_tokens", "at most 48"),
        ({"prompt_ids": [5, 256]}, "prompt", "256"),
        ({"prompt_ids": [-1]}, "prompt", "-1"),
        ({"num_choices": 17}, "n", "between 1 and 16"),
        ({"num_choices": 0}, "n", "between 1 and 16"),
        ({"prompt_logprobs": 21}, "prompt_logprobs", "between 0 and 20"),
        ({"sampling": {"logprobs": 21}}, "logprobs", "between 0 and 20"),
        ({"sampling": {"temperature": -1.0}}, "temperature", "between 0 and 100"),
        ({"stop": ("x",) * 17}, "stop", "limit is 16"),
        ({"stop": ("",)}, "stop", "1 to 64"),
        ({"stop": ("x" * 65,)}, "stop", "1 to 64"),
    ],
)
@on_loop
async def test_what_cannot_be_served_is_refused_before_the_engine(
    tiny_model: str, fields: dict[str, Any], param: str, words: str
) -> None:
    async with serving(tiny_model) as (services, engine):
        with pytest.raises((ApiError, InvalidField)) as caught:
            start_generation(services, asked(**fields), RecordingSink())
        error = from_exception(caught.value)
        assert (error.status, error.param) == (400, param)
        assert words in error.message
        await answered(services)
        assert len(engine.submits) == 1


@on_loop
async def test_the_longest_that_fits_is_served(tiny_model: str) -> None:
    async with serving(tiny_model, max_model_len=20) as (services, _):
        sink, _ = await answered(services, prompt_ids=[5] * 12, max_tokens=8)
        assert len(sink.token_ids()) == 8


@on_loop
async def test_a_full_engine_is_not_asked(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.num_waiting = 64
        await until(lambda: services.engine.heartbeat is not None and services.engine.heartbeat.num_waiting == 64)
        with pytest.raises(ApiError, match="64") as caught:
            start_generation(services, asked(), RecordingSink())
        assert (caught.value.status, caught.value.retry_after_s is not None) == (429, True)
        assert engine.submits == []


@on_loop
async def test_while_draining_nothing_starts_and_what_began_ends(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        sink = RecordingSink()
        start_generation(services, asked(max_tokens=30), sink)
        services.begin_drain()
        with pytest.raises(ApiError, match="draining") as caught:
            start_generation(services, asked(), RecordingSink())
        assert (caught.value.status, caught.value.code) == (503, "draining")
        await sink.wait()
        assert len(sink.token_ids()) == 30


@on_loop
async def test_when_the_drain_is_over_the_rest_fails(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sinks = [RecordingSink() for _ in range(3)]
        for sink in sinks:
            start_generation(services, asked(max_tokens=1000), sink)
        await sinks[0].wait_for_tokens(2)
        services.fail_open_requests("The server is shutting down.")
        assert [[error.status for error in sink.errors if isinstance(error, ApiError)] for sink in sinks] == [[503]] * 3
        assert services.num_open == 0
        await until(lambda: engine.num_open_rows == 0)


@on_loop
async def test_what_was_served_is_counted(tiny_model: str) -> None:
    async with serving(tiny_model, settings=Settings(model="fake")) as (services, engine):
        await answered(services, prompt_ids=list(range(3, 3 + 2 * BLOCK_SIZE + 1)), max_tokens=10)
        await answered(services, prompt_ids=list(range(3, 3 + 2 * BLOCK_SIZE + 1)), max_tokens=4, num_choices=2)
        engine.answer = []
        await answered(services)
        row = services.row
        assert (row.get("requests"), row.get("requests_length"), row.get("requests_stop")) == (4, 3, 1)
        assert (row.get("prompt_tokens"), row.get("cached_tokens")) == (33 + 33 + 3, 32)
        assert row.get("generation_tokens") == 10 + 8 + 1
        counts = {name: sum(row.get(f"{name}_le_{i}") for i in range(19)) for name in ("ttft", "itl", "e2e")}
        assert counts == {"ttft": 4, "itl": 9 + 3 + 3, "e2e": 3}
        assert row.get("itl_sum_us") > 0


@on_loop
async def test_many_at_once_leave_nothing_behind(tiny_model: str) -> None:
    async with serving(tiny_model, vocab_size=200) as (services, engine):
        sinks = [RecordingSink() for _ in range(100)]
        generations = [
            start_generation(services, asked(seed=i, max_tokens=5 + i % 40), sink) for i, sink in enumerate(sinks)
        ]
        for generation in generations[::3]:
            generation.cancel()
            await asyncio.sleep(0)
        for i, sink in enumerate(sinks):
            if i % 3:
                await sink.wait()
                assert sink.token_ids() == [next_token(i, 3 + k, 200) for k in range(5 + i % 40)]
        await until(lambda: engine.num_open_rows == 0)
        assert services.num_open == 0
