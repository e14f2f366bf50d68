"""Starts the load processes, lets them go together, and gathers what they report. Does not know what was measured."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

import msgspec

from frontend.bench_serve.messages import Finished, FromLoad, Go, Job, Loaded, Sample

_MAX_LINE_BYTES = 64 * 1024 * 1024
_HEAD_START_S = 0.05  # for `Go` to reach every process
_decoder = msgspec.json.Decoder(FromLoad)

OnSample = Callable[[Sample], None]


class LoadProcessError(Exception):
    """A load process ended before its work did."""


async def run_jobs(jobs: list[Job], on_sample: OnSample) -> float:
    """Run all to their end; the highest share of a core that one of the processes used. Raises `LoadProcessError`."""
    processes = [await _start() for _ in jobs]
    try:
        await asyncio.gather(*map(_hand_over, processes, jobs))
        go = msgspec.json.encode(Go(at_s=time.monotonic() + _HEAD_START_S))
        return max(await asyncio.gather(*(_let_go(process, go, on_sample) for process in processes)))
    finally:
        await asyncio.gather(*map(_end, processes))


async def _start() -> Process:
    program = (sys.executable, "-P", "-m", "frontend.bench_serve.load_process")
    return await asyncio.create_subprocess_exec(
        *program, stdin=PIPE, stdout=PIPE, limit=_MAX_LINE_BYTES, start_new_session=True
    )


async def _hand_over(process: Process, job: Job) -> None:
    await _send(process, msgspec.json.encode(job))
    if not isinstance(await _receive(process), Loaded):
        raise LoadProcessError("a load process did not take its job")


async def _let_go(process: Process, go: bytes, on_sample: OnSample) -> float:
    await _send(process, go)
    while not isinstance(message := await _receive(process), Finished):
        if isinstance(message, Sample):
            on_sample(message)
    return message.busy


async def _send(process: Process, line: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + b"\n")
        await process.stdin.drain()
    except ConnectionError as error:
        raise LoadProcessError("a load process ended before it had its job") from error


async def _receive(process: Process) -> FromLoad:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise LoadProcessError(f"a load process ended early, with status {await process.wait()}")
    message: FromLoad = _decoder.decode(line)
    return message


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
