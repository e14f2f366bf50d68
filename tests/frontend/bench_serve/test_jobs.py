import json
import math
from typing import Any

import pytest

from frontend.bench_serve.jobs import Load, Target, make_jobs
from frontend.bench_serve.messages import Job
from frontend.bench_serve.questions import Questions
from frontend.bench_serve.workloads import fixed_workload


def target(*, chat: bool = False, **sampling: float) -> Target:
    return Target(url="http://x", api_key=None, model="m", chat=chat, timeout_s=5, sampling=sampling)


def jobs(num_prompts: int = 10, **load: Any) -> list[Job]:
    source = fixed_workload(input_len=3, output_len=7, num_prompts=num_prompts, vocab_size=9, seed=0)
    settings: dict[str, Any] = {"num_procs": 1, "concurrency": None, "rate": math.inf, "seed": 0, **load}
    return make_jobs(source, 0, target(temperature=0.5), Load(**settings))


def test_a_body_asks_for_a_stream_with_usage_and_what_the_command_line_says_goes_last() -> None:
    body = json.loads(bytes(jobs()[0].requests[0].body))
    assert len(body.pop("prompt")) == 3
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "ignore_eos": True,
    }


def test_a_question_becomes_a_chat() -> None:
    source = Questions(name="q", questions=["why?"], num_prompts=1, max_tokens=5, seed=0, sampling={})
    [job] = make_jobs(source, 0, target(chat=True), Load(num_procs=1, concurrency=None, rate=math.inf, seed=0))
    body = json.loads(bytes(job.requests[0].body))
    assert job.path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "why?"}]
    assert "ignore_eos" not in body


@pytest.mark.parametrize(("procs", "concurrency", "shares"), [(3, 8, [3, 3, 2]), (4, 2, [1, 1]), (2, None, [5, 5])])
def test_processes_share_concurrency_and_requests(procs: int, concurrency: int | None, shares: list[int]) -> None:
    made = jobs(num_procs=procs, concurrency=concurrency)
    assert [job.concurrency for job in made] == shares
    assert sum(len(job.requests) for job in made) == 10


def test_arrivals_have_the_rate_and_keep_it_over_all_processes() -> None:
    made = jobs(num_prompts=4000, rate=100.0, num_procs=2)
    due = sorted(request.due_s for job in made for request in job.requests)
    assert due[0] == 0.0
    assert due[-1] == pytest.approx(40, rel=0.1)
    gaps = [later - sooner for sooner, later in zip(due, due[1:], strict=False)]
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.03)  # exponential


def test_without_a_rate_all_is_due_at_once() -> None:
    assert {request.due_s for request in jobs()[0].requests} == {0.0}
