"""Greedy float32 output is transformers', token for token, however the engine came to it; so are log-probabilities."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.server_process import ServerProcess
from tests.system.prompts import PROMPTS
from tests.system.reference import NUM_TOKENS, NUM_TOP, Greedy
from tests.system.server import metric, metric_by, serving

DEADLINE_S = 120.0
BLOCK_SIZE = 16
TOLERANCE = 1e-3
References = dict[str, Greedy]


def asked(prompt: Any, **changes: Any) -> dict[str, Any]:
    """A greedy request for all reference tokens."""
    greedy = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True, "return_token_ids": True}
    return {"model": "demo", "prompt": prompt, **greedy, **changes}


def complete(url: str, prompt: Any, **changes: Any) -> dict[str, Any]:
    """The whole answer."""
    answer = httpx.post(f"{url}/v1/completions", json=asked(prompt, **changes), timeout=DEADLINE_S)
    assert answer.status_code == httpx.codes.OK, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def complete_all(url: str, references: References, **changes: Any) -> dict[str, dict[str, Any]]:
    """The answer to each prompt by its name: each in a connection of its own, all at the same time."""

    async def ask(greedy: Greedy) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
            answer = await client.post(f"{url}/v1/completions", json=asked(greedy.prompt_ids, **changes))
        assert answer.status_code == httpx.codes.OK, answer.text
        result: dict[str, Any] = answer.json()
        return result

    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*map(ask, references.values()))
    return dict(zip(references, answers, strict=True))


def assert_same(choice: dict[str, Any], greedy: Greedy) -> None:
    """Up to the first token that float32 does not decide."""
    assert len(choice["token_ids"]) == NUM_TOKENS
    assert choice["finish_reason"] == "length"
    assert choice["token_ids"][: greedy.num_sure] == greedy.token_ids[: greedy.num_sure]


def assert_all_same(answers: dict[str, dict[str, Any]], references: References) -> None:
    for name, greedy in references.items():
        assert_same(answers[name]["choices"][0], greedy)


def test_there_is_enough_to_compare(references: References) -> None:
    assert len(references) == 20
    assert len({len(greedy.prompt_ids) for greedy in references.values()}) > 10
    assert sum(greedy.num_sure for greedy in references.values()) > 0.9 * NUM_TOKENS * len(references)


@pytest.mark.parametrize("name", PROMPTS)
def test_one_by_one_with_log_probabilities(name: str, served: ServerProcess, references: References) -> None:
    greedy = references[name]
    answer = complete(served.url, greedy.prompt_ids, logprobs=NUM_TOP, prompt_logprobs=0)
    (choice,) = answer["choices"]
    assert_same(choice, greedy)
    assert choice["prompt_token_ids"] == greedy.prompt_ids
    assert answer["usage"]["prompt_tokens"] == len(greedy.prompt_ids)
    assert answer["usage"]["completion_tokens"] == NUM_TOKENS
    logprobs, sure = choice["logprobs"], greedy.num_sure
    assert logprobs["token_logprobs"][:sure] == pytest.approx(greedy.logprobs[:sure], abs=TOLERANCE)
    for top, expected in zip(logprobs["top_logprobs"][:sure], greedy.top_logprobs[:sure], strict=True):
        # Keys are texts: two tokens that are both halves of a character may share one.
        assert all(min(abs(value - other) for other in expected) <= TOLERANCE for value in top.values())
        assert max(top.values()) == pytest.approx(expected[0], abs=TOLERANCE)
    assert_prompt_logprobs(choice["prompt_logprobs"], greedy)


def assert_prompt_logprobs(found: list[dict[str, Any] | None], greedy: Greedy) -> None:
    """The first token has none, each other its own after those before it."""
    first, *rest = found
    assert first is None
    own = [
        position[str(token)]["logprob"] if position else None
        for position, token in zip(rest, greedy.prompt_ids[1:], strict=True)
    ]
    assert own == pytest.approx(greedy.prompt_logprobs, abs=TOLERANCE)


def test_all_in_one_batch(served: ServerProcess, references: References) -> None:
    prompts = [greedy.prompt_ids for greedy in references.values()]
    answer = complete(served.url, prompts, cache_salt="nobody's before")
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(prompts)))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    for choice, greedy in zip(answer["choices"], references.values(), strict=True):
        assert_same(choice, greedy)


def test_prefix_hits_through_two_api_servers(served: ServerProcess, references: References) -> None:
    asyncio.run(complete_all(served.url, references, max_tokens=1))
    answers, busy = asyncio.run(complete_all_and_watch(served.url, references))
    assert busy == {"0", "1"}, "both API servers must have had their share"
    found = {name: answer["usage"]["prompt_tokens_details"]["cached_tokens"] for name, answer in answers.items()}
    # Whole blocks are reused, and the last prompt token is always computed: its logits are needed.
    blocks = {name: (len(greedy.prompt_ids) - 1) // BLOCK_SIZE for name, greedy in references.items()}
    assert found == {name: count * BLOCK_SIZE for name, count in blocks.items()}
    assert_all_same(answers, references)


async def complete_all_and_watch(url: str, references: References) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """And the API servers that were seen with at least a quarter of the requests at one time."""
    asking = asyncio.ensure_future(complete_all(url, references))
    busy: set[str] = set()
    while not asking.done():
        shares = await asyncio.to_thread(metric_by, url, "api_server_in_flight", "api_server")
        busy |= {place for place, in_flight in shares.items() if in_flight >= len(references) // 4}
        await asyncio.wait([asking], timeout=0.2)
    return await asking, busy


@pytest.fixture(scope="module")
def chunking() -> Iterator[ServerProcess]:
    """No step computes more than one block's tokens."""
    with serving("--max-num-batched-tokens", "16", "--max-num-seqs", "16") as server:
        yield server


def test_chunked_prefill_of_16_tokens(chunking: ServerProcess, references: References) -> None:
    steps_before = metric(chunking.url, "engine_steps_total")
    answers = asyncio.run(complete_all(chunking.url, references))
    num_prompt_tokens = sum(len(greedy.prompt_ids) for greedy in references.values())
    # The long story begins with the short one, which may spare some of it.
    assert metric(chunking.url, "engine_steps_total") - steps_before > num_prompt_tokens / 16 / 2
    assert_all_same(answers, references)


def test_after_preemption(references: References) -> None:
    bytes_a_token = 2 * 30 * 3 * 64 * 4  # keys and values, layers, heads, width, float32
    num_tokens = 1200  # the longest request takes 314, all together about 2,200
    flags = ("--max-model-len", "640", "--no-enable-prefix-caching")
    with serving(*flags, kv_cache_memory_bytes=num_tokens * bytes_a_token) as server:
        answers = asyncio.run(complete_all(server.url, references))
        assert metric(server.url, "num_preemptions_total") > 0
        assert_all_same(answers, references)
