"""The whole command, load processes included, against endpoints that behave and ones that do not."""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from frontend import bench_serve
from tests.helpers.scripted_endpoint import (
    CLOSE,
    STREAM_HEAD,
    Request,
    completion_stream,
    event,
    json_answer,
    scripted_endpoint,
)

MODELS = json_answer({"data": [{"id": "some-model"}]})


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    bench_serve.add_arguments(parser)
    return bench_serve.run(parser.parse_args(arguments))


async def orderly(request: Request) -> AsyncIterator[bytes]:
    if request.line.startswith("GET /v1/models"):
        yield MODELS
        return
    for piece in completion_stream(request.body["max_tokens"], prompt_tokens=3, chat="messages" in request.body):
        yield piece
        await asyncio.sleep(0.005)


def test_a_run_reports_counts_from_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.json"
    with scripted_endpoint(orderly) as server:
        status = run(
            *("--url", server.url, "--input-len", "3", "--output-len", "6", "--num-prompts", "8", "--procs", "2"),
            *("--concurrency", "4", "--goodput", "ttft:5000", "--output", str(output)),
        )
    assert status == 0
    report = json.loads(output.read_text())
    measured = report["measured"]
    assert (measured["num_requests"], measured["num_failed"]) == (8, 0)
    assert (measured["prompt_tokens"], measured["output_tokens"]) == (24, 48)
    assert measured["tpot_ms"]["p50"] >= 2
    assert measured["goodput_requests_per_s"] == measured["requests_per_s"]
    assert report["asked"]["model"] == "some-model"
    assert "output tokens/s" in capsys.readouterr().out


def test_no_more_requests_are_open_than_allowed() -> None:
    open_now = most_open = 0

    async def script(request: Request) -> AsyncIterator[bytes]:
        nonlocal open_now, most_open
        open_now += 1
        most_open = max(most_open, open_now)
        async for piece in orderly(request):
            yield piece
        open_now -= 1

    with scripted_endpoint(script) as server:
        run(
            *("--url", server.url, "--model", "m", "--input-len", "1", "--output-len", "3"),
            *("--num-prompts", "12", "--concurrency", "3"),
        )
    assert most_open == 3
    assert len(server.requests) == 12


def test_a_named_workload_runs_twice_and_the_second_counts(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    with scripted_endpoint(orderly) as server:
        status = run("--url", server.url, "--model", "m", "--workload", "single", "--output", str(output))
    assert status == 0
    first, second = (request.body["prompt"] for request in server.requests)
    assert first != second
    assert json.loads(output.read_text())["measured"]["num_requests"] == 1


def test_questions_go_to_the_chat_endpoint(tmp_path: Path) -> None:
    dataset = tmp_path / "sharegpt.json"
    dataset.write_text(json.dumps([{"conversations": [{"from": "human", "value": "why?"}]}]))
    with scripted_endpoint(orderly) as server:
        status = run(
            *("--url", server.url, "--model", "m", "--dataset", str(dataset), "--chat"),
            *("--num-prompts", "2", "--output-len", "4"),
        )
    assert status == 0
    assert [request.line for request in server.requests] == ["POST /v1/chat/completions HTTP/1.1"] * 2


BAD_ANSWERS: dict[str, tuple[list[bytes], str]] = {
    "refused": ([json_answer({"error": {"message": "prompt is too long"}}, "400 Bad Request")], "HTTP 400: prompt is"),
    "error event": ([STREAM_HEAD, event({"error": {"message": "engine died"}})], "engine died"),
    "cut": ([STREAM_HEAD, event({"choices": [{"text": "a"}]}), CLOSE], "ended before the answer"),
    "no done": (completion_stream(2)[:-2] + [b"0\r\n\r\n"], r"without \[DONE\]"),
    "no usage": (completion_stream(2)[:-3] + completion_stream(2)[-2:], "no usage"),
    "not json": ([STREAM_HEAD, event("{oops")], "no chunk"),
    "no stream": ([json_answer({"choices": []})], "HTTP 200"),
    "no http": ([b"220 smtp ready\r\n"], "no HTTP"),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_is_counted_and_its_reason_shown(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    pieces, reason = BAD_ANSWERS[kind]

    async def script(request: Request) -> AsyncIterator[bytes]:
        good = len(server.requests) > 1
        for piece in completion_stream(2) if good else pieces:
            yield piece

    with scripted_endpoint(script) as server:
        status = run(
            *("--url", server.url, "--model", "m", "--input-len", "1", "--output-len", "2"),
            *("--num-prompts", "2", "--concurrency", "1"),
        )
    assert status == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 requests failed" in shown
    assert re.search(reason, shown)


def test_a_request_that_takes_too_long_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(_: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        await asyncio.sleep(60)

    with scripted_endpoint(script) as server:
        status = run(
            *("--url", server.url, "--model", "m", "--input-len", "1", "--num-prompts", "1", "--timeout", "0.2")
        )
    assert status == 1
    assert "no whole answer within 0.2 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--input-len", "5", "--chat"], "--dataset"),
        (["--workload", "single", "--output-len", "5"], "--output-len"),
        (["--url", "nowhere", "--input-len", "5"], "no URL"),
        (["--dataset", "/nowhere/none.json"], "/nowhere/none.json cannot be read: No such file or directory"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_server_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_endpoint(orderly) as server:
        url = server.url
    assert run("--url", url, "--input-len", "5") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no server listens" in line


def argument_error(*arguments: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)


def test_values_out_of_range_are_refused() -> None:
    for wrong in (
        ["--input-len", "0"],
        ["--input-len", "5", "--procs", "-1"],
        ["--input-len", "5", "--request-rate", "0"],
        ["--input-len", "5", "--output", "/nowhere/report.json"],
    ):
        argument_error(*wrong)
    argument_error("--input-len", "5", "--workload", "single")
    argument_error()


def test_an_interrupt_ends_the_load_processes_too() -> None:
    async def script(_: Request) -> AsyncIterator[bytes]:
        yield STREAM_HEAD
        while True:
            yield event({"choices": [{"text": "a"}]})
            await asyncio.sleep(0.005)

    with scripted_endpoint(script) as server:
        command = [sys.executable, "-m", "headrace", "bench", "serve", "--url", server.url, "--model", "m"]
        process = subprocess.Popen([*command, "--input-len", "1", "--procs", "2", "--num-prompts", "2"])
        deadline = time.monotonic() + 20
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        loads = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert len(loads) == 2
    assert not any(load.is_running() for load in loads)
