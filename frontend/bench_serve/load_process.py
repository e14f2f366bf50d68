"""A load process (`python -m frontend.bench_serve.load_process`): sends its share of the requests and reports each.

A process of its own, so that drawing the progress bar costs the measurement nothing.
"""

import asyncio
import sys
import time

import msgspec
import uvloop

from frontend.bench_serve.messages import Finished, FromLoad, Go, Job, Loaded, Sample, Timed
from frontend.bench_serve.request_timer import RequestTimer
from frontend.client.connection import ClientError
from frontend.client.http_client import HttpClient
from protocol.process import die_with

_encoder = msgspec.json.Encoder()


def main() -> None:
    """Read the job, say `Loaded`, wait for `Go`, send."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    die_with(job.parent_pid)
    _report(Loaded())
    go = msgspec.json.decode(sys.stdin.buffer.readline(), type=Go)
    cpu_s = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_send_all(job, go.at_s))
    _report(Finished(busy=(time.process_time() - cpu_s) / (time.monotonic() - go.at_s)))


async def _send_all(job: Job, start_s: float) -> None:
    client = HttpClient(job.url, api_key=job.api_key)
    permits = asyncio.Semaphore(job.concurrency)
    async with asyncio.TaskGroup() as group:
        for request in job.requests:
            await _sleep_until(start_s + request.due_s)
            await permits.acquire()
            group.create_task(_send(client, job, request, start_s)).add_done_callback(lambda _: permits.release())
    await client.close()


async def _send(client: HttpClient, job: Job, request: Timed, start_s: float) -> None:
    timer = RequestTimer(start_s=start_s, due_s=request.due_s or time.monotonic() - start_s)
    _report(await _measure(client, job, bytes(request.body), timer))


async def _measure(client: HttpClient, job: Job, body: bytes, timer: RequestTimer) -> Sample:
    try:
        async with asyncio.timeout(job.timeout_s):
            answer = await client.post(job.path, body, timer.on_event)
        return timer.sample(answer)
    except ClientError as error:
        return timer.failed(str(error))
    except TimeoutError:
        return timer.failed(f"no whole answer within {job.timeout_s:g} s")


async def _sleep_until(moment_s: float) -> None:
    delay = moment_s - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)


def _report(message: FromLoad) -> None:
    sys.stdout.buffer.write(_encoder.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
