"""The official `openai` client and curl, unchanged, against two API servers and the demo model in float32."""

import asyncio
import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam

from tests.helpers.server_process import ServerProcess

MODEL = "demo"
DEADLINE_S = 60.0
PARIS = "The capital of France is Paris."
QUESTION: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
COUNTING = "1, 2, 3, 4, 5,"
STORY = "Once upon a time"


@pytest.fixture
def client(served: ServerProcess) -> Iterator[OpenAI]:
    """As a user makes it."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=DEADLINE_S, max_retries=0) as client:
        yield client


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tokenize(client: OpenAI, text: str) -> list[int]:
    """OpenAI has no such route, so its client has no such method."""
    answer = httpx.post(str(client.base_url.join("/tokenize")), json={"prompt": text}, timeout=DEADLINE_S)
    ids: list[int] = answer.raise_for_status().json()["tokens"]
    return ids


# --- whole and streamed ----------------------------------------------------------------------------------------------


def test_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert choice.message.role == "assistant"
    assert choice.message.content == PARIS
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8  # its seven words and marks, and the end of turn
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_a_streamed_chat(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == PARIS
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 7, "each token is sent as it comes"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks)


def test_the_stream_helper_accumulates_the_same(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == PARIS
    assert final.choices[0].finish_reason == "stop"


def test_turns_are_rendered_by_the_models_template(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model=MODEL,
        temperature=0,
        max_completion_tokens=16,
        messages=[
            {"role": "system", "content": "You answer with one word."},
            {"role": "user", "content": "Is water wet?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": "Is fire cold?"}]},
        ],
    )
    turns = ["system\nYou answer with one word.", "user\nIs water wet?", "assistant\nYes.", "user\nIs fire cold?"]
    rendered = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"
    plain = client.completions.create(model=MODEL, prompt=rendered, temperature=0, max_tokens=16)
    assert chat.choices[0].message.content == plain.choices[0].text
    assert chat.usage is not None
    assert plain.usage is not None
    assert chat.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_completion_whole_and_streamed(client: OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt=COUNTING, temperature=0, max_tokens=12)
    assert whole.choices[0].text == " 6, 7, 8, 9,"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    stream = client.completions.create(model=MODEL, prompt=COUNTING, temperature=0, max_tokens=12, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_prompts_as_lists_and_token_ids(client: OpenAI) -> None:
    alone = client.completions.create(model=MODEL, prompt=COUNTING, temperature=0, max_tokens=8)
    ids = tokenize(client, COUNTING)
    texts = client.completions.create(model=MODEL, prompt=[STORY, COUNTING], temperature=0, max_tokens=8)
    tokens = client.completions.create(model=MODEL, prompt=[ids], temperature=0, max_tokens=8)
    assert [choice.index for choice in texts.choices] == [0, 1]
    assert texts.choices[1].text == tokens.choices[0].text == alone.choices[0].text
    assert texts.choices[0].text != alone.choices[0].text


def test_echo_puts_the_prompt_first(client: OpenAI) -> None:
    plain = client.completions.create(model=MODEL, prompt=STORY, temperature=0, max_tokens=6)
    echoed = client.completions.create(model=MODEL, prompt=STORY, temperature=0, max_tokens=6, echo=True)
    assert echoed.choices[0].text == STORY + plain.choices[0].text


# --- parameters ------------------------------------------------------------------------------------------------------


def test_chat_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    said = [token for token in logprobs.content if token.bytes]
    assert b"".join(bytes(token.bytes or ()) for token in said).decode().startswith(PARIS)
    for token in logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"
        assert token.top_logprobs[0].logprob == token.logprob
        shares = [math.exp(top.logprob) for top in token.top_logprobs]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1.0 + 1e-6


def test_completion_logprobs(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=COUNTING, temperature=0, max_tokens=6, logprobs=2, echo=True)
    text, logprobs = answer.choices[0].text, answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == text
    assert logprobs.token_logprobs[0] is None
    assert all(-50 < value <= 0 for value in logprobs.token_logprobs[1:])
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert text[offset:].startswith(token)


def test_streamed_logprobs_are_those_of_the_whole_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True)
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True, stream=True)
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    streamed = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    expected = whole.choices[0].logprobs
    assert expected is not None
    assert expected.content is not None
    assert [token.token for token in streamed] == [token.token for token in expected.content]
    assert [token.logprob for token in streamed] == pytest.approx(
        [token.logprob for token in expected.content], abs=1e-4
    )


def test_n_choices(client: OpenAI) -> None:
    greedy = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, n=3)
    assert [choice.message.content for choice in greedy.choices] == [PARIS] * 3
    drawn = client.completions.create(model=MODEL, prompt=STORY, temperature=1, seed=1, max_tokens=16, n=4)
    assert [choice.index for choice in drawn.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in drawn.choices}) == 4
    assert drawn.usage is not None
    assert drawn.usage.completion_tokens == 64
    stream = client.completions.create(
        model=MODEL, prompt=STORY, temperature=1, seed=1, max_tokens=16, n=4, stream=True
    )
    texts = [""] * 4
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in drawn.choices]


@pytest.mark.parametrize("stop", [" 8", ["zzz", " 8"]])
def test_stop_strings_are_not_part_of_the_answer(client: OpenAI, stop: str | list[str]) -> None:
    whole = client.completions.create(model=MODEL, prompt=COUNTING, temperature=0, max_tokens=32, stop=stop)
    assert whole.choices[0].text == " 6, 7,"
    assert whole.choices[0].finish_reason == "stop"
    stream = client.completions.create(
        model=MODEL, prompt=COUNTING, temperature=0, max_tokens=32, stop=stop, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == " 6, 7,"


def test_a_stop_string_over_several_tokens_is_held_back(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stop="France is Par", stream=True
    )
    assert text_of(list(stream)) == "The capital of "


def test_a_seed_decides_the_text(client: OpenAI) -> None:
    def draw(seed: int) -> str:
        answer = client.completions.create(model=MODEL, prompt=STORY, temperature=1, seed=seed, max_tokens=24)
        return answer.choices[0].text

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_requests_without_seed_differ(client: OpenAI) -> None:
    def draw() -> str:
        return client.completions.create(model=MODEL, prompt=STORY, temperature=1, max_tokens=24).choices[0].text

    assert len({draw() for _ in range(3)}) == 3


def test_logit_bias_forbids_a_token(client: OpenAI) -> None:
    (paris,) = tokenize(client, " Paris")
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=12, logit_bias={str(paris): -100}
    )
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.startswith("The capital of France is")
    assert "Paris" not in answer.choices[0].message.content


def test_parameters_beyond_openais(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL,
        prompt=STORY,
        max_tokens=8,
        temperature=1,
        extra_body={"top_k": 1, "min_tokens": 8, "ignore_eos": True, "return_token_ids": True},
    )
    greedy = client.completions.create(model=MODEL, prompt=STORY, max_tokens=8, temperature=0)
    assert answer.choices[0].text == greedy.choices[0].text
    assert len(answer.choices[0].model_extra["token_ids"]) == 8  # type: ignore[index]  # an extra field


# --- models and errors -----------------------------------------------------------------------------------------------


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == MODEL
    assert model.object == "model"
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="another", messages=QUESTION)
    assert "another" in caught.value.message
    assert caught.value.param == "model"
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("temperature", {"temperature": 3}),
        ("top_p", {"top_p": 1.5}),
        ("n", {"n": 100}),
        ("max_tokens", {"max_tokens": 0}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("stop", {"stop": ["x"] * 17}),
        ("messages", {"messages": []}),
        ("surprise", {"extra_body": {"surprise": 1}}),
    ],
)
def test_a_bad_request_names_its_field(client: OpenAI, field: str, changes: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION} | changes
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked)
    assert caught.value.param == field
    assert field in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_a_prompt_that_is_too_long_names_the_limit(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=[5] * 8193, max_tokens=1)
    assert "8192" in caught.value.message
    assert client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0).choices


# --- async and curl --------------------------------------------------------------------------------------------------


def test_the_async_client(served: ServerProcess) -> None:
    async def chat(client: AsyncOpenAI) -> str:
        answer = await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
        return answer.choices[0].message.content or ""

    async def stream(client: AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
        return text_of([chunk async for chunk in chunks])

    async def wrong(client: AsyncOpenAI) -> str:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(model=MODEL, prompt="x", max_tokens=-1)
        return caught.value.param or ""

    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.gather(*(chat(client) for _ in range(4)), stream(client), wrong(client))

    assert asyncio.run(ask_all()) == [PARIS] * 5 + ["max_tokens"]


def test_leaving_an_async_stream_early(served: ServerProcess) -> None:
    async def leave() -> str:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.completions.create(model=MODEL, prompt=STORY, max_tokens=2000, stream=True)
            async with asyncio.timeout(DEADLINE_S), stream:
                async for chunk in stream:
                    return chunk.choices[0].text
        return ""

    assert asyncio.run(leave()) != ""


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
def test_curl_streams_a_chat(served: ServerProcess) -> None:
    lines = curl(served.url, {"model": MODEL, "messages": QUESTION, "temperature": 0, "stream": True})
    *events, done, status = [line for line in lines.splitlines() if line]
    assert status == "200 text/event-stream; charset=utf-8"
    assert done == "data: [DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event.removeprefix("data: ")) for event in events]
    assert text_of(chunks) == PARIS


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
def test_curl_gets_an_error(served: ServerProcess) -> None:
    body, status = curl(served.url, {"model": MODEL, "messages": QUESTION, "temperature": "hot"}).splitlines()
    assert status == "400 application/json"
    assert json.loads(body)["error"]["param"] == "temperature"


def curl(url: str, body: dict[str, Any]) -> str:
    """What it prints: the answer, then a line with status and media type."""
    command = ["curl", "--silent", "--no-buffer", "--max-time", str(DEADLINE_S), f"{url}/v1/chat/completions"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    command += ["--write-out", "\n%{http_code} %{content_type}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout
