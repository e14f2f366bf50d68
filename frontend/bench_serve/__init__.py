"""Measures any OpenAI endpoint under load: throughput, latencies, goodput; token counts are those of its usage."""

import argparse
import asyncio
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from frontend.bench_serve.arguments import add_arguments, load_of, make_source, num_reps_of, sampling_of
from frontend.bench_serve.jobs import Load, Target, make_jobs
from frontend.bench_serve.messages import Job, Sample
from frontend.bench_serve.processes import LoadProcessError, run_jobs
from frontend.bench_serve.prompts import PromptSource
from frontend.bench_serve.summary import Limit, Summary, summarize
from frontend.bench_serve.table import show_summary
from frontend.client.answers import first_model
from frontend.client.connection import ClientError
from frontend.client.http_client import HttpClient

__all__ = ["add_arguments", "run"]

_FAILED, _WRONG_ARGUMENTS, _INTERRUPTED = 1, 2, 130


def run(arguments: argparse.Namespace) -> int:
    """The command's exit status: 1 when a request failed."""
    try:
        source = make_source(arguments)
        target = asyncio.run(_find_target(arguments))
        summary = asyncio.run(_run_reps(source, target, load_of(arguments), arguments))
        _report(source, target, summary, arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ValueError as error:
        return _complain(error, _WRONG_ARGUMENTS)
    except (ClientError, LoadProcessError, OSError) as error:
        return _complain(error, _FAILED)
    return _FAILED if summary.num_failed else 0


async def _find_target(arguments: argparse.Namespace) -> Target:
    client = HttpClient(arguments.url, api_key=arguments.api_key)
    model = arguments.model or await first_model(client)
    await client.close()
    return Target(
        url=arguments.url,
        api_key=arguments.api_key,
        model=model,
        chat=arguments.chat,
        timeout_s=arguments.timeout,
        sampling=sampling_of(arguments),
    )


async def _run_reps(source: PromptSource, target: Target, load: Load, arguments: argparse.Namespace) -> Summary:
    num_reps = num_reps_of(arguments)
    for rep in range(num_reps - 1):
        await _run_rep(make_jobs(source, rep, target, load), [], f"{source.name}, warm-up")
    return await _run_rep(make_jobs(source, num_reps - 1, target, load), arguments.goodput, source.name)


async def _run_rep(jobs: list[Job], limits: list[Limit], title: str) -> Summary:
    samples: list[Sample] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=sum(len(job.requests) for job in jobs))

        def on_sample(sample: Sample) -> None:
            samples.append(sample)
            progress.advance(bar)

        busy = await run_jobs(jobs, on_sample)
    return summarize(samples, limits, client_busy=busy)


def _report(source: PromptSource, target: Target, summary: Summary, arguments: argparse.Namespace) -> None:
    show_summary(Console(), f"{source.name} on {target.model}", summary)
    if arguments.output:
        asked: dict[str, Any] = {
            "source": source.name,
            "model": target.model,
            "url": target.url,
            "chat": target.chat,
            "concurrency": arguments.concurrency,
            "request_rate": arguments.request_rate,
            "procs": arguments.procs,
            "sampling": {**source.sampling, **target.sampling},
            "goodput_limits": arguments.goodput,
        }
        report = {"asked": asked, "measured": summary}
        arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"headrace bench serve: {error}\n")
    return status
