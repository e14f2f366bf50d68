"""Many clients at a time on the real model: each gets its own answer, and those who leave leave nothing behind."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.helpers.server_process import ServerProcess, eventually
from tests.system.prompts import PROMPTS
from tests.system.server import metric, metric_by, server_load, serving

NUM_STREAMS = 64
NUM_LEAVERS = 200
MAX_NUM_SEQS = 16
DEADLINE_S = 120.0
BASELINE_WITHIN_S = 10.0
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client can tell of one completion."""

    text: str
    token_ids: list[int]
    finish_reason: str
    completion_tokens: int


def bodies() -> list[Body]:
    """Prompts, lengths and ways to draw, mixed: every third greedy, every fourth may end before its limit."""
    chooser = random.Random("mixed streams")
    prompts = list(PROMPTS.values())
    return [
        {
            "model": "demo",
            "prompt": prompts[index % len(prompts)],
            "max_tokens": chooser.randint(1, 24),
            "temperature": 0 if index % 3 == 0 else 0.8,
            "top_p": chooser.choice([1.0, 0.95]),
            "seed": index,
            "ignore_eos": index % 4 != 0,
            "return_token_ids": True,
        }
        for index in range(NUM_STREAMS)
    ]


async def whole(client: httpx.AsyncClient, body: Body) -> Answer:
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == httpx.codes.OK, response.text
    answer = response.json()
    (choice,) = answer["choices"]
    return Answer(choice["text"], choice["token_ids"], choice["finish_reason"], answer["usage"]["completion_tokens"])


async def streamed(client: httpx.AsyncClient, body: Body) -> Answer:
    """Every event of the stream, checked for order while it is put together."""
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/completions", json=asked) as response:
        assert response.status_code == httpx.codes.OK
        events = [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    *chunks, last = [json.loads(event) for event in events[:-1]]
    choices = [chunk["choices"][0] for chunk in chunks]
    *reasons, finish_reason = [choice["finish_reason"] for choice in choices]
    assert set(reasons) <= {None}
    text = "".join(choice["text"] for choice in choices)
    token_ids = [token for choice in choices for token in choice.get("token_ids", ())]
    return Answer(text, token_ids, finish_reason, last["usage"]["completion_tokens"])


def ask_at_once(
    url: str, ask: Callable[[httpx.AsyncClient, Body], Coroutine[Any, Any, Answer]], asked: list[Body]
) -> list[Answer]:
    """Each in a connection of its own."""

    async def ask_all() -> list[Answer]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=limits) as client:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.gather(*(ask(client, body) for body in asked))

    return asyncio.run(ask_all())


def test_64_streams_are_the_whole_answers(served: ServerProcess) -> None:
    asked = bodies()
    streams = ask_at_once(served.url, streamed, asked)
    answers = ask_at_once(served.url, whole, asked)
    assert streams == answers
    for body, answer in zip(asked, answers, strict=True):
        assert len(answer.token_ids) == answer.completion_tokens
        if body["ignore_eos"] or answer.finish_reason == "length":
            assert answer.finish_reason == "length"
            assert answer.completion_tokens == body["max_tokens"]
        else:
            assert answer.finish_reason == "stop"
            assert answer.completion_tokens <= body["max_tokens"]


# --- clients that leave ----------------------------------------------------------------------------------------------


async def leave(client: httpx.AsyncClient, index: int, chooser: random.Random) -> None:
    """Ask for more than anybody waits for; go away after some events, or after some time."""
    body = {
        "model": "demo",
        "prompt": f"Client {index} says:",
        "max_tokens": 2000,
        "ignore_eos": True,
        "n": 1 + index % 2,
    }
    patience_s = chooser.uniform(0.0, 3.0)
    try:
        async with asyncio.timeout(patience_s):
            if index % 3 == 0:
                await client.post("/v1/completions", json=body)
            else:
                await read_events(client, body, num_events=chooser.randint(0, 8))
    except TimeoutError:
        return
    assert index % 3, "nobody gets a whole answer of this length in so short a time"


async def read_events(client: httpx.AsyncClient, body: Body, *, num_events: int) -> None:
    async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        assert response.status_code == httpx.codes.OK
        async for line in response.aiter_lines():
            num_events -= line.startswith("data: ")
            if num_events < 0:
                return


async def all_leave(url: str) -> None:
    chooser = random.Random("leaving")
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=limits) as client:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(leave(client, index, chooser) for index in range(NUM_LEAVERS)))


def gauges(url: str) -> dict[str, float]:
    """What is held for somebody: rows, blocks, requests. The question for them is itself one request in flight."""
    held = {name: metric(url, name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")}
    in_flight = sum(metric_by(url, "api_server_in_flight", "api_server").values()) - 1
    return {**held, "in_flight": in_flight, "load": server_load(url)}


@dataclass(frozen=True, slots=True)
class Deserted:
    """A server that everybody has left, and what it held before they came."""

    url: str
    baseline: dict[str, float]


@pytest.fixture(scope="module")
def deserted() -> Iterator[Deserted]:
    """So few rows run at a time here that most requests wait."""
    with serving("--max-num-seqs", str(MAX_NUM_SEQS), api_server_count=2) as server:
        baseline = gauges(server.url)
        asyncio.run(all_leave(server.url))
        yield Deserted(server.url, baseline)


def test_200_clients_that_leave_leave_nothing_behind(deserted: Deserted) -> None:
    assert deserted.baseline == dict.fromkeys(deserted.baseline, 0)
    eventually(
        lambda: gauges(deserted.url) == deserted.baseline, "gauges at their baseline", within_s=BASELINE_WITHIN_S
    )
    ended = metric_by(deserted.url, "request_success_total", "finished_reason")
    assert ended["abort"] > NUM_LEAVERS / 2
    assert ended["length"] == ended["stop"] == ended["error"] == 0
    assert metric(deserted.url, "child_restarts_total") == 0


def test_all_slots_can_run_when_clients_have_left(deserted: Deserted) -> None:
    english = {"model": "demo", "prompt": PROMPTS["english"], "return_token_ids": True}
    body = {**english, "temperature": 0, "ignore_eos": True, "max_tokens": 40}  # longer than gauges are old
    [alone] = ask_at_once(deserted.url, whole, [body])
    answers, most_running = asyncio.run(ask_and_watch(deserted.url, [body] * MAX_NUM_SEQS))
    assert answers == [alone] * MAX_NUM_SEQS
    assert most_running == MAX_NUM_SEQS


async def ask_and_watch(url: str, asked: list[Body]) -> tuple[list[Answer], float]:
    """And the most rows that were seen running."""
    asking = asyncio.ensure_future(asyncio.to_thread(ask_at_once, url, whole, asked))
    most_running = 0.0
    while not asking.done():
        most_running = max(most_running, await asyncio.to_thread(metric, url, "num_requests_running"))
        await asyncio.wait([asking], timeout=0.05)
    return await asking, most_running
