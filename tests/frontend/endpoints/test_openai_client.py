"""The official OpenAI client, unchanged, against our surface."""

import asyncio

import openai
import pytest

from tests.helpers.http_serving import MODEL, HttpServer
from tests.helpers.serving import DEADLINE_S


def ids_of(text: str, server: HttpServer) -> list[int]:
    return server.services.text.tokenizer.encode(text, add_special_tokens=False)


def test_chat_whole_and_streamed(server: HttpServer) -> None:
    create = server.openai.chat.completions.create
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "seed": 4, "max_tokens": 20}
    whole = create(**asked)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in create(**asked, stream=True))
    assert whole.choices[0].message.content == text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 20
    assert whole.usage.prompt_tokens_details.cached_tokens is not None
    assert whole.model == MODEL


def test_stream_with_usage(server: HttpServer) -> None:
    stream = server.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = list(stream)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5


def test_an_answer_can_be_sent_back(server: HttpServer) -> None:
    client = server.openai.chat.completions
    first = client.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    messages = [{"role": "user", "content": "Hi"}, first.choices[0].message, {"role": "user", "content": "More"}]
    assert client.create(model=MODEL, messages=messages, max_tokens=3).choices[0].message.content


def test_logprobs(server: HttpServer) -> None:
    answer = server.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=3,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2, 2, 2]
    completion = server.openai.completions.create(model=MODEL, prompt="ab", max_tokens=2, logprobs=1, echo=True)
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].logprobs.text_offset == [0, 1, 2, 3]


def test_n_stop_and_seed(server: HttpServer) -> None:
    create = server.openai.chat.completions.create
    messages = [{"role": "user", "content": "Hi"}]
    first, again = (create(model=MODEL, messages=messages, n=2, seed=8, max_tokens=9) for _ in range(2))
    assert [c.message.content for c in first.choices] == [c.message.content for c in again.choices]
    assert first.choices[0].message.content != first.choices[1].message.content
    server.engine.answer = ids_of("one, two", server)
    stopped = create(model=MODEL, messages=messages, stop=[","], max_tokens=30)
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one", "stop")


def test_completions_with_several_prompts(server: HttpServer) -> None:
    answer = server.openai.completions.create(model=MODEL, prompt=["a", "b"], n=2, max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    chunks = list(server.openai.completions.create(model=MODEL, prompt="a", max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_errors_are_the_clients_own_kinds(server: HttpServer) -> None:
    create = server.openai.chat.completions.create
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="other", messages=messages)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="temperature") as bad:
        create(model=MODEL, messages=messages, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        create(model=MODEL, messages=messages, max_tokens=100_000)
    assert long.value.code == "context_length_exceeded"
    server.engine.num_waiting = 64
    server.wait_until(lambda: server.services.engine.heartbeat.num_waiting == 64)  # type: ignore[union-attr]
    with pytest.raises(openai.RateLimitError):
        create(model=MODEL, messages=messages)
    server.engine.num_waiting = 0
    server.wait_until(lambda: server.services.engine.heartbeat.num_waiting == 0)  # type: ignore[union-attr]


def test_a_failing_stream_raises_in_the_client(server: HttpServer) -> None:
    stream = server.openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=2000, stream=True
    )
    next(stream)
    server.run_in_loop(lambda: server.services.fail_open_requests("it ended"))
    with pytest.raises(openai.APIError, match="it ended"):
        list(stream)


def test_models(server: HttpServer) -> None:
    (model,) = server.openai.models.list().data
    assert (model.id, model.object) == (MODEL, "model")
    assert server.openai.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        server.openai.models.retrieve("other")


def test_sixty_four_async_streams_equal_their_whole_answers(server: HttpServer) -> None:
    async def scenario() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S
        ) as client:

            async def streamed(seed: int) -> str:
                chunks = await client.completions.create(
                    model=MODEL, prompt="x", seed=seed, max_tokens=1 + seed, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in chunks])

            async def whole(seed: int) -> str:
                answer = await client.completions.create(model=MODEL, prompt="x", seed=seed, max_tokens=1 + seed)
                assert answer.usage is not None
                assert answer.usage.completion_tokens == 1 + seed
                return answer.choices[0].text

            texts = await asyncio.gather(*(streamed(seed) for seed in range(64)))
            assert texts == await asyncio.gather(*(whole(seed) for seed in range(64)))

    asyncio.run(scenario())
