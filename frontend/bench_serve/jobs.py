"""From prompts to what each load process has to send and when. It sends nothing itself."""

import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from frontend.bench_serve.messages import Job, Timed
from frontend.bench_serve.prompts import Prompt, PromptSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The endpoint, and how it is asked."""

    url: str
    api_key: str | None
    model: str
    chat: bool
    timeout_s: float
    sampling: dict[str, Any]  # goes over the source's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard it is asked."""

    num_procs: int
    concurrency: int | None  # None: no limit
    rate: float  # requests a second, Poisson; infinite: at once
    seed: int


def make_jobs(source: PromptSource, rep: int, target: Target, load: Load) -> list[Job]:
    """One job a process. Requests are dealt out in turn, so that together they keep the order of arrival."""
    concurrency = min(load.concurrency or source.num_prompts, source.num_prompts)
    num_procs = min(load.num_procs, concurrency)
    bodies = (_body(prompt, source, target) for prompt in source.prompts(rep))
    requests = [Timed(body=body, due_s=due_s) for body, due_s in zip(bodies, _arrivals(load, rep), strict=False)]
    return [
        Job(
            url=target.url,
            api_key=target.api_key,
            path="/v1/chat/completions" if target.chat else "/v1/completions",
            timeout_s=target.timeout_s,
            concurrency=len(range(place, concurrency, num_procs)),
            requests=requests[place::num_procs],
            parent_pid=os.getpid(),
        )
        for place in range(num_procs)
    ]


def _body(prompt: Prompt, source: PromptSource, target: Target) -> msgspec.Raw:
    asked = {"messages": [{"role": "user", "content": prompt.content}]} if target.chat else {"prompt": prompt.content}
    body = {
        "model": target.model,
        **asked,
        "max_tokens": prompt.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **source.sampling,
        **target.sampling,
    }
    return msgspec.Raw(msgspec.json.encode(body))


def _arrivals(load: Load, rep: int) -> Iterator[float]:
    rng = random.Random(f"arrivals-{load.seed}-{rep}")
    due_s = 0.0
    while True:
        yield due_s
        if math.isfinite(load.rate):
            due_s += rng.expovariate(load.rate)
